/* attn_bwd_dq_sm90.cu - dQ on Hopper, from the queries' side: no sum leaves a CTA, so none depends on an order.
 *
 *   producer (one thread)                         consumers (CONSUMERS warpgroups, 64 query rows each)
 *   for each query tile handed out:               for each query tile:
 *     load q, dout                                  for j = 0 ..:
 *     walk its key tiles:                             s = q k(j)^T,  dp = dout v(j)^T,  dq += ds k(j-1), at one time
 *       load k(j), v(j)                               p = exp2(s - lse),  ds = p (dp - delta)  beside the last of them
 *                                                   dq += ds k(last);  store dq
 *
 * The walk is the forward's. The maxima of a softmax, and their way through the warp, are not needed here: lse is
 * known. So all arithmetic of a tile runs beside a product of its own warpgroup but for packing ds, whose registers
 * that product reads to its end.
 *
 * ONLY_DELTA stops at delta = rowsum(p dp), for where rowsum(out dout) is not exact enough (attn_bwd_portable.c says
 * where).
 *
 * Needs from attn_bwd_dq_sm90.c, beside the modifiers' text: HEAD_DIM, HEAD_DIM_V, DTYPE; CONSUMERS, KV_TILE,
 * Q_SLOTS, K_STAGES, V_STAGES, CTAS_PER_SM, PRODUCER_REGS, CONSUMER_REGS (its table of tiles); and, each 0 or 1,
 * BLOCK_MASK, PACK, MASK_MOD, SCORE_MOD, SOFTCAP, ALIBI, PRESCALED, RAGGED (as in attn_fwd_sm90.cu) and ONLY_DELTA.
 */
#include "cuda/kernels/attn_bwd_sm90.h"

typedef sac_attn_bwd_sm90_params kernel_params;
#define BACKWARD 1
#define CLASSIFIED 0
#define SPLIT 0
#include "cuda/kernels/attn_bwd_sm90_by_hand.h"
#include "cuda/kernels/attn_sm90_mask.h"
#include "cuda/kernels/attn_sm90_store.h"
#include "cuda/kernels/ptx/fence.h"
#include "cuda/kernels/ptx/wgmma.h"

/* The way back needs the product itself. Otherwise scores are modified in their place. */
#define KEEPS_PRODUCT (SCORE_MOD || (SOFTCAP && ALIBI))

typedef struct consumer {
    const kernel_params *params;
    const sac_attention_args *args;
    smem_layout *smem;
    q_record *q; /* the tile at hand */
    ring q_ring, k, v;
    row_limits limits;        /* of the query tile */
    float scale_log2;         /* what s is multiplied by in the exponent */
    float s[KV_TILE / 2];     /* scores, then probabilities */
    float dp[KV_TILE / 2];    /* their gradients, then those of scores */
    uint32_t ds[KV_TILE / 4]; /* packed as operands */
    float dq[HEAD_DIM / 2];
    float lse_log2[2], delta[2]; /* of this thread's rows */
} consumer;

#include "cuda/kernels/attn_sm90_consumer.h"

