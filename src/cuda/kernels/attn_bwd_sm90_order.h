/* attn_bwd_sm90_order.h - ORDERED: key tiles are added to dQ in their order, so that its bits depend on nothing else.
 *
 * A word for each query tile counts the key tiles that it has had. Beside the producer two threads read the records of
 * the tiles that come by: one waits until all before its own are counted, and lets the consumers add; the other counts
 * its own once they have. What consumers do for it is wait at a barrier that mostly is open, and arrive at another.
 *
 * Key tiles are launched in their order too, so none waits for one that cannot start; and none waits long. All walk
 * their queries from the last one back, and the heads of a group side by side. So those at work pass a query tile one
 * after the other, and under a causal mask, where a later one has fewer queries, it ends before those that it follows.
 */
#ifndef SAC_ATTN_BWD_SM90_ORDER_H
#define SAC_ATTN_BWD_SM90_ORDER_H

#include "cuda/kernels/attn_bwd_sm90_producer.h"

enum { KEEPERS = 2 };

#if ORDERED
/* One of the two threads, and the tile that it has come to. */
typedef struct keeper {
    const sac_attn_bwd_sm90_params *params;
    smem_layout *smem;
    sac_band band;
    ring q;          /* of the next record */
    ring dq;         /* of the barriers at which consumers are told of the tile, or tell of it */
    uint32_t *count; /* the tile's word, */
    uint32_t turn;   /* and how many come before the CTA's own: those that see it follow each other */
} keeper;

SAC_FN keeper keeper_of(const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    const key_tile *own = &smem->own;
    const ring first = {0, 0}, before_first = {DS_BUFFERS - 1, 1};
    const sac_band band = sac_band_make(&params->args.band, own->sequence.q_len, own->sequence.k_len);
    const keeper k = {params, smem, band, first, before_first, 0, 0};
    return k;
}

SAC_FN int next_turn(keeper *k) {
    smem_layout *smem = k->smem;
    const q_record *tile = &smem->q_tile[k->q.stage];
    ptx_mbarrier_wait(&smem->q_full[k->q.stage], k->q.parity);
    if (tile->head < 0) return 0;
    const int64_t at = (int64_t)tile->head * k->params->turns_a_head + tile->origin / Q_TILE +
                       sac_first_turn(&k->params->args.len_q, smem->own.batch, Q_TILE);
    k->count = k->params->dq_turns + at;
    k->turn = smem->own.keys.begin / KV_TILE - sac_band_lo(&k->band, tile->origin) / KV_TILE;
    ptx_mbarrier_arrive(&smem->q_empty[k->q.stage]);
    ring_next(&k->q, Q_STAGES);
    ring_next(&k->dq, DS_BUFFERS);
    return 1;
}

SAC_FN void let_add(keeper *k) {
    while (next_turn(k)) {
        while (ptx_ld_acquire(k->count) != k->turn) continue;
        ptx_mbarrier_arrive(&k->smem->dq_turn[k->dq.stage]);
    }
}

/* Before the first tile consumers say once that they have added, nothing: at the barrier of the last buffer. */
SAC_FN void count_added(keeper *k) {
    ptx_mbarrier_wait(&k->smem->dq_added[DS_BUFFERS - 1], 0);
    while (next_turn(k)) {
        ptx_mbarrier_wait(&k->smem->dq_added[k->dq.stage], k->dq.parity ^ (k->dq.stage == DS_BUFFERS - 1));
        ptx_st_release(k->count, k->turn + 1);
    }
}

/* The second warp, and the third. */
SAC_FN void keep_order(const sac_attn_bwd_sm90_params *params, smem_layout *smem, int warp) {
    keeper k = keeper_of(params, smem);
    if (lane_id() > 0) return;
    if (warp == 1)
        let_add(&k);
    else
        count_added(&k);
}
#endif

#endif
