/* checks.h - the arguments of a builder, checked once for the builders on the host and on a device. */
#ifndef SAC_MASK_CHECKS_H
#define SAC_MASK_CHECKS_H

#include "mask/block_mask.h"
#include "mask/tensor.h"

saccade_status sac_window_rule(sac_band_rule *rule, int32_t left, int32_t right, bool bottom_right);
sac_band_rule sac_causal_rule(bool bottom_right);

/* Packed documents: q_len == kv_len. */
saccade_status sac_check_packed(const saccade_mask_shape *shape);

saccade_status sac_check_indices(const saccade_block_mask *mask, const sac_mask_tensor *indices,
                                 saccade_block_kind kind);

/* A mask_mod is given, and it is one. */
saccade_status sac_check_mask_mod(const saccade_bound_modifier *mask_mod);

#endif
