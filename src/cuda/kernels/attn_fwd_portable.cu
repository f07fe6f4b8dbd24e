/* attn_fwd_portable.cu - attention forward on any GPU from sm_80: one CTA, one query tile of one head, or (PACK) of
 * some heads that share a key head.
 *
 * Needs, from attn_portable.c: DTYPE HEAD_DIM HEAD_DIM_V Q_TILE KV_TILE Q_KEPT NUM_THREADS MIN_CTAS ALIGNED
 * TRANSFORM HAS_SOFTCAP HAS_ALIBI HAS_SCORE_MOD HAS_MASK_MOD HAS_BLOCK_MASK HAS_PARTS SPLIT PACK.
 *
 * Each warp owns Q_TILE / warps rows, whole: row statistics never leave a quad of lanes. Two CTAs an SM hide each
 * other's waits, so one buffer of K and one of V are enough: V travels while S = Q K^T is computed, the next K
 * while P V is.
 *
 * Invariant: out and sum are the true ones divided by 2^max, max in units of log2 and rounded to fp32 once; whoever
 * raises max rescales both. (Rounding max anew wherever it is used would cost far negative scores their precision.)
 * A row that has seen nothing subtracts 0, not its -inf maximum: otherwise NaN.
 */
#include "cuda/kernels/pack.h"
#include "cuda/kernels/poison.h"
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/score.h"
#include "cuda/kernels/tile.h"

enum {
    NUM_WARPS = NUM_THREADS / 32,
    D_PADDED = round_up(HEAD_DIM, 16),
    DV_PADDED = round_up(HEAD_DIM_V, 16),
    D_PITCH = pitch_of(D_PADDED),
    DV_PITCH = pitch_of(DV_PADDED),
    MT = Q_TILE / (16 * NUM_WARPS), /* blocks of 16 rows a warp */
    ST = KV_TILE / 8,               /* blocks of 8 columns of scores */
    OT = DV_PADDED / 8,             /* and of the output */
};

typedef float score_acc[MT][ST][4];
typedef float out_acc[MT][OT][4];
typedef frag_a kept_q[Q_KEPT > 0 ? Q_KEPT : 1][MT];

/* One entry for each of the rows g + 16 m and g + 16 m + 8 of the warp. sum: this lane's columns only. */
typedef struct row_stats {
    float max[MT][2], sum[MT][2];
} row_stats;

/* What the CTA works on. A copy in shared memory serves masked tiles and the end: registers are for the loop. */
typedef struct cta_work {
    work_piece piece; /* h: the first head */
    sac_sequence seq;
    sac_range queries;
    sac_band band;
    bool poisoned; /* hidden keys may not be multiplied by their weight of 0 */
} cta_work;

SAC_FN score_place place_of_row(const sac_attention_args *args, const sac_portable_plan *plan,
                                const score_place *first, int row) {
    score_place at = *first;
    at.h += head_of_row(plan, row);
#if HAS_ALIBI
    if (PACK) at.slope = args->alibi_slopes[at.b * args->alibi_batch_stride + at.h];
#endif
    return at;
}

/* First row of this lane in the CTA's tile; the others follow by 8. */
SAC_FN int lane_row(void) { return threadIdx.x / 32 * 16 * MT + threadIdx.x % 32 / 4; }
SAC_FN int lane_column(void) { return threadIdx.x % 4 * 2; }

/* Raw products to scores. Apart from the masking below, so that a modifier's text is compiled once. */
SAC_FN void transform_scores(score_acc &s, const sac_attention_args *args, const sac_portable_plan *plan,
                             const score_place *first, const sac_tile *tile, int32_t first_query) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = lane_row() + 16 * m + 8 * half;
            const int32_t i = first_query + query_of_row(plan, r);
            const score_place at = place_of_row(args, plan, first, r);
