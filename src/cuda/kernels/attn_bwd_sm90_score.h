/* attn_bwd_sm90_score.h - from products to P and dS, element by element:
 *
 *   P = exp(score - lse)        dS = P (dP - delta), and from there back through the score's modifications
 *
 * Hidden pairs get P = 0 and dS = 0.
 */
#ifndef SAC_ATTN_BWD_SM90_SCORE_H
#define SAC_ATTN_BWD_SM90_SCORE_H

#include "cuda/kernels/attn_bwd_sm90_tile.h"

#define BACKWARD 1
#include "cuda/kernels/attn_bwd_sm90_by_hand.h"
#include "cuda/kernels/attn_sm90_score.h"

/* A tile as one thread sees it. */
typedef struct score_tile {
    const sac_attention_args *args;
    int32_t b, h, query, key; /* of the thread's first score */
    sac_sequence sequence;
    float distance, slope; /* ALiBi */
} score_tile;

SAC_FN int hides_some(const consumer *c) { return warp_has(c->flags & Q_MASKED); }

/* PRODUCER_LOOKS: may a hidden pair have a gradient that is not finite? */
SAC_FN int hides_unfinite(const consumer *c) {
    return hides_some(c) && warp_has(c->flags & Q_UNFINITE || c->smem->unfinite_values);
}

/* Which pairs of a thread are visible: of each of its lines, a bit for every column. */
typedef struct pair_bits {
    uint32_t line[2];
} pair_bits;

/* How many of this thread's columns lie before the offset from its first. */
SAC_FN int32_t columns_before(int32_t offset) {
    const int32_t x = sac_max(0, sac_min(offset, SCORE_COLUMNS));
    return x / 8 * 2 + sac_min(x % 8, 2);
}
SAC_FN uint32_t column_bits(int32_t begin, int32_t end) {
    const int32_t low = columns_before(begin), high = columns_before(end);
    return low < high ? ~0u << low & ~0u >> (32 - high) : 0;
}

#if BY_QUERY
SAC_FN uint32_t visible_columns(const consumer *c, const score_tile *t, const q_record *tile, int line) {
    const sac_band band = sac_band_make(&t->args->band, t->sequence.q_len, t->sequence.k_len);
    const int32_t query = t->query + line;
    int32_t begin = sac_max(c->smem->own.keys.begin, sac_band_lo(&band, query));
    int32_t end = sac_min(c->smem->own.keys.end, sac_band_hi(&band, query));
    if (BLOCK_MASK && tile->flags >> Q_KIND == SAC_DIAGONAL) {
        begin = sac_max(begin, query + tile->delta);
        end = sac_min(end, query + tile->delta + 1);
    }
    return query >= tile->begin && query < tile->end ? column_bits(begin - t->key, end - t->key) : 0;
}
#else
SAC_FN uint32_t visible_columns(const consumer *c, const score_tile *t, const q_record *tile, int line) {
    const sac_range seen_by = c->smem->seen_by[first_line() + line];
    const int32_t key = t->key + line;
    int32_t begin = sac_max(tile->begin, seen_by.begin), end = sac_min(tile->end, seen_by.end);
    if (BLOCK_MASK && tile->flags >> Q_KIND == SAC_DIAGONAL) {
        begin = sac_max(begin, key - tile->delta);
        end = sac_min(end, key - tile->delta + 1);
    }
    return column_bits(begin - t->query, end - t->query);
}
#endif

SAC_FN score_tile score_tile_of(const consumer *c, const q_record *tile) {
    score_tile t;
    t.args = &c->params->args;
    t.b = c->smem->own.batch;
    t.h = tile->head;
    t.query = tile->origin + first_query();
    t.key = first_key(c);
    t.sequence = RAGGED ? c->smem->own.sequence : sequence_of(t.args, t.b);
#if ALIBI
    t.distance = (float)(t.query + t.sequence.k_len - t.sequence.q_len - t.key);
    t.slope = t.args->alibi_slopes[t.b * t.args->alibi_batch_stride + t.h];
#endif
    return t;
}

/* Indices of the thread's i-th score as modifiers are asked about: the largest legal ones at most. */
SAC_FN int32_t query_of(const score_tile *t, int i) {
    return sac_min(t->query + QUERY_OF(i), t->sequence.q_len - 1);
}
SAC_FN int32_t key_of(const score_tile *t, int i) {
    return sac_min(t->key + KEY_OF(i), t->sequence.k_len - 1);
}

