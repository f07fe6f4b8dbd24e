/* attn_bwd_portable.cu - attention backward on any GPU from sm_80: one CTA, the dK and dV of one key tile.
 *
 * Needs, from attn_bwd_portable.c: DTYPE HEAD_DIM HEAD_DIM_V Q_TILE KV_TILE NUM_THREADS Q_STAGES DOUT_STAGES
 * S_WARPS_Q DKV_WARPS_K DQ_WARPS_Q MIN_CTAS SUM_DQ ALIGNED TRANSFORM HAS_SOFTCAP HAS_ALIBI HAS_SCORE_MOD HAS_MASK_MOD
 * HAS_BLOCK_MASK HAS_PARTS PACK.
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
#include "cuda/kernels/poison.h"
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
    ptx_smem k, v, q, dout, p, ds; /* q, dout: the first of Q_STAGES and DOUT_STAGES, or the current one */
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

/* What the CTA works on. */
typedef struct cta_work {
    work_piece piece; /* h: of keys */
    sac_sequence seq;
    sac_range keys;
    sac_band band;
} cta_work;

/* A tile of queries of one head, or of some (PACK) from h on. */
typedef struct queries {
    bool any;
    int32_t h;
    sac_tile tile;
} queries;

/* All that see the CTA's keys: tile after tile, head after head of the group. */
typedef struct query_walk {
    sac_walk walk;
    int32_t h, end_h;
} query_walk;

SAC_FN void start_head(query_walk *w, const sac_attention_args *args, const sac_portable_plan *plan,
                       const cta_work *cta) {
    w->walk =
        sac_walk_queries(args, &cta->band, cta->piece.b, w->h, cta->keys, queries_of_tile(plan, Q_TILE));
    score_trim_walk(&w->walk);
}

SAC_FN queries next_queries(query_walk *w, const sac_attention_args *args, const sac_portable_plan *plan,
                            const cta_work *cta) {
    queries next;
    next.any = true;
    while (next.any && !sac_walk_next(&w->walk, &next.tile)) {
        w->h += heads_of_tile(plan);
        next.any = w->h < w->end_h;
        if (next.any) start_head(w, args, plan, cta);
    }
    next.h = w->h;
    return next;
}

SAC_FN void load_q(ptx_smem to, const sac_attention_args *args, const sac_portable_plan *plan,
                   const cta_work *cta, const queries *from) {
    pack_load<Q_TILE, HEAD_DIM, D_PADDED>(
        to, view_row(&args->q, cta->piece.b, from->h, cta->seq.q_row + from->tile.begin), &args->q, plan,
        (from->tile.end - from->tile.begin) * heads_of_tile(plan));
}

SAC_FN void load_dout(ptx_smem to, const sac_attention_args *args, const sac_portable_plan *plan,
                      const cta_work *cta, const queries *from) {
    pack_load<Q_TILE, HEAD_DIM_V, DV_PADDED>(
        to, view_row(&args->dout, cta->piece.b, from->h, cta->seq.q_row + from->tile.begin), &args->dout,
        plan, (from->tile.end - from->tile.begin) * heads_of_tile(plan));
}

/* Where there is one buffer only, the next tile follows as soon as all warps are done with this one. */
SAC_FN void reload_q(ptx_smem to, const sac_attention_args *args, const sac_portable_plan *plan,
                     const cta_work *cta, const queries *next) {
    if (Q_STAGES > 1 || !next->any) return;
    __syncthreads();
    load_q(to, args, plan, cta, next);
    ptx_cp_async_commit();
}
SAC_FN void reload_dout(ptx_smem to, const sac_attention_args *args, const sac_portable_plan *plan,
                        const cta_work *cta, const queries *next) {
    if (DOUT_STAGES > 1 || !next->any) return;
    __syncthreads();
    load_dout(to, args, plan, cta, next);
    ptx_cp_async_commit();
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
                    const sac_attention_args *args, const sac_portable_plan *plan, const score_place *at,
                    const sac_band *band, const bwd_tile *t) {
    float to_log2 = score_to_log2(args);
#pragma unroll
    for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int32_t i = t->q.begin + query_of_row(plan, score_row() + 16 * m + 8 * half);
            score_row_band visible = {0, 0};
            if (MASKED) visible = bwd_row_band(args, t, band, i);
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

/* P = 0 of hidden pairs, where all were taken for visible. */
SAC_FN void hide(ptx_smem p_tile, const sac_attention_args *args, const sac_portable_plan *plan,
                 const score_place *at, const sac_band *band, const bwd_tile *t) {
#pragma unroll
    for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int32_t i = t->q.begin + query_of_row(plan, score_row() + 16 * m + 8 * half);
            const score_row_band visible = bwd_row_band(args, t, band, i);
#pragma unroll
            for (int n = 0; n < S_COLUMNS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int32_t j = t->k.begin + score_column() + 8 * n + e;
                    if (score_visible(args, at, &t->tile, visible, i, j)) continue;
                    element_store_shared(p_tile + score_offset(m, half, n) + e * sizeof(element), 0);
                }
        }
}