#pragma unroll
            for (int n = 0; n < ST; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[m][n][2 * half + e];
                    *x = score_of(args, &at, *x, i, tile->begin + 8 * n + lane_column() + e);
                }
        }
}

/* -inf where the query does not see the key. */
SAC_FN void mask_scores(score_acc &s, const sac_attention_args *args, const sac_portable_plan *plan,
                        const score_place *first, const sac_band *band, const sac_tile *tile,
                        int32_t first_query) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = lane_row() + 16 * m + 8 * half;
            const int32_t i = first_query + query_of_row(plan, r);
            const score_place at = place_of_row(args, plan, first, r);
            const score_row_band row = score_row_band_of(args, band, tile, tile->end, i);
#pragma unroll
            for (int n = 0; n < ST; n++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    if (!score_visible(args, &at, tile, row, i, tile->begin + 8 * n + lane_column() + e))
                        s[m][n][2 * half + e] = -INFINITE;
        }
}

/* The maxima take in these scores; statistics and output are brought to the new ones. */
SAC_FN void raise_max(const score_acc &s, row_stats *stats, out_acc &out, float to_log2) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = -INFINITE, old_max = stats->max[m][half];
#pragma unroll
            for (int n = 0; n < ST; n++) top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            float new_max = fmaxf(old_max, quad_max(top) * to_log2);
            float factor = ptx_exp2(old_max - (new_max == -INFINITE ? 0 : new_max));
            stats->max[m][half] = new_max;
            /* Rounded here, whatever follows: fused with that, a poisoned tile, which comes twice, would differ. */
            stats->sum[m][half] = __fmul_rn(stats->sum[m][half], factor);
#pragma unroll
            for (int n = 0; n < OT; n++) {
                out[m][n][2 * half] = __fmul_rn(out[m][n][2 * half], factor);
                out[m][n][2 * half + 1] = __fmul_rn(out[m][n][2 * half + 1], factor);
            }
        }
}

/* Scores to weights 2^(score - max), which are added to the sums. */
SAC_FN void weigh(score_acc &s, row_stats *stats, float to_log2) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float max = stats->max[m][half], subtract = max == -INFINITE ? 0 : max;
#pragma unroll
            for (int n = 0; n < ST; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[m][n][e] = ptx_exp2(s[m][n][e] * to_log2 - subtract);
                    stats->sum[m][half] += s[m][n][e];
                }
        }
}

/* A DIAGONAL tile has one key a row: a dot product and a rescaled addition instead of two matrix products. */
SAC_FN void attend_diagonal(row_stats *stats, out_acc &out, const sac_attention_args *args,
                            const score_place *at, const sac_band *band, const sac_tile *tile,
                            int32_t first_row, float to_log2, ptx_smem q, ptx_smem k, ptx_smem v) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = lane_row() + 16 * m + 8 * half;
            int32_t i = first_row + r, j = i + tile->delta,
                    c = sac_max(0, sac_min(j - tile->begin, KV_TILE - 1));
            float dot =
                quad_dot<D_PADDED>(q + r * D_PITCH * sizeof(element), k + c * D_PITCH * sizeof(element));
            float s = score_of(args, at, dot, i, j) * to_log2;
            score_row_band row = score_row_band_of(args, band, tile, tile->end, i);
            row.lo = sac_max(row.lo, tile->begin);
            if (!score_visible(args, at, tile, row, i, j)) continue; /* alike in the whole quad */
            float new_max = fmaxf(stats->max[m][half], s), subtract = new_max == -INFINITE ? 0 : new_max;
            float factor = ptx_exp2(stats->max[m][half] - subtract), p = ptx_exp2(s - subtract);
            stats->max[m][half] = new_max;
            stats->sum[m][half] = stats->sum[m][half] * factor + (threadIdx.x % 4 == 0 ? p : 0);
