/* attn_bwd_by_query_sm90.cu - attention backward on Hopper where dK and dV of 128 keys are too many registers: one
 * CTA, 112 keys, and two warpgroups that share the work by what they make.
 *
 *   first: p, dv                                  second: ds, dk
 *   s = q(0) k^T                                  dp = dout(0) v^T
 *   for each query tile i:                        for each query tile i:
 *     p = exp(s - lse), to shared memory            ds = p (dp - delta), to shared memory
 *     dq(i-1) = ds(i-1) k, its first 128 columns    dq(i) = ds k, the other columns
 *     dv^T += dout(i)^T p                           dk^T += q(i)^T ds
 *     add dq(i-1) to its sums                       add dq(i) to its sums
 *     s = q(i+1) k^T                                dp = dout(i+1) v^T
 *
 * The first product of the next tile is issued while the last of this one runs, so that the tensor cores have work of
 * this warpgroup but while it computes p, or ds. Scores are queries x keys here, so that the number of keys need not
 * be a multiple of 64: 112 is what registers hold. P and dS are operands in shared memory; dK and dV are summed
 * columns x keys and turned when they are stored. The sums of dQ are those of attn_bwd_sm90.cu, which has the rest of
 * the reasons, and the producer.
 *
 * Needs from attn_bwd_sm90.c what attn_bwd_sm90.cu needs, with KV_TILE 112, Q_TILE 64, SUM_DQ 1 and no SOFTCAP or
 * SCORE_MOD, whose slopes would have to cross too; HEAD_DIM above 128 and up to 192, HEAD_DIM_V up to 128;
 * CONSUMER_REGS and SECOND_REGS for the two roles.
 */
#include "cuda/kernels/attn_bwd_sm90_consumer.h"
#include "cuda/kernels/attn_bwd_sm90_cta.h"
#include "cuda/kernels/attn_bwd_sm90_score.h"
#include "cuda/kernels/attn_bwd_sm90_store.h"
#include "cuda/kernels/attn_bwd_sm90_unfinite.h"
#include "cuda/kernels/ptx/wgmma.h"

#define PANEL_BYTES (Q_TILE * ROW_BYTES) /* of what has a tile's queries as rows: q, dout, p, ds */
#define KEY_PANEL_BYTES (KV_TILE * ROW_BYTES)

