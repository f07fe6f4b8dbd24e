/* classify.h - what kind a block is, by asking the mask_mod. */
#ifndef SAC_MASK_CLASSIFY_H
#define SAC_MASK_CLASSIFY_H

#include "mask/block_mask.h"

/* 0, SACCADE_PARTIAL or SACCADE_FULL; stops as soon as both answers have been heard. The mask_mod is ready
 * (sac_modifier_ready). */
int32_t sac_mask_classify(const saccade_block_mask *mask, int32_t b, int32_t h, sac_range q, sac_range k);

/* Lists every block of the mask by its own mask_mod, in parallel. */
saccade_status sac_mask_list_by_asking(saccade_context *ctx, saccade_block_mask *mask);

#endif