#pragma unroll
            for (int n = 0; n < OT; n++) {
                float2 y = pair_floats(
                    pair_load_shared(v + (c * DV_PITCH + 8 * n + lane_column()) * sizeof(element)));
                out[m][n][2 * half] = out[m][n][2 * half] * factor + p * y.x;
                out[m][n][2 * half + 1] = out[m][n][2 * half + 1] * factor + p * y.y;
            }
        }
}

/* One finished row of this lane's quad: query i of head h. inverse: of the row's sum. */
SAC_FN void store_row(const sac_attention_args *args, const sac_portable_plan *plan, const cta_work *work,
                      int32_t i, int32_t h, const float *out, int stride, float inverse, float lse) {
    const int32_t b = work->piece.b;
    const int64_t q_row = work->seq.q_row;
    bool writes_lse = threadIdx.x % 4 == 0;
#if SPLIT
    int64_t in_batch = args->len_q.cu_seqlens ? q_row : (int64_t)b * args->len_q.seqlen;
    int64_t part = ((int64_t)work->piece.split * args->num_heads + h) * plan->total_q + in_batch + i;
    if (writes_lse) plan->partial_lse[part] = lse;
    float *to = plan->partial_out + part * HEAD_DIM_V;
#pragma unroll
    for (int n = 0; n < OT; n++) {
        int column = 8 * n + lane_column();
        if (column >= HEAD_DIM_V) break;
        *(float2 *)(to + column) = make_float2(out[n * stride] * inverse, out[n * stride + 1] * inverse);
    }
#else
    if (writes_lse && args->lse.data) *row_value(&args->lse, b, h, q_row + i) = lse;
    element *to = view_row(&args->out, b, h, q_row + i);
#pragma unroll
    for (int n = 0; n < OT; n++) {
        int column = 8 * n + lane_column();
        if (column >= HEAD_DIM_V) break;
        pair_store(to + column, out[n * stride] * inverse, out[n * stride + 1] * inverse);
    }
#endif
}

SAC_FN void finish(out_acc &out, row_stats *stats, const sac_attention_args *args,
                   const sac_portable_plan *plan, const cta_work *work) {
    bool has_sink = args->sink && !SPLIT; /* else attn_merge.cu adds it */
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = lane_row() + 16 * m + 8 * half;
            const int32_t i = work->queries.begin + query_of_row(plan, row);
            const int32_t h = work->piece.h + head_of_row(plan, row);
            float sum = quad_sum(stats->sum[m][half]), max = stats->max[m][half];
            if (has_sink && max > -INFINITE) sum += ptx_exp2(args->sink[h] * LOG2_E - max);
            float inverse = sum == 0 ? 0 : 1 / sum, lse = sum == 0 ? -INFINITE : LN_2 * (max + log2f(sum));
            if (i < work->queries.end)
                store_row(args, plan, work, i, h, &out[m][0][2 * half], 4, inverse, lse);
        }
}

/* The split-th part of the keys that the walk would visit. */
SAC_FN void take_split(sac_walk *walk, const sac_schedule *schedule, int32_t split) {
#if SPLIT
    int32_t tiles = sac_ceil_div(sac_max(0, walk->any.end - walk->any.begin), KV_TILE);
    int32_t each = sac_ceil_div(tiles, schedule->num_splits) * KV_TILE,
            begin = walk->any.begin + split * each;
    walk->any.end = sac_min(walk->any.end, begin + each);
    walk->any.begin = sac_min(begin, walk->any.end);
    if (!HAS_BLOCK_MASK) walk->run = walk->any;
#endif
}

/* Everything one CTA computes from. */
typedef struct cta_tiles {
    ptx_smem q, k, v;
} cta_tiles;

SAC_FN void clear(out_acc &out, row_stats *stats) {
    acc_clear(out);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            stats->max[m][half] = -INFINITE;
            stats->sum[m][half] = 0;
        }
}

