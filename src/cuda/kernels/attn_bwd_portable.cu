/* attn_bwd_portable.cu - attention backward on any GPU from sm_80: one CTA, the dK and dV of one key tile.
 *
 * Needs, from attn_bwd_portable.c: DTYPE HEAD_DIM HEAD_DIM_V Q_TILE KV_TILE NUM_THREADS Q_STAGES DOUT_STAGES S_WARPS_Q
 * DKV_WARPS_K DQ_WARPS_Q MIN_CTAS SUM_DQ ALIGNED TRANSFORM HAS_SOFTCAP HAS_ALIBI HAS_SCORE_MOD HAS_MASK_MOD HAS_BLOCK_MASK.
 *
 * K and V stay in shared memory, dK and dV in registers, while the queries of all heads of the group walk by; so
 * dK and dV need no second pass and no atomics. Each of the five products divides its output among the warps
 * in its own way, which is why P and dS go through shared memory:
 *
 *   S = Q K^T, dP = dO V^T   (Q_TILE x KV_TILE)     S_WARPS_Q warps down the queries, the rest along the keys
 *   dV += P^T dO, dK += dS^T Q   (KV_TILE x D)      DKV_WARPS_K down the keys, the rest along D
 *   dQ = dS K   (Q_TILE x D)                        DQ_WARPS_Q down the queries; added to dq_sum (SUM_DQ)
 */
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/bwd_score.h"
#include "cuda/kernels/tile.h"
#include "cuda/kernels/dq_sum.h"
#include "cuda/kernels/ptx/reduce.h"

enum {
    NUM_WARPS = NUM_THREADS / 32,
    S_WARPS_K = NUM_WARPS / S_WARPS_Q,
    DKV_WARPS_D = NUM_WARPS / DKV_WARPS_K,
    DQ_WARPS_D = NUM_WARPS / DQ_WARPS_Q,
    D_PADDED = round_up(HEAD_DIM, 16 * (DKV_WARPS_D > DQ_WARPS_D ? DKV_WARPS_D : DQ_WARPS_D)),
    DV_PADDED = round_up(HEAD_DIM_V, 16 * DKV_WARPS_D),
    D_PITCH = pitch_of(D_PADDED),
    DV_PITCH = pitch_of(DV_PADDED),
    P_PITCH = pitch_of(KV_TILE),
    S_ROWS = Q_TILE / S_WARPS_Q, /* of one warp */
    S_COLUMNS = KV_TILE / S_WARPS_K,
    DKV_ROWS = KV_TILE / DKV_WARPS_K,
    DK_COLUMNS = D_PADDED / DKV_WARPS_D,
    DV_COLUMNS = DV_PADDED / DKV_WARPS_D,
    DQ_ROWS = Q_TILE / DQ_WARPS_Q,
    DQ_COLUMNS = D_PADDED / DQ_WARPS_D,
    Q_BYTES = tile_bytes(Q_TILE, D_PADDED),
    DOUT_BYTES = tile_bytes(Q_TILE, DV_PADDED),
};

typedef float score_acc[S_ROWS / 16][S_COLUMNS / 8][4];
typedef float dk_acc[DKV_ROWS / 16][DK_COLUMNS / 8][4];
typedef float dq_acc[DQ_ROWS / 16][DQ_COLUMNS / 8][4];
typedef float dv_acc[DKV_ROWS / 16][DV_COLUMNS / 8][4];

typedef struct tiles {
    ptx_smem k, v, q, dout, p, ds; /* q, dout: Q_STAGES and DOUT_STAGES of them */
} tiles;

SAC_FN tiles tiles_at(ptx_smem memory) {
    tiles t;
    t.k = memory;
    t.v = t.k + tile_bytes(KV_TILE, D_PADDED);
    t.q = t.v + tile_bytes(KV_TILE, DV_PADDED);
    t.dout = t.q + Q_STAGES * Q_BYTES;
    t.p = t.dout + DOUT_STAGES * DOUT_BYTES;
    t.ds = t.p + tile_bytes(Q_TILE, KV_TILE);
    return t;
}

/* The queries that see the CTA's keys: tile after tile, head after head of the group. */
typedef struct query_walk {
    sac_walk walk;
    int32_t h, end_h;
} query_walk;

SAC_FN void start_head(query_walk *w, const sac_attention_args *args, const sac_band *band, int32_t b,
                       sac_range keys) {
    w->walk = sac_walk_queries(args, band, b, w->h, keys, Q_TILE);
#if !HAS_BLOCK_MASK
    w->walk.entry = w->walk.entry_end = nullptr;
#endif
}