/* dP to dS, into shared memory. s: P, or the raw products (see weights). */
template <bool MASKED>
SAC_FN void score_grads(const score_acc &dp, const score_acc &s, ptx_smem p_tile, ptx_smem ds_tile,
                        const bwd_row (&rows)[S_ROWS / 16][2], const sac_attention_args *args,
                        const sac_portable_plan *plan, const score_place *at, const bwd_tile *t) {
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
                    int32_t i = t->q.begin + query_of_row(plan, score_row() + 16 * m + 8 * half),
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

/* The first row and column of this warp, of dQ and of dK and dV. */
SAC_FN int dkv_row(void) { return threadIdx.x / 32 / DKV_WARPS_D * DKV_ROWS; }
SAC_FN int dk_column(void) { return threadIdx.x / 32 % DKV_WARPS_D * DK_COLUMNS; }
SAC_FN int dv_column(void) { return threadIdx.x / 32 % DKV_WARPS_D * DV_COLUMNS; }
SAC_FN int dq_row(void) { return threadIdx.x / 32 / DQ_WARPS_D * DQ_ROWS; }
SAC_FN int dq_column(void) { return threadIdx.x / 32 % DQ_WARPS_D * DQ_COLUMNS; }

/* Which groups of 16 rows of a query tile list the tile's keys at all: the others add nothing. */
SAC_FN uint32_t live_groups(const sac_attention_args *args, const sac_portable_plan *plan,
                            const sac_tile *tile) {
    uint32_t live = 0;
    const sac_range queries = {tile->begin, tile->end};
#pragma unroll
    for (int group = 0; group < Q_TILE / 16; group++)
        if (score_tile_is_for(tile, score_parts_of(args, queries, query_of_row(plan, 16 * group),
                                                   query_of_row(plan, 16 * group + 15))))
            live |= 1u << group;
    return HAS_PARTS ? __reduce_or_sync(0xffffffff, live)
                     : live; /* alike in all lanes, and the compiler is told */
}
SAC_FN bool rows_live(uint32_t live, int first, int count) {
    return !HAS_PARTS || (live >> first / 16 & ((1u << count / 16) - 1)) != 0;
}

/* Every eighth row of dQ, added to the sum over all key tiles. first: the sum's row of the tile's first query. */
SAC_FN void add_dq(const dq_acc &dq, int eighth, float *first, const sac_portable_plan *plan,
                   int32_t num_rows) {
    int m = eighth / 2, half = eighth % 2, row = dq_row() + 8 * eighth + threadIdx.x % 32 / 4;
    if (row >= num_rows) return;
    float *to = first + (head_of_row(plan, row) * plan->total_q + query_of_row(plan, row)) * DQ_SUM_PITCH +
                dq_column() + threadIdx.x % 4 * 4;
#pragma unroll
    for (int n = 0; n < DQ_COLUMNS / 8; n += 2)
        if (dq_column() + 8 * n < HEAD_DIM)
            ptx_add_f32x4(to + 8 * n, dq[m][n][2 * half], dq[m][n][2 * half + 1], dq[m][n + 1][2 * half],
                          dq[m][n + 1][2 * half + 1]);
}

/* dK of this tile, and between its steps the additions of dQ: all at once they would stop the loads behind them. */
SAC_FN void add_dk_and_dq(dk_acc &dk, const dq_acc &dq, ptx_smem ds, ptx_smem q, float *dq_sum,
                          const sac_portable_plan *plan, int32_t num_rows, uint32_t live) {
    constexpr int STEPS = Q_TILE / 16, EIGHTHS = DQ_ROWS / 8, BLOCK = 16 * sizeof(element);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if (rows_live(live, 16 * step, 16))
            gemm<K_OUTER, P_PITCH, K_OUTER, D_PITCH, 1>(dk, ds + step * P_PITCH * BLOCK,
                                                        q + step * D_PITCH * BLOCK);
        if (SUM_DQ)
#pragma unroll
            for (int i = step * EIGHTHS / STEPS; i < (step + 1) * EIGHTHS / STEPS; i++)
                if (rows_live(live, (dq_row() + 8 * i) / 16 * 16, 16)) add_dq(dq, i, dq_sum, plan, num_rows);
    }
}

