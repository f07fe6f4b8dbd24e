/* mask_spec.h - a block mask written as text.
 *
 *     SPEC    =  AND { "|" AND }
 *     AND     =  UNARY { "&" UNARY }
 *     UNARY   =  "!" UNARY | "(" SPEC ")" | PATTERN
 *     PATTERN =  "causal" [":top-left" | ":bottom-right"]
 *             |  "window:" LEFT "," RIGHT [":top-left" | ":bottom-right"]      -1: unbounded
 *             |  "document:" LENGTH { "," LENGTH }                             sum: q_len and kv_len
 *             |  "prefix:" N { "," N }                                         one, or one a batch entry
 *             |  "dilated:" REACH "," STEP
 *             |  "block-diagonal:" Q_SIZE "," KV_SIZE
 *             |  "eagle3:" Q_LEN
 *             |  "mod:" TEXT
 *
 * TEXT is a mask_mod (saccade/modifier.h). It ends where a single "&" or "|" or an unmatched ")" stands; "&&" and
 * "||", and everything between brackets of its own, belong to it. So `causal & mod:h == 0 || q_idx < 4` has two
 * parts, and a bitwise "and" in TEXT needs parentheses. Spaces around words do not matter.
 */
#ifndef MASK_SPEC_H
#define MASK_SPEC_H

#include <saccade/block_mask.h>

#include "modifiers.h"

typedef enum mask_spec_kind {
    SPEC_AND,
    SPEC_OR,
    SPEC_NOT,
    SPEC_CAUSAL,
    SPEC_WINDOW,
    SPEC_DOCUMENT,
    SPEC_PREFIX,
    SPEC_DILATED,
    SPEC_BLOCK_DIAGONAL,
    SPEC_EAGLE3,
    SPEC_MOD,
} mask_spec_kind;

typedef struct mask_spec {
    mask_spec_kind kind;
    struct mask_spec *left, *right; /* operands; right NULL under NOT */
    int32_t *values;                /* (num_values) */
    int32_t num_values;
    bool bottom_right;
    char *text; /* of mod */
} mask_spec;

/* NULL when SPEC is wrong; then *error (to be freed) says where and why. */
mask_spec *mask_spec_parse(const char *text, char **error);
void mask_spec_free(mask_spec *spec);

/* Does visibility depend on the batch entry, or on the head? */
bool mask_spec_reads_batch(const mask_spec *spec);
bool mask_spec_reads_head(const mask_spec *spec);

/* The names of aux tensors and scalars in its mod texts are found in `sources`. Returns the exit code, after a
 * message unless EXIT_OK. */
int mask_spec_build(saccade_context *ctx, const mask_spec *spec, const saccade_mask_shape *shape,
                    modifier_sources *sources, saccade_block_mask **mask);

#endif
