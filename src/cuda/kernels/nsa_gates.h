/* nsa_gates.h - the three gates of a query and head: sigmoid(q . w_gate), as given, or a third each (-DGATE). */
#ifndef SAC_KERNELS_NSA_GATES_H
#define SAC_KERNELS_NSA_GATES_H

#include "cuda/kernels/row_chunk.h"
#include "cuda/kernels/nsa_place.h"
#include "cuda/kernels/nsa_work.h"

/* This lane's columns of a branch's weights; zeroes where gates do not come from weights. */
SAC_FN chunk gate_weights(const sac_nsa_args *args, int32_t h, int32_t c) {
#if GATE == SAC_NSA_GATE_WEIGHTS
    const element *w = (const element *)args->w_gate + ((int64_t)h * 3 + c) * HEAD_DIM;
    if (chunk_column() < HEAD_DIM) return chunk_load(w + chunk_column());
#endif
    return chunk_zero();
}

/* This lane's columns of a row; zeroes of one that no sequence uses. It is loaded nevertheless: a load behind a branch
 * waits alone. */
SAC_FN chunk chunk_of(const sac_view *view, nsa_place p, int32_t h, int32_t dim) {
    chunk c =
        chunk_column() < dim ? chunk_load(view_row(view, p.b, h, p.row) + chunk_column()) : chunk_zero();
#pragma unroll
    for (int i = 0; i < CHUNK; i++) c.x[i] = p.used ? c.x[i] : 0;
    return c;
}

/* The gate of branch c. All lanes of the warp take part. */
SAC_FN float gate_of(const sac_nsa_args *args, const chunk *w, const chunk *q, nsa_place p, int32_t h,
                     int c) {
#if GATE == SAC_NSA_GATE_WEIGHTS
    return ptx_reciprocal(1 + ptx_exp2(-LOG2_E * row_dot(q, w)));
#elif GATE == SAC_NSA_GATE_GIVEN
    return p.used ? element_load(view_row(&args->gates, p.b, h, p.row) + c) : 0;
#else
    return 1.0f / 3;
#endif
}

/* Queries are looked at only for the sake of w_gate. */
SAC_FN chunk gate_query(const sac_nsa_args *args, nsa_place p, int32_t h) {
    return GATE == SAC_NSA_GATE_WEIGHTS ? chunk_of(&args->q, p, h, HEAD_DIM) : chunk_zero();
}

#endif
