/* attn_bwd_sm90_consumer.h - how consumers find tiles: the next one, and zeros where no row is used. */
#ifndef SAC_ATTN_BWD_SM90_CONSUMER_H
#define SAC_ATTN_BWD_SM90_CONSUMER_H

#include "cuda/kernels/attn_bwd_sm90_tile.h"

/* Each warpgroup clears for itself. */
SAC_FN void clear_unused_queries(const consumer *c, const q_record *tile, uint8_t *rows, int panels) {
#if PACK
    if (warp_has(tile->used < Q_TILE)) clear_rows(rows, tile->used, Q_TILE, panels);
#elif RAGGED
    const int32_t used = c->smem->own.sequence.q_len - tile->origin;
    if (warp_has(used < Q_TILE)) clear_rows(rows, used, Q_TILE, panels);
#endif
}

#if !BY_QUERY
/* What the band says of each of a warp's keys: it is asked for in every tile that hides some pair. A key behind the
 * last is seen by none. */
SAC_FN void note_seen_by(const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    const key_tile *own = &smem->own;
    const sac_band band = sac_band_make(&params->args.band, own->sequence.q_len, own->sequence.k_len);
    const int line = first_line() - lane_id() / 4 + lane_id() % 16, key = own->keys.begin + line;
    const sac_range all = {sac_band_first_query(&band, key), sac_band_end_query(&band, key)}, none = {0, 0};
    smem->seen_by[line] = key < own->keys.end ? all : none;
    __syncwarp();
}
#endif

/* What is asked first of the tile at hand, which is there. Read while products of the tile before are still running: a
 * load from shared memory takes 170 clocks beside them, in which this warpgroup would have nothing to do. */
SAC_FN void read_record(consumer *c) {
    const q_record *tile = &c->smem->q_tile[c->q.stage];
    c->head = tile->head;
    c->flags = tile->flags;
}
SAC_FN int has_tile(const consumer *c) { return warp_has(c->head >= 0); }

#if STAYS
/* Waits for keys, or the word that there are no more. */
SAC_FN int meet_keys(const consumer *c) {
    ptx_mbarrier_wait(&c->smem->kv_full, c->kv_parity);
    return warp_has(c->smem->own.keys.begin < c->smem->own.keys.end);
}

/* All products with them are over, and the record that ended their walk was read: others may come. dout's turn, too,
 * must be seen to be over before its stage is given back. */
SAC_FN void leave_keys(consumer *c) {
    ptx_mbarrier_wait(&c->smem->dout_full[c->q.stage], c->q.parity);
    c->left = c->smem->own;
    c->kv_parity ^= 1;
    release(&c->smem->kv_empty);
    release(&c->smem->dout_empty[c->q.stage]);
    release(&c->smem->q_empty[c->q.stage]);
    ring_next(&c->q, Q_STAGES);
}
SAC_FN const key_tile *left_keys(const consumer *c) { return &c->left; }
#else
SAC_FN void leave_keys(consumer *c) {}
SAC_FN const key_tile *left_keys(const consumer *c) { return &c->smem->own; }
#endif

#endif
