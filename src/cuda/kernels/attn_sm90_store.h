/* attn_sm90_store.h - from the accumulators of a query tile to its rows in memory. */
#ifndef SAC_ATTN_SM90_STORE_H
#define SAC_ATTN_SM90_STORE_H

#include "cuda/kernels/attn_sm90_tile.h"

/* Rows of the tile's sequence that are used: those behind get zeros. */
SAC_FN int32_t used_rows(const sac_attention_args *args, const q_record *q) {
    return !RAGGED ? q->end : q->batch == args->batch ? 0 : q->band.seqlen_q;
}

SAC_FN float *row_value_of(const sac_row_view *view, const sac_attention_args *args, const q_record *q,
                           int32_t head, int32_t row) {
    return view->data + batch_of(&args->len_q, q->batch) * view->batch_stride + head * view->head_stride +
           (q->q_row + (int64_t)row) * view->row_stride;
}

/* The r-th of this thread's two rows, `columns` wide, times factor, which may be SAW_NOTHING. */
SAC_FN void store_row(const float *sums, int columns, int r, float factor, const sac_view *view,
                      const sac_attention_args *args, const q_record *q, int32_t head, int32_t row) {
    uint16_t *to = (uint16_t *)view->data + batch_of(&args->len_q, q->batch) * view->batch_stride +
                   head * view->head_stride + (q->q_row + (int64_t)row) * view->row_stride;
    store_sums(to, sums, columns, r, factor, row < q->end);
}

#endif