/* The sums of dQ of the tile's first query. */
SAC_FN float *dq_sum_of(const sac_attention_args *args, const sac_portable_plan *plan, const cta_work *cta,
                        const queries *now) {
    int64_t first = args->len_q.cu_seqlens ? cta->seq.q_row : (int64_t)cta->piece.b * args->len_q.seqlen;
    return plan->dq_sum + (now->h * plan->total_q + first + now->tile.begin) * DQ_SUM_PITCH;
}

/* The three products that end in gradients; dO and Q are free one after the other. */
SAC_FN void accumulate(dk_acc &dk, dv_acc &dv, const tiles *t, const sac_attention_args *args,
                       const sac_portable_plan *plan, const cta_work *cta, const queries *now,
                       const queries *next, uint32_t live) {
    constexpr int BLOCK = 16 * sizeof(element);
    const ptx_smem ds_of_keys = t->ds + dkv_row() * sizeof(element) + lane_offset_a<K_OUTER, P_PITCH>();
    const ptx_smem p_of_keys = t->p + dkv_row() * sizeof(element) + lane_offset_a<K_OUTER, P_PITCH>();
    const ptx_smem dout = t->dout + dv_column() * sizeof(element) + lane_offset_b<K_OUTER, DV_PITCH>();
#pragma unroll
    for (int step = 0; step < Q_TILE / 16; step++)
        if (rows_live(live, 16 * step, 16))
            gemm<K_OUTER, P_PITCH, K_OUTER, DV_PITCH, 1>(dv, p_of_keys + step * P_PITCH * BLOCK,
                                                         dout + step * DV_PITCH * BLOCK);
    reload_dout(t->dout, args, plan, cta, next);
    dq_acc dq;
    if (SUM_DQ && rows_live(live, dq_row(), DQ_ROWS)) {
        acc_clear(dq);
        gemm<K_INNER, P_PITCH, K_OUTER, D_PITCH, KV_TILE / 16>(
            dq, t->ds + dq_row() * P_PITCH * sizeof(element) + lane_offset_a<K_INNER, P_PITCH>(),
            t->k + dq_column() * sizeof(element) + lane_offset_b<K_OUTER, D_PITCH>());
    }
    add_dk_and_dq(dk, dq, ds_of_keys,
                  t->q + dk_column() * sizeof(element) + lane_offset_b<K_OUTER, D_PITCH>(),
                  SUM_DQ ? dq_sum_of(args, plan, cta, now) : nullptr, plan,
                  (now->tile.end - now->tile.begin) * heads_of_tile(plan), live);
    reload_q(t->q, args, plan, cta, next);
}

/* The same where Q, dO or K hold NaN or Inf beside hidden pairs. */
SAC_FN void accumulate_poisoned(dk_acc &dk, dv_acc &dv, const tiles *t, const sac_attention_args *args,
                                const sac_portable_plan *plan, const cta_work *cta, const queries *now,
                                const queries *next) {
    gemm_weighted<K_OUTER, P_PITCH, DV_PITCH, Q_TILE>(dv, t->p + dkv_row() * sizeof(element),
                                                      t->dout + dv_column() * sizeof(element));
    reload_dout(t->dout, args, plan, cta, next);
    if (SUM_DQ) {
        dq_acc dq;
        acc_clear(dq);
        gemm_weighted<K_INNER, P_PITCH, D_PITCH, KV_TILE>(dq, t->ds + dq_row() * P_PITCH * sizeof(element),
                                                          t->k + dq_column() * sizeof(element));
#pragma unroll
        for (int i = 0; i < DQ_ROWS / 8; i++)
            add_dq(dq, i, dq_sum_of(args, plan, cta, now), plan,
                   (now->tile.end - now->tile.begin) * heads_of_tile(plan));
    }
    gemm_weighted<K_OUTER, P_PITCH, D_PITCH, Q_TILE>(dk, t->ds + dkv_row() * sizeof(element),
                                                     t->q + dk_column() * sizeof(element));
    reload_q(t->q, args, plan, cta, next);
}

