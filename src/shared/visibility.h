/* visibility.h - which keys a query may see by position alone, and the same seen from the keys.
 *
 * Causal masks, windows and NSA's compressed causality are all one shape, a band: query i sees the keys of an
 * interval whose ends never decrease with i,
 *     lo(i) <= j < hi(i),   lo(i) = i + lo_off,   hi(i) = floor((i + hi_off) / hi_slope),
 * cut to the sequence. hi_slope is 1, or the compression block when keys are block means. Everything else here
 * follows from those two lines, so kernels never ask which mask they serve.
 */
#ifndef SAC_VISIBILITY_H
#define SAC_VISIBILITY_H

#include "shared/types.h"

/* Larger than any position and small enough that sums of two do not overflow. */
#define SAC_FAR (1 << 29)
#define SAC_MAX_SEQLEN SAC_FAR

typedef enum sac_align { SAC_TOP_LEFT = 0, SAC_BOTTOM_RIGHT = 1 } sac_align;

/* The mask as the caller wrote it; lengths are not known yet. */
typedef struct sac_band_rule {
    int32_t causal;           /* 0 none, 1 top_left, 2 bottom_right */
    int32_t window_left;      /* -1: unbounded */
    int32_t window_right;     /* -1: unbounded */
    int32_t window_align;     /* sac_align */
    int32_t compress;         /* 0: keys are tokens; l: key j is the mean of tokens j*l .. j*l + l-1 */
    int32_t compress_started; /* 1: visible once its first token is; 0: once its last one is */
} sac_band_rule;

/* The mask of one sequence. */
typedef struct sac_band {
    int32_t lo_off, hi_off, hi_slope;
    int32_t seqlen_q, seqlen_k;
} sac_band;

typedef struct sac_range {
    int32_t begin, end; /* empty when begin >= end */
} sac_range;

SAC_FN int32_t sac_clamp_far(int64_t x) {
    return x > SAC_FAR ? SAC_FAR : x < -SAC_FAR ? -SAC_FAR : (int32_t)x;
}

SAC_FN sac_band sac_band_make(const sac_band_rule *rule, int32_t seqlen_q, int32_t seqlen_k) {
    sac_band band = {-SAC_FAR, SAC_FAR, 1, seqlen_q, seqlen_k};
    if (rule->compress > 0) {
        band.hi_slope = rule->compress;
        band.hi_off = rule->compress_started ? rule->compress : 1;
        return band;
    }
    int64_t shift = (int64_t)seqlen_k - seqlen_q;
    int64_t window_shift = rule->window_align == SAC_BOTTOM_RIGHT ? shift : 0;
    if (rule->causal) band.hi_off = sac_clamp_far((rule->causal == 2 ? shift : 0) + 1);
    if (rule->window_left >= 0) band.lo_off = sac_clamp_far(window_shift - rule->window_left);
    if (rule->window_right >= 0) {
        int32_t off = sac_clamp_far(window_shift + rule->window_right + 1);
        band.hi_off = sac_min(band.hi_off, off);
    }
    /* Masks that exclude each other: no row sees anything, so no range of rows may seem to. */
    if (band.hi_off <= band.lo_off) band.hi_off = -SAC_FAR;
    return band;
}

SAC_FN int32_t sac_band_lo(const sac_band *band, int32_t i) { return sac_max(0, i + band->lo_off); }

SAC_FN int32_t sac_band_hi(const sac_band *band, int32_t i) {
    int32_t top = i + band->hi_off; /* a negative top sees nothing, whatever the slope */
    if (top <= 0) return 0;
    return sac_min(band->seqlen_k, band->hi_slope == 1 ? top : top / band->hi_slope);
}

/* Keys that some query of [q.begin, q.end) sees. */
SAC_FN sac_range sac_band_keys_any(const sac_band *band, sac_range q) {
    sac_range r = {sac_band_lo(band, q.begin), sac_band_hi(band, q.end - 1)};
    return r;
}

/* Keys that every query of [q.begin, q.end) sees. */
SAC_FN sac_range sac_band_keys_all(const sac_band *band, sac_range q) {
    sac_range r = {sac_band_lo(band, q.end - 1), sac_band_hi(band, q.begin)};
    return r;
}

/* First query whose hi passes key j: floor((i + hi_off) / slope) > j. */
SAC_FN int32_t sac_band_first_query(const sac_band *band, int32_t j) {
    int64_t i = (int64_t)(j + 1) * band->hi_slope - band->hi_off;
    return i < 0 ? 0 : i > band->seqlen_q ? band->seqlen_q : (int32_t)i;
}

/* One past the last query whose lo is at most key j. */
SAC_FN int32_t sac_band_end_query(const sac_band *band, int32_t j) {
    return sac_max(0, sac_min(band->seqlen_q, j + 1 - band->lo_off));
}

/* Queries that see some key, or every key, of [k.begin, k.end). */
SAC_FN sac_range sac_band_queries_any(const sac_band *band, sac_range k) {
    sac_range r = {sac_band_first_query(band, k.begin), sac_band_end_query(band, k.end - 1)};
    return r;
}
SAC_FN sac_range sac_band_queries_all(const sac_band *band, sac_range k) {
    sac_range r = {sac_band_first_query(band, k.end - 1), sac_band_end_query(band, k.begin)};
    return r;
}

SAC_FN int sac_band_visible(const sac_band *band, int32_t i, int32_t j) {
    return j >= sac_band_lo(band, i) && j < sac_band_hi(band, i);
}

#endif