PTX_WGMMA_SS(mma_scores_set, KV_TILE, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS(mma_scores_add, KV_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_SS_MN_MN(mma_keys_add, KV_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_SS_MN(mma_first_dq_set, 128, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS_MN(mma_first_dq_add, 128, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_SS_MN(mma_last_dq_set, 64, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS_MN(mma_last_dq_add, 64, INPUT_TYPE, PTX_WGMMA_ADD)

/* ---- products, all asynchronous ---- */

/* s = queries keys^T. Where operands lie is said to be uniform: otherwise the assembler takes every descriptor through
 * ordinary registers, of which there are not enough. */
SAC_FN void issue_scores(consumer *c, const uint8_t *queries, const uint8_t *keys, int head_dim) {
    const uint64_t q = ptx_wgmma_desc_k_major(ptx_warp_uniform(ptx_smem_of(queries))),
                   k = ptx_wgmma_desc_k_major(ptx_warp_uniform(ptx_smem_of(keys)));
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < (head_dim + 15) / 16; i++) {
        const uint64_t q_step = ptx_wgmma_desc_advance(q, i / 4 * PANEL_BYTES + i % 4 * 32);
        const uint64_t k_step = ptx_wgmma_desc_advance(k, i / 4 * KEY_PANEL_BYTES + i % 4 * 32);
        if (i == 0)
            mma_scores_set(c->s, q_step, k_step);
        else
            mma_scores_add(c->s, q_step, k_step);
    }
    ptx_wgmma_commit();
}

/* s of the tile at hand, once q is there; behind the last tile what lies there is multiplied for nothing, which costs
 * less than a branch around asynchronous products. */
SAC_FN void issue_s(consumer *c) {
    ptx_mbarrier_wait(&c->smem->q_full[c->q.stage], c->q.parity);
    issue_scores(c, c->smem->q[c->q.stage], c->smem->k, HEAD_DIM);
    read_record(c);
}

/* The same of dp and dout; dk wants q too. */
SAC_FN void issue_dp(consumer *c) {
    ptx_mbarrier_wait(&c->smem->q_full[c->q.stage], c->q.parity);
    ptx_mbarrier_wait(&c->smem->dout_full[c->q.stage], c->q.parity);
    issue_scores(c, c->smem->dout[c->q.stage], c->smem->v, HEAD_DIM_V);
    read_record(c);
}

/* One block of 64 columns: sum += (columns of queries)^T weights, which are P or dS. */
SAC_FN void issue_keys(float *sum, const uint8_t *queries, const uint8_t *weights) {
    const uint64_t q = ptx_wgmma_desc_mn_major(ptx_warp_uniform(ptx_smem_of(queries)), PANEL_BYTES);
    const uint64_t w = ptx_wgmma_desc_mn_major(ptx_warp_uniform(ptx_smem_of(weights)), PANEL_BYTES);
    ptx_wgmma_pin(sum, KV_TILE / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < Q_TILE / 16; i++)
        mma_keys_add(sum, ptx_wgmma_desc_advance(q, 16 * i * ROW_BYTES),
                     ptx_wgmma_desc_advance(w, 16 * i * ROW_BYTES));
}

/* dq = ds k: the first 128 columns, or those behind them. */
SAC_FN void issue_dq(consumer *c, uint32_t buffer, int first) {
    const uint64_t ds = ptx_wgmma_desc_k_major(ptx_warp_uniform(ptx_smem_of(c->smem->ds[buffer])));
    const uint64_t k = ptx_wgmma_desc_mn_major(
        ptx_warp_uniform(ptx_smem_of(c->smem->k) + (first ? 0 : 2 * KEY_PANEL_BYTES)), KEY_PANEL_BYTES);
    ptx_wgmma_pin(c->dq, first ? 64 : 32);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++) {
        const uint64_t ds_step = ptx_wgmma_desc_advance(ds, i / 4 * PANEL_BYTES + i % 4 * 32);
        const uint64_t k_step = ptx_wgmma_desc_advance(k, 16 * i * ROW_BYTES);
        if (first && i == 0)
            mma_first_dq_set(c->dq, ds_step, k_step);
        else if (first)
            mma_first_dq_add(c->dq, ds_step, k_step);
        else if (i == 0)
            mma_last_dq_set(c->dq, ds_step, k_step);
        else
            mma_last_dq_add(c->dq, ds_step, k_step);
    }
    ptx_wgmma_commit();
}

/* ---- fragments to and from shared memory ---- */

/* Where this lane's address of the i-th 16 x 16 block of this warp's rows lies, in a tile of queries x keys. */
SAC_FN ptx_smem block_at(const consumer *c, const uint8_t *tile, int i) {
    return ((ptx_smem_of(tile) + c->lane_block) ^ (i % 4 * 32)) + i / 4 * PANEL_BYTES;
}

/* What this warpgroup has stored becomes visible to its products, and to the other one. */
SAC_FN void publish(const consumer *c, uint64_t *full) {
    ptx_fence_proxy_async_shared();
    ptx_barrier_sync(1 + c->warpgroup, 128);
    release(full);
}

SAC_FN void add_marks(consumer *c) {
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
#pragma unroll
        for (int m = 0; m < BLOCKS_V; m++) c->dv[m][i] += c->smem->marks[first_column() + COLUMN_OF(i)];
}

/* ---- the first warpgroup: P and dV ---- */

/* The buffer of P is free once the other warpgroup has read it and this one's product of dV is over. That product is one
 * operation of four warps: whoever has waited for it, as add_to_dv has at its end, knows that no part of it still reads,
 * so the warps need not meet before they write. */
SAC_FN void put_p(consumer *c, const q_record *tile, const pair_bits *seen, const float lse[2]) {
    smem_layout *smem = c->smem;
    prepare_scores(c, tile, seen);
    ptx_mbarrier_wait(&smem->p_empty, c->p_parity ^ 1);
    c->p_parity ^= 1;
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++) {
        uint32_t block[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int at = 8 * i + 2 * e;
            block[e] = pack(probability(c, at, lse[e % 2]), probability(c, at + 1, lse[e % 2]));
        }
        ptx_stmatrix(block_at(c, smem->p, i), block);
    }
    publish(c, &smem->p_full);
}

/* Before the first tile there is no dS yet: what then lies in the buffer was multiplied for nothing. */
SAC_FN void add_first_dq(consumer *c, const dq_place *place) {
    const dq_target target = dq_target_of(c, place, threadIdx.x / 32 % 4, 0);
    ptx_wgmma_pin(c->dq, 64);
    if (warp_has(place->row_groups > 0)) release(&c->smem->ds_empty[c->ds.stage]);
    add_dq_columns(c, &target, 128);
    ring_next(&c->ds, DS_BUFFERS);
}

SAC_FN void add_to_dv(consumer *c, const q_record *tile) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage;
    const float *rows = smem->lse[stage] + first_query(), lse[2] = {rows[0], rows[8]};
    const pair_bits seen = visible_pairs(c, tile, MASK_MOD && hides_some(c));
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    put_p(c, tile, &seen, lse);
    release(&smem->q_empty[stage]);
    ptx_mbarrier_wait(&smem->ds_full[c->ds.stage], c->ds.parity);
    issue_dq(c, c->ds.stage, 1);
    ptx_mbarrier_wait(&smem->dout_full[stage], c->q.parity);
#pragma unroll
    for (int m = 0; m < BLOCKS_V; m++) issue_keys(c->dv[m], smem->dout[stage] + m * PANEL_BYTES, smem->p);
    ptx_wgmma_commit();
    const dq_place place = smem->dq_place[c->ds.stage];
    ptx_wgmma_wait(1);
    add_first_dq(c, &place);
    ring_next(&c->q, Q_STAGES);
    issue_s(c);
    ptx_wgmma_wait(1);
#pragma unroll
    for (int m = 0; m < BLOCKS_V; m++) ptx_wgmma_pin(c->dv[m], KV_TILE / 2);
    release(&smem->dout_empty[stage]);
}

/* ---- the second warpgroup: dS and dK ---- */

/* A pair without weight has no gradient, whatever its dP is. */
SAC_FN void hide_gradients(const consumer *c, uint8_t *ds) {
#pragma unroll 1
    for (int i = 0; i < KV_TILE / 16; i++) {
        uint32_t weights[4], block[4];
        ptx_ldmatrix(weights, block_at(c, c->smem->p, i));
        ptx_ldmatrix(block, block_at(c, ds, i));
#pragma unroll
        for (int e = 0; e < 4; e++) block[e] = without_weightless(block[e], weights[e]);
        ptx_stmatrix(block_at(c, ds, i), block);
    }
}

SAC_FN void put_ds(consumer *c, const q_record *tile, const float delta[2]) {
    smem_layout *smem = c->smem;
    const uint32_t buffer = c->ds.stage;
    ptx_mbarrier_wait(&smem->p_full, c->p_parity);
    ptx_mbarrier_wait(&smem->ds_empty[buffer], c->ds.parity ^ 1);
    c->p_parity ^= 1;
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++) {
        uint32_t block[4];
        ptx_ldmatrix(block, block_at(c, smem->p, i));
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float2 p = unpack(block[e]);
            const float *dp = c->s + 8 * i + 2 * e;
            block[e] = pack(p.x * (dp[0] - delta[e % 2]), p.y * (dp[1] - delta[e % 2]));
        }
        ptx_stmatrix(block_at(c, smem->ds[buffer], i), block);
    }
    if (hides_unfinite(c)) hide_gradients(c, smem->ds[buffer]);
    release(&smem->p_empty);
    if (threadIdx.x == 256) smem->dq_place[buffer] = dq_place_of(tile);
    publish(c, &smem->ds_full[buffer]);
}