PTX_WGMMA_SS(mma_pairs_set, KV_TILE, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS(mma_pairs_add, KV_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_RS_MN(mma_dq_add, HEAD_DIM, INPUT_TYPE, PTX_WGMMA_ADD)

/* ---- products, all asynchronous ---- */

/* d = a b^T over rows of `columns` columns: this warpgroup's rows of a query tile by a key tile. The addresses are made
 * anew each time: all those of an unrolled loop would not fit in registers. */
SAC_FN void issue_pairs(float *d, const uint8_t *query_rows, const uint8_t *key_rows, int columns) {
    const uint64_t a = ptx_wgmma_desc_k_major(ptx_warp_uniform(ptx_smem_of(query_rows)));
    const uint64_t b = ptx_wgmma_desc_k_major(ptx_warp_uniform(ptx_smem_of(key_rows)));
    ptx_wgmma_pin(d, KV_TILE / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < (columns + 15) / 16; i++) {
        const uint64_t a_step = ptx_wgmma_desc_advance(a, i / 4 * 64 * ROW_BYTES + i % 4 * 32);
        const uint64_t b_step = ptx_wgmma_desc_advance(b, i / 4 * KV_TILE * ROW_BYTES + i % 4 * 32);
        if (i == 0)
            mma_pairs_set(d, a_step, b_step);
        else
            mma_pairs_add(d, a_step, b_step);
    }
    ptx_wgmma_commit();
}

/* Of k: the tile that ds belongs to. */
SAC_FN uint32_t ds_stage(const consumer *c) { return (c->k.stage == 0 ? K_STAGES : c->k.stage) - 1; }

/* s = q k^T */
SAC_FN void issue_scores(consumer *c, const kv_record *tile) {
    smem_layout *smem = c->smem;
    const int32_t num_keys = tile->end - tile->begin;
    if (RAGGED && !ONLY_DELTA && warp_has(num_keys < KV_TILE))
        clear_rows(smem->k[c->k.stage], num_keys, KV_TILE, PANELS);
    issue_pairs(c->s, smem->q[c->q_ring.stage], smem->k[c->k.stage], HEAD_DIM);
}

/* dp = dout v^T */
SAC_FN void issue_dp(consumer *c) {
    smem_layout *smem = c->smem;
    ptx_mbarrier_wait(&smem->v_full[c->v.stage], c->v.parity);
    issue_pairs(c->dp, smem->dout[c->q_ring.stage], smem->v[c->v.stage], HEAD_DIM_V);
}
SAC_FN void dp_arrived(consumer *c) {
    ptx_wgmma_pin(c->dp, KV_TILE / 2);
    release(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, V_STAGES);
}

/* dq += ds k; only delta: no product, but what waits counts it. */
SAC_FN void issue_dq(consumer *c) {
    const uint64_t k =
        ptx_wgmma_desc_mn_major(ptx_smem_of(c->smem->k) + ds_stage(c) * K_BYTES, KV_TILE * ROW_BYTES);
    ptx_wgmma_pin(c->dq, HEAD_DIM / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KV_TILE / 16 && !ONLY_DELTA; i++)
        mma_dq_add(c->dq, c->ds + 4 * i, ptx_wgmma_desc_advance(k, 16 * i * ROW_BYTES));
    ptx_wgmma_commit();
}
SAC_FN void dq_arrived(consumer *c) {
    ptx_wgmma_pin(c->dq, HEAD_DIM / 2);
    release(&c->smem->k_empty[ds_stage(c)]);
}

/* ---- a tile's arithmetic ---- */

/* In the scores' place, unless the way back needs the products. With a softcap p already has the factor that its
 * gradient is multiplied by on the way back: 1 - tanh^2. */
SAC_FN void probabilities(consumer *c, const kv_record *tile) {
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    if (KEEPS_PRODUCT) return;
#if PRESCALED
    modify_scores(c->s, c->args, c->q, &c->limits, tile);
#endif
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) {
        const float p = ptx_exp2(fmaf(c->s[i], c->scale_log2, -c->lse_log2[i / 2 % 2]));
        c->s[i] = SOFTCAP && !ONLY_DELTA ? p * (1 - c->s[i] * c->s[i]) : p;
    }
}

/* ds of the thread's i-th pair, visible or not; only delta: what it adds to that. */
SAC_FN float score_gradient(const consumer *c, const tile_mask *m, int i) {
    const int r = i / 2 % 2;
#if KEEPS_PRODUCT
    const score_place at = place_of(m, i);
    const modified_score score = modify_score(c->args, &at, c->s[i]);
    const float p = ptx_exp2(fmaf(score.score, c->scale_log2, -c->lse_log2[r]));
    return ONLY_DELTA ? p * c->dp[i] : modify_gradient(c->args, &at, &score, p * (c->dp[i] - c->delta[r]));
#else
    return c->s[i] * (ONLY_DELTA ? c->dp[i] : c->dp[i] - c->delta[r]);
#endif
}

SAC_FN void score_gradients(consumer *c, const kv_record *tile) {
    const tile_mask m = tile_mask_of(c->args, c->q, &c->limits, tile, 1);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) c->dp[i] = score_gradient(c, &m, i);
    hide(c->dp, 0, c->args, c->q, &c->limits, tile);
#if ONLY_DELTA
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) c->delta[i / 2 % 2] += c->dp[i];
#endif
}

/* The tile's scores are used; its keys still stand in the next product. */
SAC_FN void pack_gradients(consumer *c) {
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i += 2) c->ds[i / 2] = pack(c->dp[i], c->dp[i + 1]);
    ring_next(&c->k, K_STAGES);
}

/* ---- query tiles ---- */

/* A key that is not finite shows in the scores of all rows. It matters where pairs are hidden. */
SAC_FN int look_for_unfinite(const consumer *c, const kv_record *tile) {
    return !ONLY_DELTA && warp_has(tile->flags & KV_MASKED) && has_unfinite(c->s, KV_TILE / 2);
}
SAC_FN int must_be_by_hand(const kv_record *tile, int found) {
    return !ONLY_DELTA && warp_has(tile->flags & KV_MASKED) && ptx_barrier_any(threadIdx.x / 128, 128, found);
}

/* Both give whether ds k must be multiplied by hand. */
SAC_FN int first_tile(consumer *c, const kv_record *tile) {
    issue_scores(c, tile);
    issue_dp(c);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    const int found = look_for_unfinite(c, tile);
    probabilities(c, tile);
    dp_arrived(c);
    score_gradients(c, tile);
    pack_gradients(c);
    return must_be_by_hand(tile, found);
}

