/* mask_check.h - holds a block mask against a predicate, pair by pair and block by block. */
#ifndef TEST_MASK_CHECK_H
#define TEST_MASK_CHECK_H

#include <saccade/block_mask.h>

/* What a mask should say; written for the test, sharing nothing with the library. */
typedef bool (*visible_fn)(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j);

typedef struct expected_mask {
    const char *name; /* in messages */
    visible_fn visible;
    const void *rule;
} expected_mask;

/* Fails with the first difference: a pair's visibility, a block's kind (FULL exactly when all its pairs are
 * visible, not listed exactly when none is, DIAGONAL only on one diagonal of the mask's period), the order of a
 * list, the transpose, a count of get_info. */
void assert_mask_is(saccade_context *ctx, const saccade_block_mask *mask, const expected_mask *expected);

/* The lists alone: ascending, by_key the transpose of by_query, counts as in get_info. */
void assert_lists_are_consistent(const saccade_block_mask *mask);

/* Both masks have the same shape and list the same blocks with the same kinds. */
void assert_same_blocks(const saccade_block_mask *a, const saccade_block_mask *b);

/* "q 33 kv 130 blocks 16x8 batch 1 heads 1", valid until the next call. */
const char *shape_text(const saccade_mask_shape *shape);

#endif
