/* exchange.h - the eight tensors of PyTorch's BlockMask as checked arguments, on the host or on the mask's device. */
#ifndef SAC_MASK_EXCHANGE_H
#define SAC_MASK_EXCHANGE_H

#include "mask/block_mask.h"
#include "mask/tensor.h"

/* One list of the exchange: counts (B, H, rows), indices (B, H, rows, columns). */
typedef struct sac_block_tensors {
    sac_mask_tensor counts, indices;
    const char *counts_name, *indices_name;
    bool has_counts, has_indices;
} sac_block_tensors;

/* The four lists of the layout: by query and by key, PARTIAL and FULL of each. */
typedef struct sac_exchange {
    sac_block_tensors partial[2], full[2]; /* [0] kv_: rows are query blocks; [1] q_: rows are key blocks */
} sac_exchange;

/* Those tensors that are there, checked: where the mask lies, with its batch, heads and blocks. */
saccade_status sac_exchange_open(sac_exchange *x, const saccade_block_mask *mask,
                                 const saccade_block_mask_tensors *tensors);

/* For reading: the plain kv_ pair is there, and no list without its other half. */
saccade_status sac_exchange_check_pairs(const sac_exchange *x);

#endif
