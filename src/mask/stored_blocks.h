/* stored_blocks.h - masks that are data: their lists, and the bits of their PARTIAL blocks, are their mask_mod. */
#ifndef SAC_MASK_STORED_BLOCKS_H
#define SAC_MASK_STORED_BLOCKS_H

#include "mask/block_mask.h"

/* Row form of the mask_mod `blocks`: what its text says pair by pair, with one look-up a block. */
void sac_stored_blocks_row(uint8_t *visible, int32_t n, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,
                           const saccade_aux *aux);

/* Stores the PARTIAL blocks of a listed mask, one bit a pair, and replaces its mask_mod by them. */
saccade_status sac_mask_store_partial(saccade_context *ctx, saccade_block_mask *mask);

/* A reference to `mask` if it has a mask_mod; if it has FULL blocks only, a mask with the same lists that also has
 * them as its mask_mod. INVALID_ARGUMENT when neither: PARTIAL blocks that the call's mask_mod would decide. `name`
 * is the argument in messages. */
saccade_status sac_mask_decided(saccade_context *ctx, saccade_block_mask **decided, const char *name,
                                const saccade_block_mask *mask);

#endif
