/* saccade/modifier.h - score_mod and mask_mod: FlexAttention's contract, from one C text on CPU and GPU.
 *
 *   score_mod(score, b, h, q_idx, kv_idx) -> score    on the scaled score, before masking
 *   mask_mod(b, h, q_idx, kv_idx) -> bool             true: the query sees the key
 *
 * b is the batch entry, h the query head (also under GQA), q_idx and kv_idx positions inside the sequence
 * (also when sequences are packed). A text is an expression ("q_idx >= kv_idx") or a body in braces that
 * returns ("{ float t = score / 30.f; return 30.f * tanhf(t); }"), in C, with the names above, the accessors
 * of saccade/aux.h, the aux tensors' and scalars' own names as slots, and tanhf expf exp2f logf log2f fabsf
 * fminf fmaxf sqrtf floorf sinf cosf. Texts may run on any thread in any order and must not have side effects
 * but aux_grad.
 *
 * A native modifier is compiled by your own compiler and keeps its text for the device:
 *
 *     SACCADE_MASK_MOD(prefix_lm, { return kv_idx < aux_i32(0, b) || q_idx >= kv_idx; })
 *     saccade_modifier_create(ctx, &mod, &(saccade_modifier_params){SACCADE_NATIVE(prefix_lm),
 *         .num_aux = 1, .aux = (saccade_aux_decl[]){{.name = "prefix", .dtype = SACCADE_I32}}});
 *
 * Gradients: a score_mod used in a backward pass needs grad_text, which gets `grad` (dL/d result) and `score`
 * (its input) and returns dL/d score; aux_grad(slot, i, x) adds to the gradient of an aux tensor.
 */
#ifndef SACCADE_MODIFIER_H
#define SACCADE_MODIFIER_H

#include <saccade/aux.h>
#include <saccade/context.h>
#include <saccade/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct saccade_modifier saccade_modifier;

typedef enum saccade_modifier_kind { SACCADE_SCORE_KIND = 1, SACCADE_MASK_KIND = 2 } saccade_modifier_kind;

/* The native forms, a row of n keys at a time, the first at kv_idx. score and grad are updated in place;
 * visible receives 0 or 1. */
typedef void (*saccade_score_row_fn)(float *score, int32_t n, int32_t b, int32_t h, int32_t q_idx,
                                     int32_t kv_idx, const saccade_aux *aux);
typedef void (*saccade_score_grad_row_fn)(float *grad, const float *score, int32_t n, int32_t b, int32_t h,
                                          int32_t q_idx, int32_t kv_idx, const saccade_aux *aux);
typedef void (*saccade_mask_row_fn)(uint8_t *visible, int32_t n, int32_t b, int32_t h, int32_t q_idx,
                                    int32_t kv_idx, const saccade_aux *aux);

typedef struct saccade_aux_decl {
    const char *name; /* a C identifier; how text may name the slot */
    DLDataType dtype; /* f32 f16 bf16 i32 i64 u8: must agree with the accessors used and the tensor bound */
} saccade_aux_decl;

typedef struct saccade_modifier_params {
    saccade_modifier_kind kind;
    const char *name;               /* for messages and reports; NULL: "score_mod" or "mask_mod" */
    const char *text;               /* expression or body */
    const char *grad_text;          /* score_mod only; NULL: cannot be used in a backward pass */
    saccade_score_row_fn score_row; /* native forms; all NULL: the text is compiled for the CPU too */
    saccade_score_grad_row_fn score_grad_row;
    saccade_mask_row_fn mask_row;
    int32_t num_aux;
    const saccade_aux_decl *aux; /* (num_aux) */
    int32_t num_scalars;
    const char *const *scalars; /* (num_scalars) names */
} saccade_modifier_params;

/* Checks and copies; compiles nothing yet where a native form is given. A text is compiled for the CPU when
 * the CPU first needs it (cached), for a GPU when a GPU first needs it.
 * Errors: INVALID_ARGUMENT (names, dtypes, counts). */
SACCADE_API saccade_status saccade_modifier_create(saccade_context *ctx, saccade_modifier **modifier,
                                                   const saccade_modifier_params *params);

/* Compiles the text for the CPU now, so that a mistake shows now.
 * Errors: COMPILE_FAILED with the compiler's message and the line within the text. */
SACCADE_API saccade_status saccade_modifier_compile(saccade_context *ctx, saccade_modifier *modifier);

/* A modifier is reference counted; block masks and combinations keep theirs alive. NULL is fine. */
SACCADE_API void saccade_modifier_destroy(saccade_modifier *modifier);

/* A modifier with the values it reads, as calls take it. aux and scalars in the declared order. Zero: none. */
typedef struct saccade_bound_modifier {
    const saccade_modifier *modifier;
    const DLTensor *const *aux; /* (num_aux), contiguous, on the call's device */
    const float *scalars;       /* (num_scalars) */
} saccade_bound_modifier;

/* ---- native modifiers ---- */

#define aux_f32(slot, i) (((const float *)aux->tensor[slot].data)[i])
#define aux_i32(slot, i) (((const int32_t *)aux->tensor[slot].data)[i])
#define aux_i64(slot, i) (((const int64_t *)aux->tensor[slot].data)[i])
#define aux_u8(slot, i) (((const uint8_t *)aux->tensor[slot].data)[i])
#define aux_size(slot, d) (aux->tensor[slot].extent[d])
#define scalar(slot) (aux->scalar[slot])

#define SACCADE_MASK_MOD(name_, ...)                                                                         \
    static inline _Bool name_##_point(int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,                   \
                                      const saccade_aux *aux) {                                              \
        (void)b, (void)h, (void)q_idx, (void)kv_idx, (void)aux;                                              \
        __VA_ARGS__                                                                                          \
    }                                                                                                        \
    static void name_##_row(uint8_t *visible, int32_t n, int32_t b, int32_t h, int32_t q_idx,                \
                            int32_t kv_idx, const saccade_aux *aux) {                                        \
        for (int32_t i = 0; i < n; i++) visible[i] = name_##_point(b, h, q_idx, kv_idx + i, aux);            \
    }                                                                                                        \
    static const saccade_modifier_params name_ = {                                                           \
        .kind = SACCADE_MASK_KIND, .name = #name_, .text = #__VA_ARGS__, .mask_row = name_##_row};

#ifdef __cplusplus
}
#endif
#endif
