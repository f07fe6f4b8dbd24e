/* attn_bwd_sm90_consumer.h - how consumers find tiles: the next one, and zeros where no row is used. */
#ifndef SAC_ATTN_BWD_SM90_CONSUMER_H
#define SAC_ATTN_BWD_SM90_CONSUMER_H

#include "cuda/kernels/attn_bwd_sm90_tile.h"

/* Each warpgroup clears for itself. */
SAC_FN void clear_unused_queries(const consumer *c, const q_record *tile, uint8_t *rows, int panels) {
#if PACK
    if (warp_has(tile->used < Q_TILE)) clear_rows(rows, tile->used, Q_TILE, panels);
#elif RAGGED
    const int32_t used = sac_length_of(&c->params->args.len_q, c->smem->own.batch) - tile->origin;
    if (warp_has(used < Q_TILE)) clear_rows(rows, used, Q_TILE, panels);
#endif
}

/* Once k and v are there. */
SAC_FN void clear_unused_keys(const consumer *c) {
    smem_layout *smem = c->smem;
    const int32_t num_keys = smem->own.keys.end - smem->own.keys.begin;
    ptx_mbarrier_wait(&smem->kv_full, 0);
    if (RAGGED && warp_has(num_keys < KV_TILE)) {
        clear_rows(smem->k, num_keys, KV_TILE, PANELS);
        clear_rows(smem->v, num_keys, KV_TILE, PANELS_V);
    }
}

/* The tile at hand once it is there, or NULL: there are no more. */
SAC_FN const q_record *next_tile(const consumer *c) {
    const q_record *tile = &c->smem->q_tile[c->q.stage];
    ptx_mbarrier_wait(&c->smem->q_full[c->q.stage], c->q.parity);
    return warp_has(tile->head < 0) ? nullptr : tile;
}

#endif