SAC_FN bool next_queries(query_walk *w, const sac_attention_args *args, const sac_band *band, int32_t b,
                         sac_range keys, sac_tile *tile) {
    while (!sac_walk_next(&w->walk, tile)) {
        if (++w->h >= w->end_h) return false;
        start_head(w, args, band, b, keys);
    }
    return true;
}

SAC_FN void load_q(ptx_smem to, const sac_attention_args *args, int32_t b, int32_t h, sac_sequence seq,
                   const sac_tile *tile) {
    tile_load<Q_TILE, HEAD_DIM, D_PADDED>(to, view_row(&args->q, b, h, seq.q_row + tile->begin),
                                          args->q.row_stride, tile->end - tile->begin);
}

SAC_FN void load_dout(ptx_smem to, const sac_attention_args *args, int32_t b, int32_t h, sac_sequence seq,
                      const sac_tile *tile) {
    tile_load<Q_TILE, HEAD_DIM_V, DV_PADDED>(to, view_row(&args->dout, b, h, seq.q_row + tile->begin),
                                             args->dout.row_stride, tile->end - tile->begin);
}

/* Rows and columns that this lane holds of the scores: the first; others follow by 8. */
SAC_FN int score_row(void) { return threadIdx.x / 32 / S_WARPS_K * S_ROWS + threadIdx.x % 32 / 4; }
SAC_FN int score_column(void) { return threadIdx.x / 32 % S_WARPS_K * S_COLUMNS + threadIdx.x % 4 * 2; }
SAC_FN int score_offset(int m, int half, int n) {
    return ((score_row() + 16 * m + 8 * half) * P_PITCH + score_column() + 8 * n) * (int)sizeof(element);
}

/* S to P, into shared memory. Where scores are transformed, s keeps the raw products for the way back, and P is
 * computed again there: registers are short, and what lies in shared memory has been rounded. */
template <bool MASKED>
SAC_FN void weights(score_acc &s, ptx_smem p_tile, const bwd_row (&rows)[S_ROWS / 16][2],
                    const sac_attention_args *args, const score_place *at, const sac_band *band,
                    const bwd_tile *t) {
    float to_log2 = score_to_log2(args);
#pragma unroll
    for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int32_t i = t->q.begin + score_row() + 16 * m + 8 * half;
            score_row_band visible = {0, 0};
            if (MASKED) visible = bwd_row_band(t, band, i);
#pragma unroll
            for (int n = 0; n < S_COLUMNS / 8; n++) {
                float p[2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    p[e] =
                        bwd_weight<MASKED>(args, at, t, visible, to_log2, rows[m][half],
                                           s[m][n][2 * half + e], i, t->k.begin + score_column() + 8 * n + e);
                    if (!TRANSFORM) s[m][n][2 * half + e] = p[e];
                }
                pair_store_shared(p_tile + score_offset(m, half, n), pair_make(p[0], p[1]));
            }
        }
}

/* dP to dS, into shared memory. s: P, or the raw products (see weights). */
template <bool MASKED>
SAC_FN void score_grads(const score_acc &dp, const score_acc &s, ptx_smem p_tile, ptx_smem ds_tile,
                        const bwd_row (&rows)[S_ROWS / 16][2], const sac_attention_args *args,
                        const score_place *at, const bwd_tile *t) {
    float to_log2 = score_to_log2(args);
#pragma unroll
    for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < S_COLUMNS / 8; n++) {
                float2 stored = make_float2(1, 1); /* of a hidden pair: 0 */
                if (TRANSFORM && MASKED)
                    stored = pair_floats(pair_load_shared(p_tile + score_offset(m, half, n)));
                float ds[2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int32_t i = t->q.begin + score_row() + 16 * m + 8 * half,
                            j = t->k.begin + score_column() + 8 * n + e;
                    float raw = s[m][n][2 * half + e], p = raw;
                    if (TRANSFORM)
                        p = (e ? stored.y : stored.x) == 0
                                ? 0
                                : bwd_visible_weight(args, at, to_log2, rows[m][half], raw, i, j);
                    ds[e] =
                        bwd_score_grad<MASKED>(args, at, rows[m][half], p, dp[m][n][2 * half + e], raw, i, j);
                }
                pair_store_shared(ds_tile + score_offset(m, half, n), pair_make(ds[0], ds[1]));
            }
}

/* Of dQ: the first row and column of this warp. */
SAC_FN int dq_row(void) { return threadIdx.x / 32 / DQ_WARPS_D * DQ_ROWS; }
SAC_FN int dq_column(void) { return threadIdx.x / 32 % DQ_WARPS_D * DQ_COLUMNS; }

