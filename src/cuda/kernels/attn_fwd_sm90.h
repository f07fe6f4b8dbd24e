/* attn_fwd_sm90.h - what crosses from attn_fwd_sm90.c to attn_fwd_sm90.cu. */
#ifndef SAC_ATTN_FWD_SM90_H
#define SAC_ATTN_FWD_SM90_H

#include "cuda/kernels/mask_tiles.h"
#include "cuda/kernels/tail_split.h"
#include "cuda/kernels/tensor_map.h"
#include "cuda/kernels/tile_counter.h"
#include "shared/attention_args.h"
#include "shared/tile_order.h"

/* What one thread keeps of a part: its accumulators, and sum and reference of its two rows. */
#define SAC_PARTIAL_VALUES(head_dim_v) ((head_dim_v) / 2 + 4)

/* What joins a call's output to a sum: the outputs of the other calls, in their order, and the weights of all, this call's
 * the last. */
enum { SAC_SM90_MOST_OTHERS = 2 };
typedef struct sac_sm90_join {
    sac_view others[SAC_SM90_MOST_OTHERS];
    sac_view own; /* where its own output is kept; no data: nowhere */
    sac_sum_weights weights;
} sac_sm90_join;

typedef struct sac_attn_fwd_sm90_params {
    sac_tensor_map q, k, v; /* boxes: 64 columns x 64, of k and v KV_TILE, rows */
    sac_attention_args args;
    sac_tile_order order;
    sac_tail_split tail;  /* cut by keys; arrived is cleared with the counter of tiles */
    sac_mask_tiles tiles; /* CLASSIFIED */
    int32_t lead, pad;    /* under a window: how far before a query tile's first key its key tiles begin */
    int64_t total_q;      /* rows of packed queries */
    sac_tile_counter *counter;
    sac_sm90_join join; /* JOINED */
} sac_attn_fwd_sm90_params;

#endif
