/* modifier.h - a modifier inside the library: a text, perhaps a native form, perhaps a combination of others. */
#ifndef SAC_MOD_MODIFIER_H
#define SAC_MOD_MODIFIER_H

#include <saccade/modifier.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef enum sac_mod_operator { SAC_MOD_LEAF, SAC_MOD_AND, SAC_MOD_OR, SAC_MOD_NOT } sac_mod_operator;

/* What became of a leaf's texts on the CPU. Never changes once published. */
typedef struct sac_mod_code {
    saccade_score_row_fn score_row;
    saccade_score_grad_row_fn score_grad_row;
    saccade_mask_row_fn mask_row;
    char *compiler;
    void *owner; /* keeps the functions alive until released */
    void (*release)(void *owner);
} sac_mod_code;

void sac_mod_code_free(const sac_mod_code *code); /* NULL is fine */

/* Combinations are mask_mods over a and b; their aux slots are a's followed by b's, scalars likewise. */
struct saccade_modifier {
    atomic_int references;
    saccade_modifier_kind kind;
    sac_mod_operator op;
    int32_t depth;                 /* of a combination; 0 in a leaf */
    const saccade_modifier *a, *b; /* NULL in a leaf; b NULL under NOT */
    char *name, *text, *grad_text; /* text NULL: a native form for the CPU only */
    int32_t num_aux, num_scalars;
    struct sac_mod_aux {
        char *name;
        DLDataType dtype;
    } aux[SACCADE_MAX_AUX];
    char *scalars[SACCADE_MAX_AUX];
    saccade_score_row_fn score_row; /* native forms; NULL: the text is compiled */
    saccade_score_grad_row_fn score_grad_row;
    saccade_mask_row_fn mask_row;
    _Atomic(const sac_mod_code *) code; /* NULL until compiled, and where there is nothing to compile */
};

saccade_modifier *sac_modifier_retain(const saccade_modifier *modifier);

/* A AND B, A OR B, NOT A (b NULL). Its references to a and b are its own. */
saccade_status sac_modifier_combine(saccade_modifier **result, sac_mod_operator op, const saccade_modifier *a,
                                    const saccade_modifier *b);

/* Can it be used in a backward pass? */
bool sac_modifier_has_grad(const saccade_modifier *modifier);

/* Does its text have this word, or that of a modifier that it combines? True also where there is no text to tell. */
bool sac_modifier_names(const saccade_modifier *modifier, const char *word);

/* Everything for evaluation on the CPU; compiles the texts if that has not been done. Threads may do so at once with
 * contexts of their own. */
saccade_status sac_modifier_ready(saccade_context *ctx, const saccade_modifier *modifier, bool with_grad);

/* Row evaluation of a ready modifier, combinations included. */
void sac_mask_row(const saccade_modifier *modifier, uint8_t *visible, int32_t n, int32_t b, int32_t h,
                  int32_t q_idx, int32_t kv_idx, const saccade_aux *aux);
void sac_score_row(const saccade_modifier *modifier, float *score, int32_t n, int32_t b, int32_t h,
                   int32_t q_idx, int32_t kv_idx, const saccade_aux *aux);
void sac_score_grad_row(const saccade_modifier *modifier, float *grad, const float *score, int32_t n,
                        int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx, const saccade_aux *aux);

/* Source of the functions for a device compiler: defines sac_score_mod and, where it has a gradient,
 * sac_score_mod_grad; or sac_mask_mod (see the top of device_text.c). One of each kind may share a program.
 * Caller frees. Errors: UNSUPPORTED (a native form without text). */
saccade_status sac_modifier_device_text(const saccade_modifier *modifier, char **text);

/* Values for the slots, checked against the declarations; `where` names the argument in messages. */
saccade_status sac_modifier_bind(saccade_aux *aux, const saccade_bound_modifier *bound, DLDevice device,
                                 const char *where);

/* Where gradients of the bound tensors go: (num_aux) contiguous, fp32, with as many elements; entries, and the list,
 * may be NULL. */
saccade_status sac_modifier_bind_grads(saccade_aux *aux, const saccade_modifier *modifier,
                                       DLTensor *const *daux, DLDevice device);

#endif
