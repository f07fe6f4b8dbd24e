/* saccade/modifier.h - score_mod and mask_mod: FlexAttention's contract (arXiv 2412.05496), from one C text on CPU and
 * GPU.
 *
 *   score_mod(score, b, h, q_idx, kv_idx) -> score    on the scaled score, before masking
 *   mask_mod(b, h, q_idx, kv_idx) -> bool             true: the query sees the key
 *
 * b is the batch entry, h the query head (also under GQA), q_idx and kv_idx positions inside the sequence
 * (also when sequences are packed), all int32_t; score is a float.
 *
 *     saccade_modifier *prefix_lm;
 *     saccade_modifier_create(ctx, &prefix_lm, &(saccade_modifier_params){.kind = SACCADE_MASK_KIND,
 *         .text = "kv_idx < aux_i32(prefix, b) || q_idx >= kv_idx",
 *         .num_aux = 1, .aux = (saccade_aux_decl[]){{.name = "prefix", .dtype = SACCADE_I32}}});
 *     saccade_attention_forward(ctx, q, k, v, out, NULL, &(saccade_attention_params){.mask_mod = {
 *         .modifier = prefix_lm, .aux = (const DLTensor *[]){SACCADE_TENSOR(lengths, SACCADE_I32, batch)}}});
 *
 * A text is an expression ("q_idx >= kv_idx") or a body in braces that returns ("{ float t = score / 30.f;
 * return 30.f * tanhf(t); }"), in C, with the names above, the accessors of saccade/modifier_text.h, the
 * declared aux tensors and scalars as slots, and these functions of <math.h>:
 *   expf exp2f expm1f logf log2f log1pf powf sqrtf   fabsf fminf fmaxf fmodf floorf ceilf truncf rintf
 *   sinf cosf tanf asinf acosf atanf atan2f   sinhf coshf tanhf asinhf acoshf atanhf   erff erfcf
 * It includes nothing and has no preprocessor lines. It may run on any thread in any order and must
 * not have side effects but aux_grad. It is code: run only texts that you trust.
 *
 * Gradients: a score_mod used in a backward pass needs grad_text, which gets `grad` (dL/d result) and `score`
 * (its input) and returns dL/d score; aux_grad(slot, i, x) adds x to the fp32 gradient of an aux tensor. Those
 * additions are atomic and come in any order where rows run in parallel, so that the last bits of such a gradient
 * may change from run to run: under `deterministic` a backend serialises them or refuses, by a rule that names
 * them.
 *
 * On the CPU a text is compiled by the C compiler of the machine (cc, gcc or clang of PATH) with the loop over a
 * row around it, once: the result is kept in the context's cache_dir. Where there is none that works, libtcc
 * compiles it in memory, faster, to slower code. The context's `compiler` names another, by path or name in PATH,
 * or "libtcc"; then nothing else is tried. saccade_modifier_compiler says which it was. A modifier is compiled
 * once, for the first context that needs it.
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

/* A modifier compiled by your own compiler, as the macros of saccade/native_modifier.h make it. */
typedef struct saccade_native_modifier {
    saccade_modifier_kind kind;
    const char *name;
    const char *text;               /* the same computation, for devices; NULL: CPU only */
    saccade_score_row_fn score_row; /* the one of its kind; the other NULL */
    saccade_mask_row_fn mask_row;
} saccade_native_modifier;

typedef struct saccade_native_grad {
    const char *text; /* NULL: CPU only */
    saccade_score_grad_row_fn row;
} saccade_native_grad;

typedef struct saccade_aux_decl {
    const char *name; /* a C identifier; how text names the slot */
    DLDataType dtype; /* floating point, signed or uint8: as the accessors used and the tensor bound */
} saccade_aux_decl;

/* Either a text or a native form, and for a score_mod one or none of the two gradients. */
typedef struct saccade_modifier_params {
    saccade_modifier_kind kind; /* may be 0 beside native */
    const char *name;           /* for messages and reports; NULL: native's, or "score_mod", "mask_mod" */
    const char *text;           /* expression or body */
    const char *grad_text;      /* score_mod only */
    const saccade_native_modifier *native;
    const saccade_native_grad *native_grad; /* score_mod only */
    int32_t num_aux;                        /* at most SACCADE_MAX_AUX */
    const saccade_aux_decl *aux;            /* (num_aux) */
    int32_t num_scalars;                    /* at most SACCADE_MAX_AUX */
    const char *const *scalars;             /* (num_scalars) names */
} saccade_modifier_params;

/* Checks and copies; compiles nothing yet. A text is compiled for the CPU when the CPU first needs it, for a GPU
 * when a GPU first needs it; both are cached.
 * Errors: INVALID_ARGUMENT (names, dtypes, counts; an accessor in a text whose type is not that of its slot, or
 * whose slot does not exist; preprocessor lines), OUT_OF_MEMORY. */
SACCADE_API saccade_status saccade_modifier_create(saccade_context *ctx, saccade_modifier **modifier,
                                                   const saccade_modifier_params *params);

/* Compiles the texts for the CPU now, so that a mistake shows now.
 * Errors: COMPILE_FAILED with the compiler's message, in which lines count from the first of the text. */
SACCADE_API saccade_status saccade_modifier_compile(saccade_context *ctx, saccade_modifier *modifier);

/* What runs on the CPU: "native", the path of the C compiler that compiled the text, "libtcc"; "" before a text
 * was compiled, and of NULL. Lives as long as the modifier. */
SACCADE_API const char *saccade_modifier_compiler(const saccade_modifier *modifier);

/* A modifier is reference counted; block masks and combinations keep theirs alive. NULL is fine. */
SACCADE_API void saccade_modifier_destroy(saccade_modifier *modifier);

/* A modifier with the values it reads, as calls take it. aux and scalars in the declared order. Zero: none. */
typedef struct saccade_bound_modifier {
    const saccade_modifier *modifier;
    /* (num_aux): row-major without gaps, up to 4 dimensions, on the call's device. */
    const DLTensor *const *aux;
    const float *scalars; /* (num_scalars) */
} saccade_bound_modifier;

/* ---- evaluation on the CPU, for tests and tools: n keys of one query, the first at kv_idx ---- */

typedef struct saccade_modifier_row {
    int32_t b, h, q_idx, kv_idx, n;
} saccade_modifier_row;

/* visible (n) receives 0 or 1; score (n) is replaced by the modified one. Compiles if that has not been done.
 * Errors: INVALID_ARGUMENT (the wrong kind; aux tensors that are not those declared), COMPILE_FAILED. */
SACCADE_API saccade_status saccade_modifier_mask_row(saccade_context *ctx,
                                                     const saccade_bound_modifier *mask_mod,
                                                     const saccade_modifier_row *row, uint8_t *visible);
SACCADE_API saccade_status saccade_modifier_score_row(saccade_context *ctx,
                                                      const saccade_bound_modifier *score_mod,
                                                      const saccade_modifier_row *row, float *score);

/* grad (n), the gradient of the modified scores, is replaced by that of `score` (n), which went in. daux
 * (num_aux) or NULL: contiguous fp32 tensors that gradients of aux tensors are added to; entries may be NULL. */
SACCADE_API saccade_status saccade_modifier_score_grad_row(saccade_context *ctx,
                                                           const saccade_bound_modifier *score_mod,
                                                           const saccade_modifier_row *row, float *grad,
                                                           const float *score, DLTensor *const *daux);

#ifdef __cplusplus
}
#endif
#endif