/* The branch that hides scores keeps their arithmetic before the last wait: the assembler would move that up. */
SAC_FN int next_tile(consumer *c, const kv_record *tile) {
    issue_scores(c, tile);
    issue_dp(c);
    issue_dq(c);
    ptx_wgmma_wait(1);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    const int found = look_for_unfinite(c, tile);
    probabilities(c, tile);
    dp_arrived(c);
    score_gradients(c, tile);
    ptx_wgmma_wait(0);
    dq_arrived(c);
    pack_gradients(c);
    return must_be_by_hand(tile, found);
}

SAC_FN void last_dq(consumer *c, int by_hand) {
    if (by_hand) {
        add_by_hand(c->dq, HEAD_DIM, c->ds, c->smem->k[ds_stage(c)], KV_TILE);
        __syncwarp();
    } else {
        issue_dq(c);
        ptx_wgmma_wait(0);
    }
    dq_arrived(c);
}

/* Does some row of this warpgroup see the tile, by the band? */
SAC_FN int sees(const consumer *c, const kv_record *tile) {
    if (!(tile->flags & KV_MASKED)) return 1;
    const sac_range keys = keys_of(c->q);
    return tile->begin < keys.end && tile->end > keys.begin;
}

/* Tiles that this warpgroup sees come in runs; those between are for others. A run also ends with a tile whose
 * product must be made by hand. */
SAC_FN void attend(consumer *c) {
    c->limits = row_limits_of(c->q);
    kv_record tile = wait_k(c);
    for (;;) {
        while (!warp_has(sees(c, &tile))) {
            pass_tile(c);
            if (warp_has(tile.flags & KV_LAST)) {
                q_read(c);
                return;
            }
            tile = wait_k(c);
        }
        int by_hand = first_tile(c, &tile), seen = 1;
        while (!by_hand && !warp_has(tile.flags & KV_LAST)) {
            tile = wait_k(c);
            seen = warp_has(sees(c, &tile));
            if (!seen) break;
            by_hand = next_tile(c, &tile);
        }
        const int last = seen && warp_has(tile.flags & KV_LAST);
        if (last) q_read(c);
        last_dq(c, by_hand);
        if (last) return;
        if (by_hand) tile = wait_k(c);
    }
}

/* Where delta keeps a row. */
SAC_FN float *delta_of(const consumer *c, int32_t head, int32_t row) {
    const kernel_params *params = c->params;
    const q_record *q = c->q;
    const sac_lengths *len = &params->args.len_q;
    const int64_t first =
        RAGGED && len->cu_seqlens ? len->cu_seqlens[q->batch] : (int64_t)q->batch * len->seqlen;
    return params->delta + head * params->total_q + first + row;
}

SAC_FN void start_rows(consumer *c) {
    const int32_t used = used_rows(c->args, c->q);
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; i++) c->dq[i] = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t head = head_at(c->q, thread_row() + 8 * r), row = query_at(c->q, thread_row() + 8 * r);
        c->lse_log2[r] = MINUS_INF;
        c->delta[r] = 0;
        if (row >= sac_min(used, c->q->end)) continue;
        c->lse_log2[r] = *row_value_of(&c->args->lse, c->args, c->q, head, row) * LOG2_E;
        if (!ONLY_DELTA) c->delta[r] = *delta_of(c, head, row);
    }
}

/* This warpgroup's rows, row_shift rows behind those of the tile. A row that saw nothing has gradient 0. */
SAC_FN void store(consumer *c, int32_t row_shift) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t head = head_at(c->q, thread_row() + 8 * r);
        const int32_t row = query_at(c->q, thread_row() + 8 * r) + row_shift;
        const int empty = c->lse_log2[r] == MINUS_INF || row_shift > 0;
#if ONLY_DELTA
        float delta = c->delta[r] + __shfl_xor_sync(~0u, c->delta[r], 1);
        delta += __shfl_xor_sync(~0u, delta, 2);
        if (row < c->q->end && lane_id() % 4 == 0) *delta_of(c, head, row) = empty ? 0 : delta;
#else
        store_row(c->dq, HEAD_DIM, r, empty ? SAW_NOTHING : c->args->scale, &c->args->dq, c->args, c->q, head,
                  row);
#endif
    }
}

SAC_FN void finish_tile(consumer *c) { store(c, 0); }

extern "C" __global__ void __launch_bounds__(THREADS, CTAS_PER_SM)
    attn_bwd_dq_sm90(const __grid_constant__ sac_attn_bwd_sm90_params params) {
    run_cta(&params);
}
