/* attn_sm90_mask.h - from products to scores: what modifies them, and which of them are hidden. */
#ifndef SAC_ATTN_SM90_MASK_H
#define SAC_ATTN_SM90_MASK_H

#include "cuda/kernels/attn_sm90_score.h"
#include "cuda/kernels/attn_sm90_tile.h"

/* A key tile as one thread sees it. */
typedef struct tile_mask {
    const sac_attention_args *args;
    const q_record *q;
    sac_sequence sequence;
    int32_t row, column; /* of the thread's first score */
    int32_t asks;        /* the mask_mod decides */
    /* Which of its columns its two rows may see: bit i / 4 * 2 + i % 2 for the i-th score. */
    uint32_t seen[2];
} tile_mask;

/* May some pair of this warp's rows and the tile be hidden? */
SAC_FN int hides(const q_record *q, const kv_record *tile) {
    const int32_t first = q->begin + (threadIdx.x / 32 - 4) * 16;
    const sac_range rows = {first, first + 16}, all = sac_band_keys_all(&q->band, rows);
    return tile->begin < all.begin || tile->end > all.end || tile->end - tile->begin < KV_TILE ||
           (BLOCK_MASK && tile->flags >> KV_KIND == SAC_DIAGONAL) ||
           (MASK_MOD && tile->flags >> KV_KIND != SAC_FULL);
}

/* Which of this thread's columns lie before the tile's column `end`. */
SAC_FN uint32_t columns_before(int32_t end) {
    const int32_t mine = end - first_column(), count = mine <= 0 ? 0 : mine / 8 * 2 + sac_min(mine % 8, 2);
    static_assert(KV_TILE <= 128, "32 columns a thread");
    return count >= 32 ? ~0u : (1u << count) - 1;
}

SAC_FN uint32_t visible_columns(const q_record *q, const kv_record *tile, int32_t row) {
    const int32_t end = sac_min(sac_band_hi(&q->band, row), tile->end);
    uint32_t seen =
        columns_before(end - tile->begin) & ~columns_before(sac_band_lo(&q->band, row) - tile->begin);
    if (BLOCK_MASK && tile->flags >> KV_KIND == SAC_DIAGONAL) {
        const int32_t column = row + tile->delta - tile->begin;
        seen &= columns_before(column + 1) & ~columns_before(column);
    }
    return seen;
}

SAC_FN tile_mask tile_mask_of(const sac_attention_args *args, const q_record *q, const kv_record *tile) {
    tile_mask m;
    m.args = args;
    m.q = q;
    m.sequence = sequence_of(args, q->batch);
    m.row = first_row(q);
    m.column = tile->begin + first_column();
    m.asks = tile->flags >> KV_KIND != SAC_FULL;
    m.seen[0] = visible_columns(q, tile, m.row);
    m.seen[1] = visible_columns(q, tile, m.row + 8);
    return m;
}

/* Indices of the thread's i-th score as modifiers are asked about: the largest legal ones at most. */
SAC_FN int32_t query_of(const tile_mask *m, int i) {
    return sac_min(m->row + ROW_OF(i), m->sequence.q_len - 1);
}
SAC_FN int32_t key_of(const tile_mask *m, int i) {
    return sac_min(m->column + COLUMN_OF(i), m->sequence.k_len - 1);
}

/* Is the thread's i-th score visible? */
SAC_FN int is_visible(const tile_mask *m, int i) {
    int visible = (m->seen[i / 2 % 2] >> (i / 4 * 2 + i % 2)) & 1;
#if MASK_MOD
    visible = visible && (!m->asks | sac_mask_mod(m->q->batch, m->q->head, query_of(m, i), key_of(m, i),
                                                  &m->args->mask_aux));
#endif
    return visible;
}

/* What belongs to hidden scores becomes `value`. */
SAC_FN void hide(float *of_scores, float value, const sac_attention_args *args, const q_record *q,
                 const kv_record *tile) {
    if (!warp_has(tile->flags & KV_MASKED && hides(q, tile))) return;
    const tile_mask m = tile_mask_of(args, q, tile);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
        if (!is_visible(&m, i)) of_scores[i] = value;
}

#if PRESCALED
SAC_FN score_place place_of(const tile_mask *m, int i) {
    const float slope =
        ALIBI ? m->args->alibi_slopes[m->q->batch * m->args->alibi_batch_stride + m->q->head] : 0;
    const float distance = (float)(m->row + m->sequence.k_len - m->sequence.q_len - m->column);
    const score_place at = {m->q->batch, m->q->head, query_of(m, i), key_of(m, i),
                            slope * fabsf(distance + (ROW_OF(i) - COLUMN_OF(i)))};
    return at;
}

/* Products become what the softmax is taken of. */
SAC_FN void modify_scores(float *s, const sac_attention_args *args, const q_record *q,
                          const kv_record *tile) {
    const tile_mask m = tile_mask_of(args, q, tile);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) {
        const score_place at = place_of(&m, i);
        s[i] = modify_score(args, &at, s[i]).score;
    }
}
#endif

#endif
