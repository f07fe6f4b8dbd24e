/* score.h - what happens to a score: scale, softcap, ALiBi, score_mod, mask; and the way back.
 *
 * TRANSFORM is defined when anything but a positive scale happens. Then scores are transformed one by one, in
 * natural units; otherwise they stay raw products, and the scale goes into the exponent's factor for nothing.
 */
#ifndef SAC_KERNELS_SCORE_H
#define SAC_KERNELS_SCORE_H

#include "cuda/kernels/element.h"
#include "shared/tile_walk.h"

#include <modifiers.h> /* sac_score_mod, sac_score_mod_grad, sac_mask_mod, as far as the variant has them */

/* Where a warp's scores lie: the pair of row i and column j of the sequence's own positions. */
typedef struct score_place {
    int32_t b, h;
    int32_t last_q, last_k; /* largest legal indices: modifiers are asked about no others */
    int32_t shift;          /* Nk - Nq */
    float slope;            /* ALiBi */
} score_place;

SAC_FN score_place score_place_of(const sac_attention_args *args, int32_t b, int32_t h, sac_sequence seq) {
    score_place at = {b, h, seq.q_len - 1, seq.k_len - 1, seq.k_len - seq.q_len, 0};
#if HAS_ALIBI
    at.slope = args->alibi_slopes[b * args->alibi_batch_stride + h];
#endif
    return at;
}

/* Factor from a score, as score_of gives it, to the exponent of 2. */
SAC_FN float score_to_log2(const sac_attention_args *args) {
#if TRANSFORM
    return LOG2_E;
#else
    return LOG2_E * args->scale;
#endif
}

/* tanh by the exponential: the error stays near 1e-7 of 1, where tanh.approx has 5e-4. */
SAC_FN float score_tanh(float x) { return 1 - 2 * ptx_reciprocal(1 + ptx_exp2(2 * LOG2_E * x)); }

/* Before the score_mod. *tanh_out: of the softcap, for the way back. */
SAC_FN float score_before_mod(const sac_attention_args *args, const score_place *at, float raw, int32_t i,
                              int32_t j, float *tanh_out) {
    float s = raw * args->scale;
#if HAS_SOFTCAP
    *tanh_out = score_tanh(s / args->softcap);
    s = args->softcap * *tanh_out;
#endif
#if HAS_ALIBI
    s -= at->slope * fabsf((float)(i + at->shift - j));
#endif
    return s;
}

SAC_FN float score_of(const sac_attention_args *args, const score_place *at, float raw, int32_t i,
                      int32_t j) {
#if TRANSFORM
    float unused;
    float s = score_before_mod(args, at, raw, i, j, &unused);
#if HAS_SCORE_MOD
    s = sac_score_mod(s, at->b, at->h, sac_min(i, at->last_q), sac_min(j, at->last_k), &args->score_aux);
#endif
    return s;
#else
    return raw;
#endif
}

/* From the gradient of score_of to that of the scaled product. */
SAC_FN float score_grad(const sac_attention_args *args, const score_place *at, float grad, float raw,
                        int32_t i, int32_t j) {
#if TRANSFORM
    if (grad == 0) return 0; /* a hidden pair among others: no text must see it, nor its NaN come through */
    float tanh_s = 0;
    float s = score_before_mod(args, at, raw, i, j, &tanh_s);
#if HAS_SCORE_MOD
    grad = sac_score_mod_grad(grad, s, at->b, at->h, sac_min(i, at->last_q), sac_min(j, at->last_k),
                              &args->score_aux);
#endif
    return grad * (1 - tanh_s * tanh_s);
#else
    return grad;
#endif
}

/* A row's visible keys of the current tile. */
typedef struct score_row_band {
    int32_t lo, hi;
} score_row_band;

SAC_FN score_row_band score_row_band_of(const sac_attention_args *args, const sac_band *band,
                                        const sac_tile *tile, int32_t k_end, int32_t i) {
    score_row_band r = {0, k_end};
    if (tile->banded) {
        r.lo = sac_band_lo(band, i);
        r.hi = sac_min(k_end, sac_band_hi(band, i));
    }
#if HAS_PARTS
    if (!(tile->bits >> sac_part_of(&args->blocks, i) & 1)) r.hi = r.lo;
#endif
    return r;
}

/* The parts that a warp's queries belong to: tiles for none of them are nothing to it. first, last: of the tile's. */
SAC_FN uint32_t score_parts_of(const sac_attention_args *args, sac_range tile, int32_t first, int32_t last) {
#if HAS_PARTS
    return sac_parts_of(&args->blocks, tile.begin + first, sac_min(tile.end, tile.begin + last + 1));
#else
    return 0;
#endif
}
SAC_FN bool score_tile_is_for(const sac_tile *tile, uint32_t parts) {
    return !HAS_PARTS || (tile->bits & parts) != 0;
}

/* What a variant does not have must not cost it registers. */
SAC_FN void score_trim_walk(sac_walk *walk) {
#if !HAS_BLOCK_MASK
    walk->entry = walk->entry_end = nullptr;
#endif
#if !HAS_PARTS
    walk->bits = nullptr;
    walk->run_bits = SAC_ALL_PARTS;
#endif
}

SAC_FN bool score_visible(const sac_attention_args *args, const score_place *at, const sac_tile *tile,
                          score_row_band row, int32_t i, int32_t j) {
    bool visible = j >= row.lo && j < row.hi;
#if HAS_MASK_MOD
    if (tile->kind != SAC_FULL)
        visible = visible &&
                  sac_mask_mod(at->b, at->h, sac_min(i, at->last_q), sac_min(j, at->last_k), &args->mask_aux);
#endif
#if HAS_BLOCK_MASK
    if (tile->kind == SAC_DIAGONAL) visible = visible && j - i == tile->delta;
#endif
    return visible;
}

/* Is any pair of a tile of `full` columns hidden? */
SAC_FN bool score_tile_masked(const sac_tile *tile, int32_t full) {
    bool masked = tile->banded || tile->end - tile->begin < full;
#if HAS_MASK_MOD || HAS_BLOCK_MASK
    masked = masked || tile->kind != SAC_FULL;
#endif
#if HAS_PARTS
    masked = masked || tile->bits != SAC_ALL_PARTS;
#endif
    return masked;
}

#endif
