/* attn_fwd_sm90.h - what crosses from attn_fwd_sm90.c to attn_fwd_sm90.cu. */
#ifndef SAC_ATTN_FWD_SM90_H
#define SAC_ATTN_FWD_SM90_H

#include "shared/attention_args.h"

/* A CUtensorMap: opaque, made by the driver, read by the copy engine. */
typedef struct sac_tensor_map {
    uint64_t opaque[16];
} __attribute__((aligned(64))) sac_tensor_map;

/* The order of the query tiles. Heads (those of all batches) come in sections, one section after the other; inside
 * a section the last tile of every head comes first, then the one before. */
typedef struct sac_tile_order {
    int32_t num_tiles;     /* query tiles of one head */
    int32_t num_heads;     /* batch * heads */
    int32_t section_heads; /* heads a section */
    int32_t total;         /* num_tiles * num_heads */
} sac_tile_order;

typedef struct sac_attn_fwd_sm90_params {
    sac_tensor_map q, k, v; /* boxes: 64 columns x Q_TILE or KV_TILE rows */
    sac_attention_args args;
    sac_tile_order order;
    int64_t total_q;     /* rows of packed queries */
    uint32_t *next_tile; /* how many tiles were handed out beyond each CTA's first; 0 at launch */
} sac_attn_fwd_sm90_params;

#endif
