/* attn_sm90_mask.h - from products to scores: what modifies them, and which of them are hidden. */
#ifndef SAC_ATTN_SM90_MASK_H
#define SAC_ATTN_SM90_MASK_H

#include "cuda/kernels/attn_sm90_score.h"
#include "cuda/kernels/attn_sm90_tile.h"

/* Keys that this thread's two rows see by the band, and with PACK their parts: known once for a query tile, asked of each
 * of its masked tiles. */
typedef struct row_limits {
    int32_t begin[2], end[2];
#if PACK
    int32_t part[2];
#endif
} row_limits;

SAC_FN row_limits row_limits_of(const q_record *q) {
    const sac_band band = q->band;
    row_limits limits;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t row = query_at(q, thread_row() + 8 * r);
        limits.begin[r] = sac_band_lo(&band, row);
        limits.end[r] = sac_band_hi(&band, row);
#if PACK
        limits.part[r] = (thread_row() + 8 * r) * q->part_inverse >> 16;
#endif
    }
    return limits;
}

/* Is the tile for the r-th of this thread's two rows? */
SAC_FN int is_listed(const row_limits *limits, const kv_record *tile, int r) {
#if PACK
    return tile->bits >> limits->part[r] & 1;
#else
    return 1;
#endif
}

/* A key tile as one thread sees it: which of its columns its two rows may see by where they are (bit i / 4 * 2 + i % 2
 * for the i-th score), and the indices that modifiers are asked about: legal ones also for rows and columns behind the
 * end. */
typedef struct tile_mask {
    const sac_attention_args *args;
    const q_record *q;
    uint32_t seen[2];
    int32_t row[2], column, last_column;
    int32_t asks; /* the mask_mod decides */
} tile_mask;

/* Is some pair of this thread's rows and the tile hidden by where it is? Limits never decrease from row to row. */
SAC_FN int hides_some(const row_limits *limits, const kv_record *tile) {
    return tile->begin < limits->begin[1] || tile->end > limits->end[0] ||
           tile->end - tile->begin < KV_TILE || (BLOCK_MASK && tile->flags >> KV_KIND == SAC_DIAGONAL);
}
SAC_FN int asks_mod(const kv_record *tile) { return MASK_MOD && tile->flags >> KV_KIND != SAC_FULL; }

/* Which of this thread's columns lie before the tile's column `end`. */
SAC_FN uint32_t columns_before(int32_t end) {
    const uint32_t mine = sac_max(end - first_column(), 0), count = mine / 8 * 2 + sac_min(mine % 8, 2);
    static_assert(KV_TILE <= 128, "32 columns a thread");
    return count >= 32 ? ~0u : (1u << count) - 1;
}

/* Of the r-th row, which is query `row`. */
SAC_FN uint32_t visible_columns(const row_limits *limits, const kv_record *tile, int r, int32_t row) {
    const int32_t begin = limits->begin[r] - tile->begin;
    const int32_t end = sac_min(limits->end[r], tile->end) - tile->begin;
    uint32_t seen = columns_before(end) & ~columns_before(begin);
    if (BLOCK_MASK && tile->flags >> KV_KIND == SAC_DIAGONAL) {
        const int32_t column = row + tile->delta - tile->begin;
        seen &= columns_before(column + 1) & ~columns_before(column);
    }
    return seen;
}

/* place: where pairs are matters. */
SAC_FN tile_mask tile_mask_of(const sac_attention_args *args, const q_record *q, const row_limits *limits,
                              const kv_record *tile, int place) {
    tile_mask m;
    m.args = args;
    m.q = q;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t row = query_at(q, thread_row() + 8 * r);
        m.seen[r] = !is_listed(limits, tile, r) ? 0 : place ? visible_columns(limits, tile, r, row) : ~0u;
        m.row[r] = sac_min(row, q->band.seqlen_q - 1);
    }
    m.column = tile->begin + first_column();
    m.last_column = place ? q->band.seqlen_k - 1 : SAC_FAR;
    m.asks = asks_mod(tile);
    return m;
}