SAC_FN void load_keys(ptx_smem to, const sac_attention_args *args, const element *k, const sac_tile *tile) {
    tile_load<KV_TILE, HEAD_DIM, D_PADDED>(to, k + tile->begin * args->k.row_stride, args->k.row_stride,
                                           tile->end - tile->begin);
    ptx_cp_async_commit();
}

SAC_FN void load_values(ptx_smem to, const sac_attention_args *args, const element *v, const sac_tile *tile) {
    tile_load<KV_TILE, HEAD_DIM_V, DV_PADDED>(to, v + tile->begin * args->v.row_stride, args->v.row_stride,
                                              tile->end - tile->begin);
    ptx_cp_async_commit();
}

SAC_FN cta_work find_work(const sac_attention_args *args, const sac_portable_plan *plan) {
    cta_work work;
    const int32_t heads = heads_of_tile(plan);
    work.piece = schedule_piece(&plan->schedule, PACK ? args->num_heads / heads : args->num_heads);
    work.piece.h *= heads;
    work.seq = sac_sequence_of(args, work.piece.b);
    work.queries = sac_tile_rows(work.piece.tile, work.seq.q_len, queries_of_tile(plan, Q_TILE),
                                 HAS_BLOCK_MASK ? args->blocks.q_block : 0);
    work.band = sac_band_make(&args->band, work.seq.q_len, work.seq.k_len);
    work.poisoned = false;
    return work;
}

/* The first Q_KEPT steps of 16 columns of Q stay in registers, where there is room: a warp of few rows reads shared
 * memory more than it multiplies. */
SAC_FN void keep_q(kept_q &kept, ptx_smem q_lane) {
#pragma unroll
    for (int k = 0; k < Q_KEPT; k++)
#pragma unroll
        for (int m = 0; m < MT; m++)
            frag_load_a<K_INNER, D_PITCH>(&kept[k][m], q_lane + (m * D_PITCH + k) * 16 * sizeof(element));
}

/* S = Q K^T */
SAC_FN void multiply_scores(score_acc &s, const kept_q &kept, ptx_smem q_lane, ptx_smem k_lane) {
    constexpr int OFFSET = Q_KEPT * 16 * sizeof(element);
    acc_clear(s);
    gemm_from_frags<K_INNER, D_PITCH, Q_KEPT>(s, kept, k_lane);
    gemm<K_INNER, D_PITCH, K_INNER, D_PITCH, D_PADDED / 16 - Q_KEPT>(s, q_lane + OFFSET, k_lane + OFFSET);
}

