/* attn_bwd_dq_portable.cu - dQ alone, one CTA a query tile: where gradients must be bit-identical run to run, or
 * nobody wants dK and dV. The keys walk by as in the forward pass; dQ stays in registers and its order of
 * summation is the walk's.
 *
 * Needs, from attn_bwd_portable.c: DTYPE HEAD_DIM HEAD_DIM_V Q_TILE KV_TILE NUM_THREADS ALIGNED TRANSFORM HAS_SOFTCAP
 * HAS_ALIBI HAS_SCORE_MOD HAS_MASK_MOD HAS_BLOCK_MASK HAS_PARTS PACK ONLY_DELTA: not dQ, but delta = rowsum(P * dP)
 * before it.
 *
 * Each warp owns Q_TILE / warps rows, so that dS goes from accumulator to operand without leaving its lane.
 */
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/bwd_score.h"
#include "cuda/kernels/poison.h"
#include "cuda/kernels/tile.h"

enum {
    NUM_WARPS = NUM_THREADS / 32,
    D_PADDED = round_up(HEAD_DIM, 16),
    DV_PADDED = round_up(HEAD_DIM_V, 16),
    D_PITCH = pitch_of(D_PADDED),
    DV_PITCH = pitch_of(DV_PADDED),
    MT = Q_TILE / (16 * NUM_WARPS),
    ST = KV_TILE / 8,
};

typedef float score_acc[MT][ST][4];
typedef float dq_acc[MT][D_PADDED / 8][4];

typedef struct row_tiles {
    ptx_smem q, dout, k, v;
} row_tiles;

SAC_FN int warp_row(void) { return threadIdx.x / 32 * 16 * MT; }
SAC_FN int lane_row(void) { return warp_row() + threadIdx.x % 32 / 4; }
SAC_FN int lane_column(void) { return threadIdx.x % 4 * 2; }

/* What the rows of this lane have to know. */
SAC_FN void load_stats(bwd_row (&stats)[MT][2], const sac_attention_args *args, const sac_portable_plan *plan,
                       const work_piece *w, sac_sequence seq, sac_range rows) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = lane_row() + 16 * m + 8 * half;
            stats[m][half] = bwd_row_of(args, plan, w->b, w->h + head_of_row(plan, r), seq,
                                        rows.begin + query_of_row(plan, r), rows.end);
        }
}

/* dP to dS, or, where only delta is wanted, into this lane's part of it. s: the raw products. */
template <bool MASKED>
SAC_FN void score_grads(score_acc &dp, float (&delta)[MT][2], const score_acc &s,
                        const bwd_row (&rows)[MT][2], const sac_attention_args *args,
                        const sac_portable_plan *plan, const score_place *at, const sac_band *band,
                        const bwd_tile *t) {
    float to_log2 = score_to_log2(args);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int32_t i = t->q.begin + query_of_row(plan, lane_row() + 16 * m + 8 * half);
            score_row_band visible = {0, 0};
            if (MASKED) visible = bwd_row_band(args, t, band, i);
#pragma unroll
            for (int n = 0; n < ST; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    int32_t j = t->k.begin + 8 * n + lane_column() + e % 2;
                    float raw = s[m][n][e];
                    float p = bwd_weight<MASKED>(args, at, t, visible, to_log2, rows[m][half], raw, i, j);
#if ONLY_DELTA
                    delta[m][half] += MASKED && p == 0 ? 0 : p * dp[m][n][e];
#else
                    dp[m][n][e] = bwd_score_grad<MASKED>(args, at, rows[m][half], p, dp[m][n][e], raw, i, j);
#endif
                }
        }
}

