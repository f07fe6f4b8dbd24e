/* attn_fwd_sm90.h - what crosses from attn_fwd_sm90.c to attn_fwd_sm90.cu. */
#ifndef SAC_ATTN_FWD_SM90_H
#define SAC_ATTN_FWD_SM90_H

#include "cuda/kernels/mask_tiles.h"
#include "cuda/kernels/tensor_map.h"
#include "cuda/kernels/tile_counter.h"
#include "shared/attention_args.h"
#include "shared/tile_order.h"

/* The last tiles, `tiles` of them, are too few for all CTAs: their keys are cut into `parts` of about equal length, and
 * who finishes a tile's last part merges them. */
typedef struct sac_tail_split {
    int32_t tiles, parts; /* 0: none is cut */
    uint32_t *arrived;    /* (tiles, consumers): parts that are done, cleared with the counter of tiles */
    float *partial;       /* (tiles, consumers, parts, SAC_PARTIAL_VALUES(head_dim_v), 128) */
} sac_tail_split;

/* What one thread keeps of a part: its accumulators, and sum and reference of its two rows. */
#define SAC_PARTIAL_VALUES(head_dim_v) ((head_dim_v) / 2 + 4)

typedef struct sac_attn_fwd_sm90_params {
    sac_tensor_map q, k, v; /* boxes: 64 columns x 64 or KV_TILE rows */
    sac_attention_args args;
    sac_tile_order order;
    sac_tail_split tail;
    sac_mask_tiles tiles; /* CLASSIFIED */
    int32_t lead, pad;    /* under a window: how far before a query tile's first key its key tiles begin */
    int64_t total_q;      /* rows of packed queries */
    sac_tile_counter *counter;
} sac_attn_fwd_sm90_params;

#endif