/* dK or dV: rows of the key tile. */
template <int COLS, int WARP_COLUMNS, int MT, int NT>
SAC_FN void store_keys(const float (&acc)[MT][NT][4], element *to, int64_t row_stride, int32_t num_rows,
                       float scale) {
    int row = dkv_row() + threadIdx.x % 32 / 4;
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

/* No pair of this warp's rows is visible. */
SAC_FN void no_scores(const tiles *t) {
#pragma unroll
    for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < S_COLUMNS / 8; n++) {
                pair_store_shared(t->p + score_offset(m, half, n), pair_make(0, 0));
                pair_store_shared(t->ds + score_offset(m, half, n), pair_make(0, 0));
            }
}

/* S and dP of a tile to P and dS in shared memory. Returns whether one of the factors is poisoned and some pair
 * hidden. */
SAC_FN bool scores(const tiles *t, const sac_attention_args *args, const sac_portable_plan *plan,
                   const cta_work *cta, const queries *now) {
    const score_place at = score_place_of(args, cta->piece.b, now->h, cta->seq);
    const bwd_tile around = {now->tile, {now->tile.begin, now->tile.end}, cta->keys};
    const bool masked = bwd_tile_masked(&around, plan);
    const int warp_row = threadIdx.x / 32 / S_WARPS_K * S_ROWS,
              warp_column = threadIdx.x / 32 % S_WARPS_K * S_COLUMNS;
    bwd_row rows[S_ROWS / 16][2];
#pragma unroll
    for (int m = 0; m < S_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = score_row() + 16 * m + 8 * half;
            rows[m][half] = bwd_row_of(args, plan, cta->piece.b, now->h + head_of_row(plan, r), cta->seq,
                                       now->tile.begin + query_of_row(plan, r), now->tile.end);
        }

    score_acc s, dp;
    acc_clear(s);
    gemm<K_INNER, D_PITCH, K_INNER, D_PITCH, D_PADDED / 16>(
        s, t->q + warp_row * D_PITCH * sizeof(element) + lane_offset_a<K_INNER, D_PITCH>(),
        t->k + warp_column * D_PITCH * sizeof(element) + lane_offset_b<K_INNER, D_PITCH>());
    bool poisoned = masked && acc_not_finite(s);
    if (TRANSFORM) { /* so that a modifier's text is compiled once */
        weights<false>(s, t->p, rows, args, plan, &at, &cta->band, &around);
        if (masked) hide(t->p, args, plan, &at, &cta->band, &around);
    } else {
        masked ? weights<true>(s, t->p, rows, args, plan, &at, &cta->band, &around)
               : weights<false>(s, t->p, rows, args, plan, &at, &cta->band, &around);
    }
    acc_clear(dp);
    gemm<K_INNER, DV_PITCH, K_INNER, DV_PITCH, DV_PADDED / 16>(
        dp, t->dout + warp_row * DV_PITCH * sizeof(element) + lane_offset_a<K_INNER, DV_PITCH>(),
        t->v + warp_column * DV_PITCH * sizeof(element) + lane_offset_b<K_INNER, DV_PITCH>());
    poisoned = poisoned || (masked && acc_not_finite(dp));
    if (masked || TRANSFORM) /* likewise: to ask whether P is 0 costs little beside a text */
        score_grads<true>(dp, s, t->p, t->ds, rows, args, plan, &at, &around);
    else
        score_grads<false>(dp, s, t->p, t->ds, rows, args, plan, &at, &around);
    return poisoned;
}

#if HAS_BLOCK_MASK && !PACK
/* A DIAGONAL tile has one query a key: two dot products of rows instead of tiles. A quad of lanes makes P and dS of a
 * key, and leaves them, unrounded, where otherwise the tile of P lies. */
