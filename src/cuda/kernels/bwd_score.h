/* bwd_score.h - the element-wise middle of the backward pass: from products to P and dS.
 *
 *   P = exp(score - lse)        dS = P (dP - delta), and from there back through the score's transformations
 *
 * A tile is masked where it is cut short or any pair is hidden; only then is visibility asked pair by pair.
 * Hidden pairs get P = 0 and dS = 0 whatever dP holds: a NaN in a key that nobody sees must stay there.
 */
#ifndef SAC_KERNELS_BWD_SCORE_H
#define SAC_KERNELS_BWD_SCORE_H

#include "cuda/kernels/pack.h"
#include "cuda/kernels/portable_plan.h"
#include "cuda/kernels/score.h"

/* What a row brings from the forward pass. */
typedef struct bwd_row {
    float lse_log2; /* +inf for a row that does not exist: P = 0 */
    float delta;
} bwd_row;

SAC_FN bwd_row bwd_row_of(const sac_attention_args *args, const sac_portable_plan *plan, int32_t b, int32_t h,
                          sac_sequence seq, int32_t i, int32_t end) {
    bwd_row r = {INFINITE, 0};
    if (i >= end) return r;
    int64_t row = (args->len_q.cu_seqlens ? seq.q_row : (int64_t)b * args->len_q.seqlen) + i;
    float lse = *row_value(&args->lse, b, h, seq.q_row + i);
    r.lse_log2 = lse == -INFINITE ? 0 : lse * LOG2_E; /* such a row sees nothing; any finite number will do */
    r.delta = plan->delta[h * plan->total_q + row];
    return r;
}

/* The tile of the scores, and what is around it. */
typedef struct bwd_tile {
    sac_tile tile; /* banded, kind and delta are read */
    sac_range q, k;
} bwd_tile;

/* Is any pair of a Q_TILE x KV_TILE tile hidden, or missing? */
SAC_FN bool bwd_tile_masked(const bwd_tile *t, const sac_portable_plan *plan) {
    return score_tile_masked(&t->tile, t->tile.end - t->tile.begin) ||
           (t->q.end - t->q.begin) * heads_of_tile(plan) < Q_TILE || t->k.end - t->k.begin < KV_TILE;
}

/* The keys of the tile that row i may see; none where the row does not exist. */
SAC_FN score_row_band bwd_row_band(const sac_attention_args *args, const bwd_tile *t, const sac_band *band,
                                   int32_t i) {
    score_row_band r = score_row_band_of(args, band, &t->tile, t->k.end, i);
    if (i >= t->q.end) r.hi = r.lo;
    return r;
}

SAC_FN float bwd_visible_weight(const sac_attention_args *args, const score_place *at, float to_log2,
                                bwd_row row, float raw, int32_t i, int32_t j) {
    return ptx_exp2(score_of(args, at, raw, i, j) * to_log2 - row.lse_log2);
}

template <bool MASKED>
SAC_FN float bwd_weight(const sac_attention_args *args, const score_place *at, const bwd_tile *t,
                        score_row_band band, float to_log2, bwd_row row, float raw, int32_t i, int32_t j) {
    float p = bwd_visible_weight(args, at, to_log2, row, raw, i, j);
    return MASKED && !score_visible(args, at, &t->tile, band, i, j) ? 0 : p;
}

template <bool MASKED>
SAC_FN float bwd_score_grad(const sac_attention_args *args, const score_place *at, bwd_row row, float p,
                            float dp, float raw, int32_t i, int32_t j) {
    float ds = MASKED && p == 0 ? 0 : p * (dp - row.delta);
    return score_grad(args, at, ds, raw, i, j);
}

#endif