SAC_FN void add_to_dk(consumer *c, const q_record *tile) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage, buffer = c->ds.stage;
    const float *rows = smem->delta[stage] + first_query(), delta[2] = {rows[0], rows[8]};
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    put_ds(c, tile, delta);
    release(&smem->dout_empty[stage]);

    issue_dq(c, buffer, 0);
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) issue_keys(c->dk[m], smem->q[stage] + m * PANEL_BYTES, smem->ds[buffer]);
    ptx_wgmma_commit();
    const dq_target target =
        dq_target_of(c, &smem->dq_place[buffer], threadIdx.x / 32 % 4, 128 / SAC_SUM_COLUMNS);
    ptx_wgmma_wait(1);
    ptx_wgmma_pin(c->dq, 32);
    add_dq_columns(c, &target, 64);
    ring_next(&c->ds, DS_BUFFERS);
    ring_next(&c->q, Q_STAGES);
    issue_dp(c);
    ptx_wgmma_wait(1);
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) ptx_wgmma_pin(c->dk[m], KV_TILE / 2);
    release(&smem->ds_empty[buffer]);
    release(&smem->q_empty[stage]);
}

/* ---- the end ---- */

/* This lane's offset in 16 x 16 blocks that are turned. */
SAC_FN uint32_t lane_turned(void) {
    const int lane = lane_id(), row = lane % 8, warp = threadIdx.x / 32 % 4;
    return (row + lane / 16 * 8) * ROW_BYTES + ((warp * 2 + lane / 8 % 2) ^ row) * 16;
}

