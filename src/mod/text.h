/* text.h - a modifier's text before any compiler sees it: what it may say, and the function around it. */
#ifndef SAC_MOD_TEXT_H
#define SAC_MOD_TEXT_H

#include <stdio.h>

#include "mod/modifier.h"

/* What reads an element of that dtype, "aux_f32" and its kind; NULL for a dtype that aux tensors cannot have. */
const char *sac_aux_accessor(DLDataType dtype);

/* The functions of <math.h> that a text may call: X(name, parameters). */
#define SAC_TEXT_FUNCTIONS(X)                                                                                \
    X(expf, (float))                                                                                         \
    X(exp2f, (float))                                                                                        \
    X(expm1f, (float))                                                                                       \
    X(logf, (float))                                                                                         \
    X(log2f, (float))                                                                                        \
    X(log1pf, (float))                                                                                       \
    X(powf, (float, float))                                                                                  \
    X(sqrtf, (float))                                                                                        \
    X(fabsf, (float))                                                                                        \
    X(fminf, (float, float))                                                                                 \
    X(fmaxf, (float, float))                                                                                 \
    X(fmodf, (float, float))                                                                                 \
    X(floorf, (float))                                                                                       \
    X(ceilf, (float))                                                                                        \
    X(truncf, (float))                                                                                       \
    X(rintf, (float))                                                                                        \
    X(sinf, (float))                                                                                         \
    X(cosf, (float))                                                                                         \
    X(tanf, (float))                                                                                         \
    X(asinf, (float))                                                                                        \
    X(acosf, (float))                                                                                        \
    X(atanf, (float))                                                                                        \
    X(atan2f, (float, float))                                                                                \
    X(sinhf, (float))                                                                                        \
    X(coshf, (float))                                                                                        \
    X(tanhf, (float))                                                                                        \
    X(asinhf, (float))                                                                                       \
    X(acoshf, (float))                                                                                       \
    X(atanhf, (float))                                                                                       \
    X(erff, (float))                                                                                         \
    X(erfcf, (float))

/* May a slot have this name? It must be an identifier that means nothing else in C, CUDA C or a text. */
bool sac_slot_name_ok(const char *name);

/* Holds the accessors of a text against the declared slots; refuses preprocessor lines. `which` is "text" or
 * "grad_text". Everything else is left to the compiler. */
saccade_status sac_text_check(const saccade_modifier *modifier, const char *which, const char *text);

/* A body in braces, rather than an expression? */
bool sac_text_is_body(const char *text);

/* Where the slots of a leaf begin in the saccade_aux of the combination it belongs to. */
typedef struct sac_slot_base {
    int32_t aux, scalar;
} sac_slot_base;

/* Writes the definition of `function`, the point form of a leaf's text (of its grad_text if `grad`), with its
 * slots' names and with #line such that a compiler's messages count from the text's first line. */
void sac_text_emit(FILE *out, const saccade_modifier *leaf, bool grad, const char *function,
                   sac_slot_base base);

/* The whole unit that the CPU's compilers compile for a leaf: what texts may use, its point functions, and the row
 * functions SAC_SCORE_ROW_SYMBOL... around those that have no native form. Caller frees; NULL: no memory. */
char *sac_host_source(const saccade_modifier *leaf);

#define SAC_SCORE_ROW_SYMBOL "sac_score_row"
#define SAC_SCORE_GRAD_ROW_SYMBOL "sac_score_grad_row"
#define SAC_MASK_ROW_SYMBOL "sac_mask_row"

#endif
