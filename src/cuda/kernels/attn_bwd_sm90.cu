/* attn_bwd_sm90.cu - attention backward on Hopper: one CTA, the dK and dV of one key tile, or of one after the other
 * (STAYS), while the queries of all heads of the group walk by.
 *
 *   producer (one warp; PACK: four)      consumers (two warpgroups, 64 keys each)
 *   load k, v                            for each query tile i:
 *   walk the key tile's queries:           s = k q(i)^T,  dp = v dout(i)^T       keys x queries
 *     load q, lse, dout, delta             p = exp(s - lse),  ds = p (dp - delta)   operands in registers
 *                                          ds(i) to shared memory, for the other warpgroup
 *                                          dq(i-1) = ds(i-1) k,  dv += p dout(i),  dk += ds q(i)
 *                                          add dq(i-1) to its sums
 *                                        store dk, dv
 *
 * What decides its speed: dQ is summed over key tiles in memory, which the L2 does at 3.8 TB/s and only by whole lines,
 * and a warp that must wait for its additions waits for all of them. So dQ is one tile late: it is multiplied when all
 * dS of its tile have long been written, and added while other products run. Scores are keys x queries so that P and
 * dS, as they lie in registers, are operands of dV and dK. Of a short walk, as in a window, a tenth would be waits for
 * its keys and first queries: to a CTA that stays they come while dK and dV of the last keys leave.
 *
 * Needs from attn_bwd_sm90.c, beside the modifiers' text: HEAD_DIM, HEAD_DIM_V, DTYPE; KV_TILE, Q_TILE, Q_STAGES,
 * DQ_COLUMNS, PRODUCER_REGS, CONSUMER_REGS (its table of tiles); SMEM_BYTES, what a CTA gets; and, each 0 or 1, what
 * a variant computes: SUM_DQ, STAGES_DQ, ORDERED (sums are made in a fixed order: attn_bwd_sm90_order.h), STAYS (a CTA
 * an SM, which takes key tiles until none is left; for the tile of 128 keys, with SUM_DQ, without ORDERED or
 * BLOCK_MASK), BLOCK_MASK, MASK_MOD, SCORE_MOD, SOFTCAP, ALIBI, PRESCALED (scores are scaled before the softmax: any
 * of the last three, or a scale that is not positive or is tiny), RAGGED (lengths come from device memory).
 */
#include "cuda/kernels/attn_bwd_sm90_consumer.h"
#include "cuda/kernels/attn_bwd_sm90_cta.h"
#include "cuda/kernels/attn_bwd_sm90_score.h"
#include "cuda/kernels/attn_bwd_sm90_store.h"
#include "cuda/kernels/attn_bwd_sm90_unfinite.h"
#include "cuda/kernels/ptx/wgmma.h"

