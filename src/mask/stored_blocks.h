/* stored_blocks.h - masks that are data: their lists, and the bits of their PARTIAL blocks, are their mask_mod. */
#ifndef SAC_MASK_STORED_BLOCKS_H
#define SAC_MASK_STORED_BLOCKS_H

#include "mask/block_mask.h"

/* Stores the PARTIAL blocks of a listed mask, one bit a pair, and replaces its mask_mod by them. */
saccade_status sac_mask_store_partial(saccade_context *ctx, saccade_block_mask *mask);

/* A reference to `mask` if it has a mask_mod; if it has FULL blocks only, a mask with the same lists that also has
 * them as its mask_mod. INVALID_ARGUMENT when neither: PARTIAL blocks that the call's mask_mod would decide. `name`
 * is the argument in messages. */
saccade_status sac_mask_decided(saccade_context *ctx, saccade_block_mask **decided, const char *name,
                                const saccade_block_mask *mask);

#endif
