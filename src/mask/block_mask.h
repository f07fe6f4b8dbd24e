/* block_mask.h - a block mask inside the library: two compressed lists and the mask_mod that decides PARTIAL. */
#ifndef SAC_MASK_BLOCK_MASK_H
#define SAC_MASK_BLOCK_MASK_H

#include <saccade/block_mask.h>
#include <stdatomic.h>

#include "shared/attention_args.h"

struct saccade_block_mask {
    atomic_int references;
    saccade_mask_shape shape; /* defaults filled in; batch and num_heads at least 1 */
    int32_t num_q_blocks, num_kv_blocks;
    int32_t period;
    int64_t *row_offsets, *col_offsets; /* (batch * heads * rows + 1) */
    int32_t *row_entries, *col_entries; /* by query block; by key block */
    saccade_modifier *mask_mod;         /* NULL: the call's */
    saccade_aux aux;                    /* its values; data owned below */
    void *owned[SACCADE_MAX_AUX];       /* (num_aux) copies, reference counted */
};

/* The lists as backends walk them. */
sac_block_mask_args sac_block_mask_view(const saccade_block_mask *mask);

#endif