PTX_WGMMA_SS(mma_scores_set, Q_TILE, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS(mma_scores_add, Q_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_RS(mma_rows_set, Q_TILE, "bf16", PTX_WGMMA_SET)
PTX_WGMMA_RS_MN(mma_dk_add, HEAD_DIM, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_RS_MN(mma_dv_add, HEAD_DIM_V, INPUT_TYPE, PTX_WGMMA_ADD)
#if SUM_DQ
PTX_WGMMA_SS_MN(mma_dq_set, DQ_COLUMNS, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS_MN(mma_dq_add, DQ_COLUMNS, INPUT_TYPE, PTX_WGMMA_ADD)
#endif

enum { BF16_ONE = 0x3f80 };

/* ---- products, all asynchronous ---- */

/* d = keys queries^T: this warpgroup's rows of k or v, and q or dout; and, if folded, less what lies at rows. */
SAC_FN void issue_scores(const consumer *c, float *d, uint32_t keys, uint32_t queries, int head_dim,
                         int folded, uint32_t rows) {
    const uint64_t k = ptx_wgmma_desc_k_major(keys), q = ptx_wgmma_desc_k_major(queries);
    ptx_wgmma_pin(d, Q_TILE / 2);
    ptx_wgmma_fence();
    if (folded) mma_rows_set(d, c->ones, ptx_wgmma_desc_half_rows(rows));
#pragma unroll
    for (int i = 0; i < (head_dim + 15) / 16; i++) {
        const uint64_t k_step = k + PTX_WGMMA_ADVANCE(i / 4 * KV_TILE * ROW_BYTES + i % 4 * 32);
        const uint64_t q_step = q + PTX_WGMMA_ADVANCE(i / 4 * Q_TILE * ROW_BYTES + i % 4 * 32);
        if (i == 0 && !folded)
            mma_scores_set(d, k_step, q_step);
        else
            mma_scores_add(d, k_step, q_step);
    }
    ptx_wgmma_commit();
}
SAC_FN void issue_s(consumer *c) {
    issue_scores(c, c->s, c->k_rows, c->q_rows, HEAD_DIM, FOLDS_LSE, c->lse_rows);
}
SAC_FN void issue_dp(consumer *c) {
    issue_scores(c, c->dp, c->v_rows, c->dout_rows, HEAD_DIM_V, FOLDS_DELTA, c->delta_rows);
}

/* dv += p dout */
SAC_FN void issue_dv(consumer *c) {
    const uint64_t dout = ptx_wgmma_desc_mn_major(c->dout_rows, Q_TILE * ROW_BYTES);
    ptx_wgmma_pin(c->dv, HEAD_DIM_V / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < Q_TILE / 16; i++)
        mma_dv_add(c->dv, c->p + 4 * i, dout + PTX_WGMMA_ADVANCE(16 * i * ROW_BYTES));
    ptx_wgmma_commit();
}

/* dk += ds q */
SAC_FN void issue_dk(consumer *c) {
    const uint64_t q = ptx_wgmma_desc_mn_major(c->q_rows, Q_TILE * ROW_BYTES);
    ptx_wgmma_pin(c->dk, HEAD_DIM / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < Q_TILE / 16; i++)
        mma_dk_add(c->dk, c->ds_packed + 4 * i, q + PTX_WGMMA_ADVANCE(16 * i * ROW_BYTES));
    ptx_wgmma_commit();
}

#if SUM_DQ
/* dq = ds k: one half of its rows, or of its columns. Before the first tile there is no dS yet: what then lies in the
 * buffer is multiplied for nothing, which costs less than a branch around asynchronous products. */
SAC_FN void issue_dq(consumer *c, const uint8_t *from, int half) {
    const uint32_t rows = DQ_BY_ROWS ? half * 64 * ROW_BYTES : 0;
    const uint32_t columns = SPLIT_QUERIES ? half * KV_TILE * ROW_BYTES : 0;
    const uint64_t ds = ptx_wgmma_desc_k_major(ptx_warp_uniform(ptx_smem_of(from) + rows));
    const uint64_t k = ptx_wgmma_desc_mn_major(c->k_columns + columns, KV_TILE * ROW_BYTES);
    ptx_wgmma_pin(c->dq, DQ_COLUMNS / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++) {
        const uint64_t ds_step = ds + PTX_WGMMA_ADVANCE(i / 4 * Q_TILE * ROW_BYTES + i % 4 * 32);
        const uint64_t k_step = k + PTX_WGMMA_ADVANCE(16 * i * ROW_BYTES);
        if (i == 0)
            mma_dq_set(c->dq, ds_step, k_step);
        else
            mma_dq_add(c->dq, ds_step, k_step);
    }
    ptx_wgmma_commit();
}
#endif

#if DQ_LATE
/* To its sums, when it is the CTA's turn. */
SAC_FN void add_dq(consumer *c, const dq_target *target) {
    ptx_wgmma_pin(c->dq, DQ_COLUMNS / 2);
#if ORDERED
    ptx_mbarrier_wait(&c->smem->dq_turn[c->ds.stage], c->ds.parity);
#endif
    add_dq_columns(c, target, DQ_COLUMNS);
#if ORDERED
    release(&c->smem->dq_added[c->ds.stage]);
#endif
}
#endif

/* ---- one query tile ---- */

/* Waits for the tile at hand. Where its rows lie is said to be uniform: otherwise the assembler takes every
 * descriptor through ordinary registers. */
SAC_FN void meet_tile(consumer *c) {
    smem_layout *smem = c->smem;
    c->q_rows = ptx_warp_uniform(ptx_smem_of(smem->q[c->q.stage]));
    c->dout_rows = ptx_warp_uniform(ptx_smem_of(smem->dout[c->q.stage]));
#if FOLDS_LSE
    c->lse_rows = ptx_warp_uniform(ptx_smem_of(smem->lse[c->q.stage]));
#endif
#if FOLDS_DELTA
    c->delta_rows = ptx_warp_uniform(ptx_smem_of(smem->delta[c->q.stage]));
#endif
    ptx_mbarrier_wait(&smem->q_full[c->q.stage], c->q.parity);
    read_record(c);
}
SAC_FN void meet_next(consumer *c, int turns) {
    for (int i = 0; i < turns; i++) ring_next(&c->q, Q_STAGES);
    meet_tile(c);
}

#if SPLIT_ROLES
#include "cuda/kernels/attn_bwd_sm90_roles.h"
#else
SAC_FN void release_queries(const consumer *c) {
    release(&c->smem->dout_empty[c->q.stage]);
    release(&c->smem->q_empty[c->q.stage]);
}

/* P and dS of a tile, packed as operands. Must it be multiplied by hand? */
SAC_FN int make_gradients(consumer *c, const q_record *tile, int masked) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage;
    clear_unused_queries(c, tile, smem->q[stage], PANELS);
    issue_s(c);
    ptx_mbarrier_wait(&smem->dout_full[stage], c->q.parity);
    clear_unused_queries(c, tile, smem->dout[stage], PANELS_V);
    issue_dp(c);
    int found = 0;
#if KEEPS_PRODUCT
    const pair_bits seen = visible_pairs(c, tile, masked);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, Q_TILE / 2);
    ptx_wgmma_pin(c->dp, Q_TILE / 2);
    if (masked) found = warp_has(has_unfinite(c->s, Q_TILE / 2) | has_unfinite(c->dp, Q_TILE / 2));
    score_grads(c, tile, &seen, masked);
#else
    const pair_bits seen = visible_pairs(c, tile, MASK_MOD && hides_some(c));
    ptx_wgmma_wait(1);
    ptx_wgmma_pin(c->s, Q_TILE / 2);
    found = prepare_scores(c, tile, &seen);
    probabilities(c);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->dp, Q_TILE / 2);
    gradients(c);
    if (hides_pair(c, &seen)) found |= has_unfinite_words(c->ds_packed, Q_TILE / 4); /* by dP: 0 times it */
#endif
    return hides_some(c) && ptx_barrier_any(1 + c->warpgroup, 128, found);
}

SAC_FN void multiply_by_hand(consumer *c) {
    if (PACKS_P_LATE) pack_probabilities(c);
    hide_gradients(c);
    add_by_hand(c->dv, HEAD_DIM_V, c->p, c->smem->dout[c->q.stage], Q_TILE);
    add_by_hand(c->dk, HEAD_DIM, c->ds_packed, c->smem->q[c->q.stage], Q_TILE);
}

#if SPLIT_QUERIES
#include "cuda/kernels/attn_bwd_sm90_queries.h"
#else
/* dq needs no care: keys were looked through before. */
SAC_FN void finish_by_hand(consumer *c, const q_record *tile) {
    multiply_by_hand(c);
#if SUM_DQ
    put_ds(c, tile);
    issue_dq(c, c->smem->ds[c->ds.stage], c->warpgroup);
    const dq_target target = own_target(c);
    ptx_wgmma_wait(0);
    add_dq(c, &target);
    ring_next(&c->ds, DS_BUFFERS);
#endif
    release_queries(c);
    meet_next(c, 1);
}

SAC_FN void attend(consumer *c, const q_record *tile, int masked) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage;
    if (warp_has(make_gradients(c, tile, masked))) {
        finish_by_hand(c, tile);
        return;
    }
#if SUM_DQ
    put_ds(c, tile);
    const dq_target target = own_target(c);
    issue_dq(c, smem->ds[c->ds.stage], c->warpgroup);
#endif
    if (PACKS_P_LATE) pack_probabilities(c);
    issue_dv(c);
    issue_dk(c);
    meet_next(c, 1); /* before whoever needs a register waits for additions to read it */
#if SUM_DQ
    ptx_wgmma_wait(2);
    add_dq(c, &target);
    ring_next(&c->ds, DS_BUFFERS);
#endif
    ptx_wgmma_wait(1);
    ptx_wgmma_pin(c->dv, HEAD_DIM_V / 2);
    release(&smem->dout_empty[stage]);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->dk, HEAD_DIM / 2);
    release(&smem->q_empty[stage]);
}
#endif
#endif