SAC_FN void diagonal_scores(const tiles *t, const sac_attention_args *args, const sac_portable_plan *plan,
                            const cta_work *cta, const queries *now) {
    const score_place at = score_place_of(args, cta->piece.b, now->h, cta->seq);
    const bwd_tile around = {now->tile, {now->tile.begin, now->tile.end}, cta->keys};
    for (int r = threadIdx.x / 4; r < KV_TILE; r += NUM_THREADS / 4) {
        int32_t j = cta->keys.begin + r, i = j - now->tile.delta;
        int row = sac_max(0, sac_min(i - now->tile.begin, Q_TILE - 1));
        float raw =
            quad_dot<D_PADDED>(t->q + row * D_PITCH * sizeof(element), t->k + r * D_PITCH * sizeof(element));
        float dp = quad_dot<DV_PADDED>(t->dout + row * DV_PITCH * sizeof(element),
                                       t->v + r * DV_PITCH * sizeof(element));
        if (threadIdx.x % 4 != 0) continue; /* gradients of aux tensors must be added once */
        float2 weight_and_grad = make_float2(0, 0);
        if (i >= now->tile.begin && i < now->tile.end) {
            bwd_row stats = bwd_row_of(args, plan, cta->piece.b, now->h, cta->seq, i, now->tile.end);
            score_row_band visible = bwd_row_band(args, &around, &cta->band, i);
            float p = bwd_weight<true>(args, &at, &around, visible, score_to_log2(args), stats, raw, i, j);
            weight_and_grad = make_float2(p, bwd_score_grad<true>(args, &at, stats, p, dp, raw, i, j));
        }
        ptx_st_f32x2(t->p + r * sizeof(float2), weight_and_grad);
    }
}

SAC_FN void accumulate_diagonal(dk_acc &dk, dv_acc &dv, const tiles *t, const sac_attention_args *args,
                                const sac_portable_plan *plan, const cta_work *cta, const queries *now) {
    const int t4 = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < DKV_ROWS / 16; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = dkv_row() + 16 * m + 8 * half + threadIdx.x % 32 / 4;
            int row = cta->keys.begin + r - now->tile.delta - now->tile.begin;
            float2 weight_and_grad = ptx_ld_f32x2(t->p + r * sizeof(float2));
            float p = weight_and_grad.x, ds = weight_and_grad.y;
            if (p == 0 && ds == 0) continue;
            const ptx_smem dout = t->dout + (row * DV_PITCH + dv_column() + 2 * t4) * sizeof(element);
            const ptx_smem q = t->q + (row * D_PITCH + dk_column() + 2 * t4) * sizeof(element);
#pragma unroll
            for (int n = 0; n < DV_COLUMNS / 8; n++) {
                float2 y = pair_floats(pair_load_shared(dout + 8 * n * sizeof(element)));
                dv[m][n][2 * half] += p * y.x;
                dv[m][n][2 * half + 1] += p * y.y;
            }
#pragma unroll
            for (int n = 0; n < DK_COLUMNS / 8; n++) {
                float2 y = pair_floats(pair_load_shared(q + 8 * n * sizeof(element)));
                dk[m][n][2 * half] += ds * y.x;
                dk[m][n][2 * half + 1] += ds * y.y;
            }
            if (!SUM_DQ) continue;
            const ptx_smem k = t->k + (r * D_PITCH + dk_column() + 2 * t4) * sizeof(element);
            float *to = dq_sum_of(args, plan, cta, now) + (int64_t)row * DQ_SUM_PITCH + dk_column() + 4 * t4;
#pragma unroll
            for (int n = 0; n < DK_COLUMNS / 8; n += 2) {
                if (dk_column() + 8 * n >= HEAD_DIM) break;
                float2 x = pair_floats(pair_load_shared(k + 8 * n * sizeof(element)));
                float2 y = pair_floats(pair_load_shared(k + (8 * n + 8) * sizeof(element)));
                ptx_add_f32x4(to + 8 * n, ds * x.x, ds * x.y, ds * y.x, ds * y.y);
            }
        }
}

#endif