/* Turns sums of columns x keys into rows of keys, in shared memory that nobody needs any more, and stores those. */
SAC_FN void store_turned(consumer *c, float (*sums)[KV_TILE / 2], int columns, uint8_t *tile,
                         const sac_view *view, int64_t part_stride, float scale) {
    const sac_lengths *len = &c->params->args.len_k;
    const key_tile *own = &c->smem->own;
    if (!view->data) return;
#pragma unroll
    for (int m = 0; m < (columns + 63) / 64; m++) {
        const ptx_smem to = ptx_smem_of(tile) + m * KEY_PANEL_BYTES + lane_turned();
#pragma unroll
        for (int i = 0; i < KV_TILE / 16; i++) {
            uint32_t block[4];
#pragma unroll
            for (int e = 0; e < 4; e++)
                block[e] = pack(sums[m][8 * i + 2 * e] * scale, sums[m][8 * i + 2 * e + 1] * scale);
            ptx_stmatrix_trans(to + 16 * i * ROW_BYTES, block);
        }
    }
    ptx_barrier_sync(1 + c->warpgroup, 128);
    const int chunks = columns / 8;
    uint16_t *first = (uint16_t *)view->data + own->part * part_stride +
                      batch_of(len, own->batch) * view->batch_stride + own->head * view->head_stride +
                      (row_of(len, own->batch) + (int64_t)own->keys.begin) * view->row_stride;
    for (int i = threadIdx.x % 128; i < (own->keys.end - own->keys.begin) * chunks; i += 128) {
        const int row = i / chunks, chunk = i % chunks;
        const uint8_t *from =
            tile + chunk / 8 * KEY_PANEL_BYTES + row * ROW_BYTES + (chunk % 8 ^ row % 8) * 16;
        *(uint4 *)(first + row * view->row_stride + 8 * chunk) = *(const uint4 *)from;
    }
}

SAC_FN void start(consumer *c, const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    const int lane = lane_id(), row = lane % 8, warp = threadIdx.x / 32 % 4;
    const ring first = {0, 0};
    c->params = params;
    c->smem = smem;
    c->q = first;
    c->warpgroup = threadIdx.x / 128 - 1;
    c->ds = first;
    c->p_parity = 0;
    c->lane_block = (warp * 16 + row + lane / 8 % 2 * 8) * ROW_BYTES + ((lane / 16) ^ row) * 16;
    c->scale_log2 = score_to_log2(&params->args);
    if (threadIdx.x % 128 < KV_TILE) smem->marks[threadIdx.x % 128] = 0;
}

/* dV of a key that was set aside and that some query sees is NaN, as its dK is, which the other warpgroup has. */
SAC_FN void tell_of_dk(const consumer *c) {
    float *marks = c->smem->marks + first_column();
    if (!warp_has(c->smem->unfinite_keys)) return;
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
        if (threadIdx.x % 128 < 4 && ROW_OF(i) == 0 && 0 * c->dk[0][i] != 0)
            marks[COLUMN_OF(i)] = NOT_A_NUMBER;
    if (threadIdx.x % 128 < 32) release(&c->smem->dk_told);
}

SAC_FN void consume_first(consumer *c) {
    smem_layout *smem = c->smem;
    const ring before_first = {DS_BUFFERS - 1, 1}; /* a phase that counts as over */
    c->ds = before_first;
#pragma unroll
    for (int i = 0; i < BLOCKS_V * KV_TILE / 2; i++) c->dv[i / (KV_TILE / 2)][i % (KV_TILE / 2)] = 0;
    issue_s(c);
    while (has_tile(c)) add_to_dv(c, &smem->q_tile[c->q.stage]);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    ptx_mbarrier_wait(&smem->ds_full[c->ds.stage], c->ds.parity);
    issue_dq(c, c->ds.stage, 1);
    ptx_wgmma_wait(0);
    add_first_dq(c, &smem->dq_place[c->ds.stage]);
    if (warp_has(smem->unfinite_keys)) {
        ptx_mbarrier_wait(&smem->dk_told, 0);
        add_marks(c);
    }
    store_turned(c, c->dv, HEAD_DIM_V, smem->dout[0], &c->params->args.dv, c->params->dv_part_stride, 1);
}

SAC_FN void consume_second(consumer *c) {
#pragma unroll
    for (int i = 0; i < BLOCKS * KV_TILE / 2; i++) c->dk[i / (KV_TILE / 2)][i % (KV_TILE / 2)] = 0;
    issue_dp(c);
    while (has_tile(c)) add_to_dk(c, &c->smem->q_tile[c->q.stage]);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    tell_of_dk(c);
    store_turned(c, c->dk, HEAD_DIM, c->smem->q[0], &c->params->args.dk, c->params->dk_part_stride,
                 c->params->args.scale);
}

/* ---- the kernel ---- */

SAC_FN void consume(const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    consumer c;
    start(&c, params, smem);
    ptx_mbarrier_wait(&smem->kv_full, 0);
    prepare_keys(smem);
    if (threadIdx.x < 256) {
        ptx_take_registers(CONSUMER_REGS);
        consume_first(&c);
    } else {
        ptx_take_registers(SECOND_REGS);
        consume_second(&c);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attn_bwd_by_query_sm90(const __grid_constant__ sac_attn_bwd_sm90_params params) {
    run_cta(&params);
}
