/* blocks.h - the block masks of the tests: made through the public interface, and said pair by pair. */
#ifndef TEST_BLOCKS_H
#define TEST_BLOCKS_H

#include "support/attention_case.h"

/* NULL for BLOCKS_NONE. mask_mod: the case's, for BLOCKS_MOD. */
saccade_block_mask *test_blocks_create(saccade_context *ctx, const attention_case *c,
                                       const saccade_bound_modifier *mask_mod);

/* May the pair be seen, as far as the block mask alone decides? -1: if the mask_mod admits it. */
int test_blocks_admit(const attention_case *c, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx);

/* Does the block mask carry the case's mask_mod, so that the call must not? */
bool test_blocks_carry_mod(const attention_case *c);

#endif