SAC_FN cta_work find_work(const sac_attention_args *args, const sac_portable_plan *plan) {
    cta_work cta;
    cta.piece = schedule_piece(&plan->schedule, args->num_kv_heads);
    cta.seq = sac_sequence_of(args, cta.piece.b);
    cta.keys =
        sac_tile_rows(cta.piece.tile, cta.seq.k_len, KV_TILE, HAS_BLOCK_MASK ? args->blocks.kv_block : 0);
    cta.band = sac_band_make(&args->band, cta.seq.q_len, cta.seq.k_len);
    return cta;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, MIN_CTAS)
    attn_bwd(const __grid_constant__ sac_attention_args args,
             const __grid_constant__ sac_portable_plan plan) {
    extern __shared__ __align__(16) unsigned char memory[];
    const tiles t = tiles_at(ptx_smem_of(memory));
    const cta_work cta = find_work(&args, &plan);
    const int32_t b = cta.piece.b, h = cta.piece.h, num_rows = cta.keys.end - cta.keys.begin;
    const int64_t first_row = cta.seq.k_row + cta.keys.begin;
    if (num_rows <= 0) return;
    tile_load<KV_TILE, HEAD_DIM, D_PADDED>(t.k, view_row(&args.k, b, h, first_row), args.k.row_stride,
                                           num_rows);
    tile_load<KV_TILE, HEAD_DIM_V, DV_PADDED>(t.v, view_row(&args.v, b, h, first_row), args.v.row_stride,
                                              num_rows);

    query_walk walk;
    walk.h = h * args.group;
    walk.end_h = walk.h + args.group;
    start_head(&walk, &args, &plan, &cta);
    queries now = next_queries(&walk, &args, &plan, &cta);
    if (now.any) {
        load_q(t.q, &args, &plan, &cta, &now);
        load_dout(t.dout, &args, &plan, &cta, &now);
    }
    ptx_cp_async_commit();

    dk_acc dk;
    dv_acc dv;
    acc_clear(dk);
    acc_clear(dv);
    for (int32_t stage = 0; now.any; stage ^= 1) {
        tiles current = t;
        current.q += stage % Q_STAGES * Q_BYTES;
        current.dout += stage % DOUT_STAGES * DOUT_BYTES;
        ptx_cp_async_wait();
        __syncthreads(); /* Q and dO are here; P, dS and the other stages are free */
        const queries next = next_queries(&walk, &args, &plan, &cta);
        if (Q_STAGES == 2 && next.any) load_q(t.q + (stage ^ 1) * Q_BYTES, &args, &plan, &cta, &next);
        if (DOUT_STAGES == 2 && next.any)
            load_dout(t.dout + (stage ^ 1) * DOUT_BYTES, &args, &plan, &cta, &next);
        ptx_cp_async_commit();

#if HAS_BLOCK_MASK && !PACK
        if (now.tile.kind == SAC_DIAGONAL) {
            diagonal_scores(&current, &args, &plan, &cta, &now);
            __syncthreads();
            accumulate_diagonal(dk, dv, &current, &args, &plan, &cta, &now);
            reload_dout(current.dout, &args, &plan, &cta, &next);
            reload_q(current.q, &args, &plan, &cta, &next);
            now = next;
            continue;
        }
#endif
        const uint32_t live = live_groups(&args, &plan, &now.tile);
        bool poisoned = false;
        if (rows_live(live, score_row() / S_ROWS * S_ROWS, S_ROWS))
            poisoned = scores(&current, &args, &plan, &cta, &now);
        else
            no_scores(&current);
        if (__any_sync(0xffffffff, __syncthreads_or(poisoned))) /* P and dS are whole */
            accumulate_poisoned(dk, dv, &current, &args, &plan, &cta, &now, &next);
        else
            accumulate(dk, dv, &current, &args, &plan, &cta, &now, &next, live);
        now = next;
    }

    if (args.dk.data)
        store_keys<HEAD_DIM, DK_COLUMNS>(dk, view_row(&args.dk, b, h, first_row), args.dk.row_stride,
                                         num_rows, args.scale);
    if (args.dv.data)
        store_keys<HEAD_DIM_V, DV_COLUMNS>(dv, view_row(&args.dv, b, h, first_row), args.dv.row_stride,
                                           num_rows, 1);
}
