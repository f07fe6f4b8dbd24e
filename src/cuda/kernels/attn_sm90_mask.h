/* attn_sm90_mask.h - which of a thread's scores are hidden. */
#ifndef SAC_ATTN_SM90_MASK_H
#define SAC_ATTN_SM90_MASK_H

#include "cuda/kernels/attn_sm90_tile.h"
#if MASK_MOD || SCORE_MOD
#include <modifiers.h> /* sac_score_mod, sac_mask_mod: made for the call */
#endif

/* A key tile as one thread sees it. */
typedef struct tile_mask {
    const sac_attention_args *args;
    const q_record *q;
    sac_sequence sequence;
    int32_t row, column; /* of the thread's first score */
    int32_t asks;        /* the mask_mod decides */
    sac_range seen[2];   /* keys that its two rows may see, as offsets from column */
} tile_mask;

/* The keys of a tile, as offsets from this thread's first column, that a row may see. */
SAC_FN sac_range visible_columns(const tile_mask *m, const kv_record *tile, int32_t row) {
    const sac_band band = sac_band_make(&m->args->band, m->sequence.q_len, m->sequence.k_len);
    sac_range seen = {sac_band_lo(&band, row) - m->column,
                      sac_min(sac_band_hi(&band, row), tile->end) - m->column};
    if (BLOCK_MASK && tile->flags >> KV_KIND == SAC_DIAGONAL) {
        int32_t key = row + tile->delta - m->column;
        seen.begin = sac_max(seen.begin, key);
        seen.end = sac_min(seen.end, key + 1);
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
    m.seen[0] = visible_columns(&m, tile, m.row);
    m.seen[1] = visible_columns(&m, tile, m.row + 8);
    return m;
}

/* Is the thread's i-th score visible? */
SAC_FN int is_visible(const tile_mask *m, int i) {
    int visible = COLUMN_OF(i) >= m->seen[i / 2 % 2].begin && COLUMN_OF(i) < m->seen[i / 2 % 2].end;
#if MASK_MOD
    visible &=
        !m->asks | sac_mask_mod(m->q->batch, m->q->head, sac_min(m->row + ROW_OF(i), m->sequence.q_len - 1),
                                sac_min(m->column + COLUMN_OF(i), m->sequence.k_len - 1), &m->args->mask_aux);
#endif
    return visible;
}

#endif