/* s = q k^T, dp = dout v^T; dq += ds k, or delta += rowsum(p dp). */
SAC_FN void add_tile(dq_acc &dq, float (&delta)[MT][2], const row_tiles *tiles, const bwd_row (&rows)[MT][2],
                     const sac_attention_args *args, const sac_portable_plan *plan, const score_place *at,
                     const sac_band *band, const bwd_tile *t) {
    score_acc s, dp;
    acc_clear(s);
    acc_clear(dp);
    gemm<K_INNER, D_PITCH, K_INNER, D_PITCH, D_PADDED / 16>(
        s, tiles->q + warp_row() * D_PITCH * sizeof(element) + lane_offset_a<K_INNER, D_PITCH>(),
        tiles->k + lane_offset_b<K_INNER, D_PITCH>());
    gemm<K_INNER, DV_PITCH, K_INNER, DV_PITCH, DV_PADDED / 16>(
        dp, tiles->dout + warp_row() * DV_PITCH * sizeof(element) + lane_offset_a<K_INNER, DV_PITCH>(),
        tiles->v + lane_offset_b<K_INNER, DV_PITCH>());
    const bool masked = bwd_tile_masked(t, plan);
    masked ? score_grads<true>(dp, delta, s, rows, args, plan, at, band, t)
           : score_grads<false>(dp, delta, s, rows, args, plan, at, band, t);
    if (ONLY_DELTA) return;
    /* NaN of a key has reached dS wherever the key is seen; from K itself it would reach the other rows. */
    const ptx_smem k_lane = tiles->k + lane_offset_b<K_OUTER, D_PITCH>();
    if (masked && __any_sync(0xffffffff, acc_not_finite(s)))
        gemm_from_acc<K_OUTER, D_PITCH, KV_TILE / 16, true>(dq, dp, k_lane);
    else
        gemm_from_acc<K_OUTER, D_PITCH, KV_TILE / 16>(dq, dp, k_lane);
}

/* A DIAGONAL tile has one key a row: two dot products instead of tiles. */
SAC_FN void add_diagonal(dq_acc &dq, float (&delta)[MT][2], const row_tiles *tiles,
                         const bwd_row (&rows)[MT][2], const sac_attention_args *args,
                         const sac_portable_plan *plan, const score_place *at, const sac_band *band,
                         const bwd_tile *t) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = lane_row() + 16 * m + 8 * half;
            int32_t i = t->q.begin + query_of_row(plan, r), j = i + t->tile.delta,
                    c = sac_max(0, sac_min(j - t->k.begin, KV_TILE - 1));
            float raw = quad_dot<D_PADDED>(tiles->q + r * D_PITCH * sizeof(element),
                                           tiles->k + c * D_PITCH * sizeof(element));
            float dp = quad_dot<DV_PADDED>(tiles->dout + r * DV_PITCH * sizeof(element),
                                           tiles->v + c * DV_PITCH * sizeof(element));
            score_row_band visible = bwd_row_band(args, t, band, i);
            visible.lo = sac_max(visible.lo, t->k.begin);
            float p = bwd_weight<true>(args, at, t, visible, score_to_log2(args), rows[m][half], raw, i, j);
            if (p == 0) continue; /* alike in the whole quad */
#if ONLY_DELTA
            if (threadIdx.x % 4 == 0) delta[m][half] += p * dp; /* of all lanes' parts, one */
#else
            float ds = bwd_score_grad<true>(args, at, rows[m][half], p, dp, raw, i, j);
#pragma unroll
            for (int n = 0; n < D_PADDED / 8; n++) {
                float2 y = pair_floats(
                    pair_load_shared(tiles->k + (c * D_PITCH + 8 * n + lane_column()) * sizeof(element)));
                dq[m][n][2 * half] += ds * y.x;
                dq[m][n][2 * half + 1] += ds * y.y;
            }
#endif
        }
}

/* Rows of the tile, at most num_rows; the first is query `first` of head h. */
SAC_FN void store_delta(const float (&delta)[MT][2], const sac_portable_plan *plan, int32_t h, int64_t first,
                        int32_t num_rows) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = lane_row() + 16 * m + 8 * half;
            float sum = quad_sum(delta[m][half]);
            if (r < num_rows && threadIdx.x % 4 == 0)
                plan->delta[(h + head_of_row(plan, r)) * plan->total_q + first + query_of_row(plan, r)] = sum;
        }
}

SAC_FN void store_dq(const dq_acc &dq, const sac_view *view, const sac_portable_plan *plan, int32_t b,
                     int32_t h, int64_t first, int32_t num_rows, float scale) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = lane_row() + 16 * m + 8 * half;
            if (r >= num_rows) continue;
            element *to = view_row(view, b, h + head_of_row(plan, r), first + query_of_row(plan, r));