/* Every eighth row of dQ, added to the sum over all key tiles. first: the sum's row of the tile's first query. */
SAC_FN void add_dq(const dq_acc &dq, int eighth, float *first, int32_t num_rows) {
    int m = eighth / 2, half = eighth % 2, row = dq_row() + 8 * eighth + threadIdx.x % 32 / 4;
    if (row >= num_rows) return;
    float *to = first + (int64_t)row * DQ_SUM_PITCH + dq_column() + threadIdx.x % 4 * 4;
#pragma unroll
    for (int n = 0; n < DQ_COLUMNS / 8; n += 2)
        if (dq_column() + 8 * n < HEAD_DIM)
            ptx_add_f32x4(to + 8 * n, dq[m][n][2 * half], dq[m][n][2 * half + 1], dq[m][n + 1][2 * half],
                          dq[m][n + 1][2 * half + 1]);
}

/* dK of this tile, and between its steps the additions of dQ: all at once they would stop the loads behind them. */
SAC_FN void dk_and_dq(dk_acc &dk, const dq_acc &dq, ptx_smem ds, ptx_smem q, float *dq_sum,
                      int32_t num_rows) {
    constexpr int STEPS = Q_TILE / 16, EIGHTHS = DQ_ROWS / 8, BLOCK = 16 * sizeof(element);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        gemm<K_OUTER, P_PITCH, K_OUTER, D_PITCH, 1>(dk, ds + step * P_PITCH * BLOCK,
                                                    q + step * D_PITCH * BLOCK);
        if (SUM_DQ)
#pragma unroll
            for (int i = step * EIGHTHS / STEPS; i < (step + 1) * EIGHTHS / STEPS; i++)
                add_dq(dq, i, dq_sum, num_rows);
    }
}