#define ALL_COLUMNS (~0u >> (32 - SCORE_COLUMNS / 4))
#define BIT_OF(i) (1u << ((i) / 4 * 2 + (i) % 2))
SAC_FN int is_visible(const pair_bits *seen, int i) { return (seen->line[i / 2 % 2] & BIT_OF(i)) != 0; }

/* Is some pair of this warp's hidden in the tile? A mask_mod is mostly asked in vain, and tells before the scores are
 * there. */
SAC_FN int hides_pair(const consumer *c, const pair_bits *asked) {
    return hides_some(c) &&
           (!MASK_MOD || warp_has((asked->line[0] & asked->line[1] & ALL_COLUMNS) != ALL_COLUMNS));
}

#if PACK
/* Every row is asked where it is from. */
SAC_FN pair_bits visible_pairs(const consumer *c, const q_record *tile, int some_hidden) {
    pair_bits seen = {{~0u, ~0u}};
    if (!some_hidden) return seen;
    const sac_sequence sequence = c->smem->own.sequence;
    const sac_band band = sac_band_make(&c->params->args.band, sequence.q_len, sequence.k_len);
#pragma unroll 1
    for (int j = 0; j < SCORE_COLUMNS / 4; j++) {
        const int32_t query = c->smem->query[c->q.stage][first_column() + j / 2 * 8 + j % 2];
        const int32_t begin = sac_band_lo(&band, query), key = first_key(c);
        const int32_t end = sac_min(c->smem->own.keys.end, sac_band_hi(&band, query));
        if (key < begin || key >= end) seen.line[0] &= ~(1u << j);
        if (key + 8 < begin || key + 8 >= end) seen.line[1] &= ~(1u << j);
    }
    return seen;
}
#else
/* All of them where some_hidden is 0. A mask_mod depends on no score, and is asked while their products run. */
SAC_FN pair_bits visible_pairs(const consumer *c, const q_record *tile, int some_hidden) {
    pair_bits seen = {{~0u, ~0u}};
    if (!some_hidden) return seen;
    const score_tile t = score_tile_of(c, tile);
    if (!MASK_MOD || warp_has(tile->flags & Q_PLACED)) {
        seen.line[0] = visible_columns(c, &t, tile, 0);
        seen.line[1] = visible_columns(c, &t, tile, 8);
    }
#if MASK_MOD
    if (warp_has(tile->flags >> Q_KIND == SAC_FULL)) return seen;
#pragma unroll
    for (int i = 0; i < SCORE_COLUMNS / 2; i++)
        if (!sac_mask_mod(t.b, t.h, query_of(&t, i), key_of(&t, i), &t.args->mask_aux))
            seen.line[i / 2 % 2] &= ~BIT_OF(i);
#endif
    return seen;
}
#endif

#if PRESCALED
SAC_FN score_place place_of(const score_tile *t, int i) {
    const score_place at = {t->b, t->h, query_of(t, i), key_of(t, i),
                            ALIBI ? t->slope * fabsf(t->distance + (QUERY_OF(i) - KEY_OF(i))) : 0};
    return at;
}
#endif

#if !KEEPS_PRODUCT
#if PRESCALED
SAC_FN void modify_scores(consumer *c, const q_record *tile) {
    const score_tile t = score_tile_of(c, tile);
#pragma unroll
    for (int i = 0; i < SCORE_COLUMNS / 2; i++) {
        const score_place at = place_of(&t, i);
        c->s[i] = modify_score(t.args, &at, c->s[i]).score;
    }
}
#endif
SAC_FN float probability(const consumer *c, int i, float lse) {
    return ptx_exp2(FOLDS_LSE ? c->s[i] * c->scale_log2 : fmaf(c->s[i], c->scale_log2, -lse));
}
/* Of the softcap: a score is here tanh, whose slope is 1 - tanh^2, or -inf, which has none. */
SAC_FN float slope_at(const consumer *c, int i) { return SOFTCAP ? fmaxf(1 - c->s[i] * c->s[i], 0) : 1; }

/* Scores in their final form: modified, and -inf where pairs are hidden. Was a product not finite that stands beside
 * hidden ones? asked: what the mask_mod lets be seen, if there is one. */