#pragma unroll
            for (int n = 0; n < D_PADDED / 8; n++) {
                int column = 8 * n + lane_column();
                if (column < HEAD_DIM)
                    pair_store(to + column, dq[m][n][2 * half] * scale, dq[m][n][2 * half + 1] * scale);
            }
        }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_bwd_dq(const __grid_constant__ sac_attention_args args,
                const __grid_constant__ sac_portable_plan plan) {
    extern __shared__ __align__(16) unsigned char memory[];
    row_tiles tiles;
    tiles.q = ptx_smem_of(memory);
    tiles.dout = tiles.q + tile_bytes(Q_TILE, D_PADDED);
    tiles.k = tiles.dout + tile_bytes(Q_TILE, DV_PADDED);
    tiles.v = tiles.k + tile_bytes(KV_TILE, D_PADDED);
    work_piece w =
        schedule_piece(&plan.schedule, PACK ? args.num_heads / heads_of_tile(&plan) : args.num_heads);
    w.h *= heads_of_tile(&plan); /* the first of the tile's */
    const sac_sequence seq = sac_sequence_of(&args, w.b);
    const sac_range rows = sac_tile_rows(w.tile, seq.q_len, queries_of_tile(&plan, Q_TILE),
                                         HAS_BLOCK_MASK ? args.blocks.q_block : 0);
    if (rows.begin >= rows.end) return;
    const int32_t kv_head = w.h / args.group, num_rows = (rows.end - rows.begin) * heads_of_tile(&plan);
    const int64_t first_row = seq.q_row + rows.begin;
    const element *k = view_row(&args.k, w.b, kv_head, seq.k_row);
    const element *v = view_row(&args.v, w.b, kv_head, seq.k_row);
    pack_load<Q_TILE, HEAD_DIM, D_PADDED>(tiles.q, view_row(&args.q, w.b, w.h, first_row), &args.q, &plan,
                                          num_rows);
    pack_load<Q_TILE, HEAD_DIM_V, DV_PADDED>(tiles.dout, view_row(&args.dout, w.b, w.h, first_row),
                                             &args.dout, &plan, num_rows);

    const sac_band band = sac_band_make(&args.band, seq.q_len, seq.k_len);
    const score_place at = score_place_of(&args, w.b, w.h, seq);
    bwd_row stats[MT][2];
    load_stats(stats, &args, &plan, &w, seq, rows);

    const uint32_t parts = score_parts_of(&args, rows, query_of_row(&plan, warp_row()),
                                          query_of_row(&plan, warp_row() + 16 * MT - 1));
    dq_acc dq;
    float delta[MT][2] = {};
    acc_clear(dq);
    sac_walk walk = sac_walk_keys(&args, &band, w.b, w.h, rows, KV_TILE);
    score_trim_walk(&walk);
    for (sac_tile tile; sac_walk_next(&walk, &tile);) {
        const bwd_tile around = {tile, rows, {tile.begin, tile.end}};
        __syncthreads(); /* nobody reads the old K and V any more */
        tile_load<KV_TILE, HEAD_DIM, D_PADDED>(tiles.k, k + tile.begin * args.k.row_stride, args.k.row_stride,
                                               tile.end - tile.begin);
        tile_load<KV_TILE, HEAD_DIM_V, DV_PADDED>(tiles.v, v + tile.begin * args.v.row_stride,
                                                  args.v.row_stride, tile.end - tile.begin);
        ptx_cp_async_commit();
        ptx_cp_async_wait();
        __syncthreads();
#if HAS_BLOCK_MASK
        if (tile.kind == SAC_DIAGONAL) {
            add_diagonal(dq, delta, &tiles, stats, &args, &plan, &at, &band, &around);
            continue;
        }
#endif
        if (!score_tile_is_for(&tile, parts)) continue;
        add_tile(dq, delta, &tiles, stats, &args, &plan, &at, &band, &around);
    }
#if ONLY_DELTA
    store_delta(delta, &plan, w.h, first_row + (args.len_q.cu_seqlens ? 0 : (int64_t)w.b * args.len_q.seqlen),
                num_rows);
#else
    store_dq(dq, &args.dq, &plan, w.b, w.h, first_row, num_rows, args.scale);
#endif
}