#if DQ_LATE
SAC_FN void add_last_dq(consumer *c) {
    ptx_mbarrier_wait(&c->smem->ds_full[c->ds.stage], c->ds.parity);
    issue_dq(c, c->smem->ds[c->ds.stage], c->warpgroup);
    const dq_target target = own_target(c);
    ptx_wgmma_wait(0);
    add_dq(c, &target);
}
#endif

SAC_FN void start(consumer *c, const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    const sac_attention_args *args = &params->args;
    const uint32_t warpgroup = threadIdx.x / 128 - 1, rows = KV_TILE == 64 ? 0 : warpgroup * 64 * ROW_BYTES;
    const ring first = {SPLIT_QUERIES ? warpgroup : 0, 0};
    c->params = params;
    c->smem = smem;
    c->q = first;
    c->warpgroup = warpgroup;
    c->ones[0] = c->ones[1] = lane_id() % 4 == 0   ? BF16_ONE << 16 | BF16_ONE
                              : lane_id() % 4 == 1 ? BF16_ONE
                                                   : 0;
    c->ones[2] = c->ones[3] = 0;
    c->k_rows = ptx_warp_uniform(ptx_smem_of(smem->k) + rows);
    c->v_rows = ptx_warp_uniform(ptx_smem_of(smem->v) + rows);
#if SPLIT_ROLES
    c->p_ring = first;
#endif
    c->scale_log2 = score_to_log2(args);
#if STAYS
    c->kv_parity = 0;
#endif
#if DQ_LATE
    const ring before_first = {DS_BUFFERS - 1, 1}; /* a phase that counts as over */
    c->ds = before_first;
#endif
#if SUM_DQ
    c->ds_lane = ds_lane_offset();
    c->k_columns = ptx_warp_uniform(ptx_smem_of(smem->k) +
                                    (SPLIT_QUERIES || DQ_BY_ROWS ? 0 : warpgroup * KV_TILE * ROW_BYTES));
#endif
}