SAC_FN int prepare_scores(consumer *c, const q_record *tile, const pair_bits *asked) {
    const int masked = hides_pair(c, asked);
    int found = 0;
#if PRESCALED
    if (masked && !PRODUCER_LOOKS) found = has_unfinite(c->s, SCORE_COLUMNS / 2);
    found = warp_has(found); /* takes no register */
    modify_scores(c, tile);
#endif
    if (masked) {
        const pair_bits seen = MASK_MOD ? *asked : visible_pairs(c, tile, 1);
        if (!PRESCALED && !PRODUCER_LOOKS) found = warp_has(has_unfinite(c->s, SCORE_COLUMNS / 2));
#pragma unroll
        for (int i = 0; i < SCORE_COLUMNS / 2; i++)
            if (!is_visible(&seen, i)) c->s[i] = MINUS_INF;
    }
    return found;
}
#endif

#if !BY_QUERY
/* lse, or delta, of the queries that are a thread's columns i and i + 1; nothing where products have taken it off. */
SAC_FN float2 pair_at(const float *rows, int i) {
    return ptx_ld_f32x2(ptx_smem_of(rows + first_query()) + 32 * (i / 4));
}
#if FOLDS_LSE
SAC_FN float2 lse_at(const consumer *c, int i) { return make_float2(0, 0); }
#else
SAC_FN float2 lse_at(const consumer *c, int i) { return pair_at(c->smem->lse[c->q.stage], i); }
#endif
#if FOLDS_DELTA
SAC_FN float2 delta_at(const consumer *c, int i) { return make_float2(0, 0); }
#else
SAC_FN float2 delta_at(const consumer *c, int i) { return pair_at(c->smem->delta[c->q.stage], i); }
#endif

/* PACKS_P_LATE: once dS has been made of them. */
SAC_FN void pack_probabilities(consumer *c) {
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i += 2) c->p[i / 2] = pack(c->s[i], c->s[i + 1]);
}

#if KEEPS_PRODUCT
SAC_FN float probability(const consumer *c, const score_tile *t, const pair_bits *seen, int i, int masked,
                         float lse) {
    const score_place at = place_of(t, i);
    const float score = modify_score(t->args, &at, c->s[i]).score;
    return masked && !is_visible(seen, i) ? 0 : ptx_exp2(fmaf(score, c->scale_log2, -lse));
}

/* P and dS of the thread's i-th pair. */
SAC_FN float2 score_pair(const consumer *c, const score_tile *t, const pair_bits *seen, int i, int masked,
                         float lse, float delta) {
    const score_place at = place_of(t, i);
    const modified_score m = modify_score(t->args, &at, c->s[i]);
    if (masked && !is_visible(seen, i)) return make_float2(0, 0);
    const float p = ptx_exp2(fmaf(m.score, c->scale_log2, -lse));
    return make_float2(p, modify_gradient(t->args, &at, &m, p * (c->dp[i] - delta)));
}

/* P and dS of a tile, packed as operands. */
SAC_FN void score_grads(consumer *c, const q_record *tile, const pair_bits *seen, int masked) {
    const score_tile t = score_tile_of(c, tile);
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i += 2) {
        const float2 l = lse_at(c, i), d = delta_at(c, i);
        const float2 low = score_pair(c, &t, seen, i, masked, l.x, d.x);
        const float2 high = score_pair(c, &t, seen, i + 1, masked, l.y, d.y);
        c->p[i / 2] = pack(low.x, high.x);
        c->ds_packed[i / 2] = pack(low.y, high.y);
    }
}
#else
/* P, packed; and in the place of the scores what dP - delta is multiplied by: P times the slope of the softcap. */
SAC_FN void probabilities(consumer *c) {
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i += 2) {
        const float2 l = lse_at(c, i);
        const float low = probability(c, i, l.x), high = probability(c, i + 1, l.y);
        c->s[i] = low * slope_at(c, i);
        c->s[i + 1] = high * slope_at(c, i + 1);
        if (!PACKS_P_LATE) c->p[i / 2] = pack(low, high);
    }
}

/* dS, packed. */
SAC_FN void gradients(consumer *c) {
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i += 2) {
        const float2 d = delta_at(c, i);
        c->ds_packed[i / 2] = pack(c->s[i] * (c->dp[i] - d.x), c->s[i + 1] * (c->dp[i + 1] - d.y));
    }
}
#endif
#endif

#endif