/* All keys that the query tile visits. */
SAC_FN void attend(out_acc &out, row_stats *stats, const sac_attention_args *args,
                   const sac_portable_plan *plan, const cta_work *work, const cta_tiles &tiles) {
    const cta_work own = find_work(args, plan); /* again: registers that lived until here would be missed */
    const int32_t b = own.piece.b, h = own.piece.h;
    const element *k = view_row(&args->k, b, h / args->group, own.seq.k_row);
    const element *v = view_row(&args->v, b, h / args->group, own.seq.k_row);
    const score_place at = score_place_of(args, b, h, own.seq);
    const float to_log2 = score_to_log2(args);
    sac_walk walk = sac_walk_keys(args, &own.band, b, h, own.queries, KV_TILE);
    score_trim_walk(&walk);
    take_split(&walk, &plan->schedule, own.piece.split);

    /* This lane's places in the tiles. */
    const ptx_smem q_lane =
        tiles.q + threadIdx.x / 32 * 16 * MT * D_PITCH * sizeof(element) + lane_offset_a<K_INNER, D_PITCH>();
    const ptx_smem k_lane = tiles.k + lane_offset_b<K_INNER, D_PITCH>();
    const ptx_smem v_lane = tiles.v + lane_offset_b<K_OUTER, DV_PITCH>();

    const int warp_row = threadIdx.x / 32 * 16 * MT;
    const uint32_t parts = score_parts_of(args, own.queries, query_of_row(plan, warp_row),
                                          query_of_row(plan, warp_row + 16 * MT - 1));

    clear(out, stats);
    sac_tile tile;
    bool more = sac_walk_next(&walk, &tile);
    if (more) {
        pack_load<Q_TILE, HEAD_DIM, D_PADDED>(
            tiles.q, view_row(&args->q, b, h, own.seq.q_row + own.queries.begin), &args->q, plan,
            (own.queries.end - own.queries.begin) * heads_of_tile(plan));
        load_keys(tiles.k, args, k, &tile);
    }
    kept_q kept;
    if (Q_KEPT > 0) {
        ptx_cp_async_wait();
        __syncthreads();
        keep_q(kept, q_lane);
    }
    while (more) {
        ptx_cp_async_wait(); /* K, and Q the first time */
        __syncthreads();     /* and nobody reads the old V any more */
        load_values(tiles.v, args, v, &tile);

        score_acc s;
        bool diagonal = HAS_BLOCK_MASK && tile.kind == SAC_DIAGONAL;
        const bool multiplies = !diagonal && score_tile_is_for(&tile, parts);
        if (multiplies) multiply_scores(s, kept, q_lane, k_lane);
        ptx_cp_async_wait(); /* V */
        __syncthreads();
#if HAS_BLOCK_MASK
        if (diagonal) {
            attend_diagonal(stats, out, args, &at, &work->band, &tile, work->queries.begin, to_log2, tiles.q,
                            tiles.k, tiles.v);
            __syncthreads(); /* before the next K lands on this one */
        }
#endif
        sac_tile next;
        more = sac_walk_next(&walk, &next);
        if (more) load_keys(tiles.k, args, k, &next);
        const bool masked = !diagonal && score_tile_masked(&tile, KV_TILE);
        if (multiplies && TRANSFORM) transform_scores(s, args, plan, &at, &tile, work->queries.begin);
        if (multiplies && masked) mask_scores(s, args, plan, &at, &work->band, &tile, work->queries.begin);
        /* Here, not at the product: between softmax and product a branch would keep the one from hiding the other. */
        if (masked && __any_sync(0xffffffff, work->poisoned)) {
            if (multiplies) {
                raise_max(s, stats, out, to_log2); /* or the poison would be rescaled: Inf * 0 is NaN */
                add_poison<DV_PITCH>(out, s, tiles.v);
            }
            __syncthreads();
            tile_make_finite<KV_TILE, DV_PADDED>(tiles.v);
            __syncthreads();
        }
        if (multiplies) {
            raise_max(s, stats, out, to_log2);
            weigh(s, stats, to_log2);
            gemm_from_acc<K_OUTER, DV_PITCH, KV_TILE / 16>(out, s, v_lane);
        }
        tile = next;
    }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, MIN_CTAS)
    attn_fwd(const __grid_constant__ sac_attention_args args,
             const __grid_constant__ sac_portable_plan plan) {
    extern __shared__ __align__(16) unsigned char memory[];
    cta_tiles tiles;
    tiles.q = ptx_smem_of(memory);
    tiles.k = tiles.q + tile_bytes(Q_TILE, D_PADDED);
    tiles.v = tiles.k + tile_bytes(KV_TILE, D_PADDED);

    __shared__ cta_work work;
    const cta_work own = find_work(&args, &plan);
    if (own.queries.begin >= own.queries.end) return;
    if (threadIdx.x == 0) work = own;
    __syncthreads();

    out_acc out;
    row_stats stats;
    for (int pass = 0; pass < 2; pass++) { /* the compiler takes a loop without a count for divergent */
        attend(out, &stats, &args, &plan, &work, tiles);
        /* NaN may have come from keys that its row does not see: then all again, with care. */
        if (!__any_sync(0xffffffff, __syncthreads_or(acc_not_finite(out) && !work.poisoned))) break;
        if (threadIdx.x == 0) work.poisoned = true;
    }
    finish(out, &stats, &args, &plan, &work);
}