/* What a consumer does with each tile. Code for hidden pairs is kept out of the way of tiles that have none, where it
 * is more than a branch. */
#define WALK(attend)                                                                                         \
    for (meet_tile(c); has_tile(c);)                                                                         \
        if (KEEPS_PRODUCT && hides_some(c))                                                                  \
            attend(c, &smem->q_tile[c->q.stage], 1);                                                         \
        else                                                                                                 \
            attend(c, &smem->q_tile[c->q.stage], 0)

/* dK and dV of the keys at hand. */
SAC_FN void attend_keys(consumer *c) {
    smem_layout *smem = c->smem;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; i++) c->dk[i] = 0;
#pragma unroll
    for (int i = 0; i < HEAD_DIM_V / 2; i++) c->dv[i] = 0;
#if SPLIT_ROLES
    if (warp_has(c->warpgroup == 0)) {
        WALK(add_to_dv);
        store_dv(c);
    } else {
        WALK(add_to_dk);
        store_dk(c);
    }
#else
    WALK(attend);
#if DQ_LATE
    add_last_dq(c);
#endif
    mark_dv(c);
    leave_keys(c);
#if CUTS_TAIL
    if (!merge_parts(c)) return;
#endif
#if SPLIT_QUERIES
    store_joined(c);
    return;
#endif
    store_dk(c);
    store_dv(c);
#endif
}

SAC_FN void consume(const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    consumer c;
    ptx_take_registers(CONSUMER_REGS);
#if STAYS
    start(&c, params, smem);
    while (meet_keys(&c)) {
        if (threadIdx.x == 128) smem->dq_place[c.ds.stage].row_groups = 0; /* before the first tile */
        note_seen_by(params, smem);
        prepare_keys(smem);
        attend_keys(&c);
    }
#else
    note_seen_by(params, smem);
    ptx_mbarrier_wait(&smem->kv_full, 0);
    prepare_keys(smem);
    start(&c, params, smem);
    attend_keys(&c);
#endif
    if (STAGES_DQ && lane_id() == 0) ptx_bulk_wait(); /* shared memory ends with the CTA */
}

/* ---- the kernel ---- */

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attn_bwd_sm90(const __grid_constant__ sac_attn_bwd_sm90_params params) {
    run_cta(&params);
}