/* Indices of the thread's i-th score as modifiers are asked about. */
SAC_FN int32_t query_of(const tile_mask *m, int i) { return m->row[i / 2 % 2]; }
SAC_FN int32_t key_of(const tile_mask *m, int i) { return sac_min(m->column + COLUMN_OF(i), m->last_column); }

/* Is the thread's i-th score visible? */
SAC_FN int is_visible(const tile_mask *m, int i) { return m->seen[i / 2 % 2] >> (i / 4 * 2 + i % 2) & 1; }

#if MASK_MOD
/* Leaves the pairs that the mask_mod shows. Few tiles are asked about, and texts may be long: as many copies of one as
 * a thread has scores would take longer to fetch than a loop takes to run. */
SAC_FN void ask_mask_mod(tile_mask *m) {
    uint32_t shown[2] = {0, 0};
#pragma unroll 4
    for (int bit = 0; bit < KV_TILE / 4; bit++) {
        const int32_t key = sac_min(m->column + bit / 2 * 8 + bit % 2, m->last_column);
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (sac_mask_mod(m->q->batch, m->q->head, m->row[r], key, &m->args->mask_aux))
                shown[r] |= 1u << bit;
    }
    m->seen[0] &= shown[0];
    m->seen[1] &= shown[1];
}
#endif

SAC_FN void hide_by(float *of_scores, float value, const sac_attention_args *args, const q_record *q,
                    const row_limits *limits, const kv_record *tile, int place) {
    tile_mask m = tile_mask_of(args, q, limits, tile, place);
#if MASK_MOD
    if (warp_has(m.asks)) ask_mask_mod(&m);
#endif
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
        if (!is_visible(&m, i)) of_scores[i] = value;
}

/* Only whole rows are hidden: those that the tile is not for. */
SAC_FN void hide_rows(float *of_scores, float value, const row_limits *limits, const kv_record *tile) {
    const int listed[2] = {is_listed(limits, tile, 0), is_listed(limits, tile, 1)};
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
        if (!listed[i / 2 % 2]) of_scores[i] = value;
}

/* What belongs to hidden scores becomes `value`. Where only the mask_mod can hide a pair, only it is asked. With PACK
 * nearly every tile is for some rows only, but mostly for all of a warp's or none. */
SAC_FN void hide(float *of_scores, float value, const sac_attention_args *args, const q_record *q,
                 const row_limits *limits, const kv_record *tile) {
    if (!PACK && !warp_has(tile->flags & KV_MASKED)) return;
    const int all_listed = is_listed(limits, tile, 0) & is_listed(limits, tile, 1);
    if (PACK && !warp_has(hides_some(limits, tile) | !all_listed | asks_mod(tile))) return;
    if (warp_has(hides_some(limits, tile)))
        hide_by(of_scores, value, args, q, limits, tile, 1);
    else if (MASK_MOD && warp_has(asks_mod(tile)))
        hide_by(of_scores, value, args, q, limits, tile, 0);
    else if (PACK)
        hide_rows(of_scores, value, limits, tile);
}

#if PRESCALED
/* ALiBi's distances are those of the rows themselves. */
SAC_FN score_place place_of(const tile_mask *m, int i) {
    const int32_t row = query_at(m->q, thread_row());
    const float distance = (float)(row + m->q->band.seqlen_k - m->q->band.seqlen_q - m->column);
    const score_place at = {m->q->batch, m->q->head, query_of(m, i), key_of(m, i),
                            ALIBI ? m->q->slope * fabsf(distance + (ROW_OF(i) - COLUMN_OF(i))) : 0};
    return at;
}

/* Products become what the softmax is taken of. */
SAC_FN void modify_scores(float *s, const sac_attention_args *args, const q_record *q,
                          const row_limits *limits, const kv_record *tile) {
    const tile_mask m = tile_mask_of(args, q, limits, tile, 1);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) {
        const score_place at = place_of(&m, i);
        s[i] = modify_score(args, &at, s[i]).score;
    }
}
#endif

#endif
