/* attn_fwd_sm90.h - what crosses from attn_fwd_sm90.c to attn_fwd_sm90.cu. */
#ifndef SAC_ATTN_FWD_SM90_H
#define SAC_ATTN_FWD_SM90_H

#include "cuda/kernels/tensor_map.h"
#include "shared/attention_args.h"
#include "shared/tile_order.h"

typedef struct sac_attn_fwd_sm90_params {
    sac_tensor_map q, k, v; /* boxes: 64 columns x Q_TILE or KV_TILE rows */
    sac_attention_args args;
    sac_tile_order order;
    int64_t total_q;     /* rows of packed queries */
    uint32_t *next_tile; /* how many tiles were handed out beyond each CTA's first; 0 at launch */
} sac_attn_fwd_sm90_params;

#endif