/* dK or dV: rows of the key tile. */
template <int COLS, int WARP_COLUMNS, int MT, int NT>
SAC_FN void store_keys(const float (&acc)[MT][NT][4], element *to, int64_t row_stride, int32_t num_rows,
                       float scale) {
    int row = threadIdx.x / 32 / DKV_WARPS_D * DKV_ROWS + threadIdx.x % 32 / 4;
    int column = threadIdx.x / 32 % DKV_WARPS_D * WARP_COLUMNS + threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = row + 16 * m + 8 * half;
            if (r >= num_rows) continue;
#pragma unroll
            for (int n = 0; n < NT; n++)
                if (column + 8 * n < COLS)
                    pair_store(to + r * row_stride + column + 8 * n, acc[m][n][2 * half] * scale,
                               acc[m][n][2 * half + 1] * scale);
        }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, MIN_CTAS)
    attn_bwd(const __grid_constant__ sac_attention_args args,
             const __grid_constant__ sac_portable_plan plan) {
    extern __shared__ __align__(16) unsigned char memory[];
    const tiles t = tiles_at(ptx_smem_of(memory));
    const work_piece w = schedule_piece(&plan.schedule, args.num_kv_heads);
    const sac_sequence seq = sac_sequence_of(&args, w.b);
    const sac_range keys =
        sac_tile_rows(w.tile, seq.k_len, KV_TILE, HAS_BLOCK_MASK ? args.blocks.kv_block : 0);
    if (keys.begin >= keys.end) return;
    const sac_band band = sac_band_make(&args.band, seq.q_len, seq.k_len);

    const int64_t first_row = seq.k_row + keys.begin;
    const int32_t num_rows = keys.end - keys.begin;
    tile_load<KV_TILE, HEAD_DIM, D_PADDED>(t.k, view_row(&args.k, w.b, w.h, first_row), args.k.row_stride,
                                           num_rows);
    tile_load<KV_TILE, HEAD_DIM_V, DV_PADDED>(t.v, view_row(&args.v, w.b, w.h, first_row), args.v.row_stride,
                                              num_rows);

    query_walk walk;
    walk.h = w.h * args.group;
    walk.end_h = walk.h + args.group;
    start_head(&walk, &args, &band, w.b, keys);
    sac_tile tile;
    bool more = next_queries(&walk, &args, &band, w.b, keys, &tile);
    int32_t h = walk.h, stage = 0;
    if (more) {
        load_q(t.q, &args, w.b, h, seq, &tile);
        load_dout(t.dout, &args, w.b, h, seq, &tile);
    }
    ptx_cp_async_commit();

    dk_acc dk;
    dv_acc dv;
    acc_clear(dk);
    acc_clear(dv);
    const int warp = threadIdx.x / 32;
    const int warp_rows = warp / S_WARPS_K * S_ROWS, warp_columns = warp % S_WARPS_K * S_COLUMNS;
    const int warp_k = warp / DKV_WARPS_D * DKV_ROWS, warp_dk = warp % DKV_WARPS_D * DK_COLUMNS,
              warp_dv = warp % DKV_WARPS_D * DV_COLUMNS;
    while (more) {
        const ptx_smem q_tile = t.q + stage % Q_STAGES * Q_BYTES,
                       dout_tile = t.dout + stage % DOUT_STAGES * DOUT_BYTES;
        ptx_cp_async_wait();
        __syncthreads(); /* Q and dO are here; P, dS and the other stages are free */
        stage ^= 1;
        sac_tile next;
        const int32_t this_h = h;
        more = next_queries(&walk, &args, &band, w.b, keys, &next);
        h = walk.h;
        if (Q_STAGES == 2 && more) load_q(t.q + stage * Q_BYTES, &args, w.b, h, seq, &next);
        if (DOUT_STAGES == 2 && more) load_dout(t.dout + stage * DOUT_BYTES, &args, w.b, h, seq, &next);
        ptx_cp_async_commit();

        const score_place at = score_place_of(&args, w.b, this_h, seq);
        const bwd_tile around = {tile, {tile.begin, tile.end}, keys};
        const bool masked = bwd_tile_masked(&around);
        bwd_row rows[S_ROWS / 16][2];
#pragma unroll
        for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                rows[m][half] = bwd_row_of(&args, &plan, w.b, this_h, seq,
                                           tile.begin + score_row() + 16 * m + 8 * half, tile.end);

        score_acc s, dp;
        acc_clear(s);
        gemm<K_INNER, D_PITCH, K_INNER, D_PITCH, D_PADDED / 16>(
            s, q_tile + warp_rows * D_PITCH * sizeof(element) + lane_offset_a<K_INNER, D_PITCH>(),
            t.k + warp_columns * D_PITCH * sizeof(element) + lane_offset_b<K_INNER, D_PITCH>());
        masked ? weights<true>(s, t.p, rows, &args, &at, &band, &around)
               : weights<false>(s, t.p, rows, &args, &at, &band, &around);
        acc_clear(dp);
        gemm<K_INNER, DV_PITCH, K_INNER, DV_PITCH, DV_PADDED / 16>(
            dp, dout_tile + warp_rows * DV_PITCH * sizeof(element) + lane_offset_a<K_INNER, DV_PITCH>(),
            t.v + warp_columns * DV_PITCH * sizeof(element) + lane_offset_b<K_INNER, DV_PITCH>());
        masked ? score_grads<true>(dp, s, t.p, t.ds, rows, &args, &at, &around)
               : score_grads<false>(dp, s, t.p, t.ds, rows, &args, &at, &around);
        __syncthreads(); /* P and dS are whole */

        gemm<K_OUTER, P_PITCH, K_OUTER, DV_PITCH, Q_TILE / 16>(
            dv, t.p + warp_k * sizeof(element) + lane_offset_a<K_OUTER, P_PITCH>(),
            dout_tile + warp_dv * sizeof(element) + lane_offset_b<K_OUTER, DV_PITCH>());
        if (DOUT_STAGES == 1 && more) {
            __syncthreads(); /* dO is free */
            load_dout(t.dout, &args, w.b, h, seq, &next);
            ptx_cp_async_commit();
        }
        dq_acc dq;
        float *dq_sum = nullptr;
        if (SUM_DQ) {
            acc_clear(dq);
            gemm<K_INNER, P_PITCH, K_OUTER, D_PITCH, KV_TILE / 16>(
                dq, t.ds + dq_row() * P_PITCH * sizeof(element) + lane_offset_a<K_INNER, P_PITCH>(),
                t.k + dq_column() * sizeof(element) + lane_offset_b<K_OUTER, D_PITCH>());
            int64_t row = this_h * plan.total_q + tile.begin +
                          (args.len_q.cu_seqlens ? seq.q_row : (int64_t)w.b * args.len_q.seqlen);
            dq_sum = plan.dq_sum + row * DQ_SUM_PITCH;
        }
        dk_and_dq(dk, dq, t.ds + warp_k * sizeof(element) + lane_offset_a<K_OUTER, P_PITCH>(),
                  q_tile + warp_dk * sizeof(element) + lane_offset_b<K_OUTER, D_PITCH>(), dq_sum,
                  tile.end - tile.begin);
        if (Q_STAGES == 1 && more) {
            __syncthreads(); /* Q is free */
            load_q(t.q, &args, w.b, h, seq, &next);
            ptx_cp_async_commit();
        }
        tile = next;
    }

    if (args.dk.data)
        store_keys<HEAD_DIM, DK_COLUMNS>(dk, view_row(&args.dk, w.b, w.h, first_row), args.dk.row_stride,
                                         num_rows, args.scale);
    if (args.dv.data)
        store_keys<HEAD_DIM_V, DV_COLUMNS>(dv, view_row(&args.dv, w.b, w.h, first_row), args.dv.row_stride,
                                           num_rows, 1);
}
