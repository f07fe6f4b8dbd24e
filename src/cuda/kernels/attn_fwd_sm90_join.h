/* attn_fwd_sm90_join.h - out as the weighted sum of what this call gives and what calls with the same queries gave
 * before it: theirs are read, and the sum stored, where this call's alone would be.
 */
#ifndef SAC_ATTN_FWD_SM90_JOIN_H
#define SAC_ATTN_FWD_SM90_JOIN_H

#include "cuda/kernels/attn_fwd_sm90_tile.h"
#include "cuda/kernels/attn_sm90_store.h"
#include "cuda/kernels/ptx/mma.h"

#if JOINED
static_assert(!PACK && JOINED <= 8, "weights are the columns of one product, of one head");
enum {
    OTHERS = JOINED - 1,
    CHUNKS = (HEAD_DIM_V / 8 + 3) / 4
}; /* of 16 bytes, that a thread stores of a row */

SAC_FN const uint16_t *row_of_view(const consumer *c, const sac_view *view, int32_t row) {
    return (const uint16_t *)view->data + batch_of(&c->args->len_q, c->q->batch) * view->batch_stride +
           c->q->head * view->head_stride + (c->q->q_row + (int64_t)row) * view->row_stride;
}

/* Two neighbours of a row, zeros of none and behind its end. */
SAC_FN uint32_t pair_of(const uint16_t *row, int column) {
    return row && column < HEAD_DIM ? *(const uint32_t *)(row + column) : 0;
}

/* The products of this warp's queries with the weights' rows of their head: product[2 r + i] is of the thread's r-th row
 * and call first_column + i. */
SAC_FN void multiply_weights(const consumer *c, const uint16_t *const query[2], float product[4]) {
    const int call = lane_id() / 4; /* whose row is this lane's part of the operand */
    const uint16_t *weights =
        (const uint16_t *)c->params->join.weights.of_query + ((int64_t)c->q->head * JOINED + call) * HEAD_DIM;
    if (call >= JOINED) weights = 0;
#pragma unroll
    for (int i = 0; i < (HEAD_DIM + 15) / 16; i++) {
        const int column = 16 * i + first_column();
        const uint32_t q[4] = {pair_of(query[0], column), pair_of(query[1], column),
                               pair_of(query[0], column + 8), pair_of(query[1], column + 8)};
        const uint32_t w[2] = {pair_of(weights, column), pair_of(weights, column + 8)};
        mma_warp(product, q, w);
    }
}

/* Weights of this thread's rows, numbered like products; 0 of those that are not used, whatever they hold. */
SAC_FN void find_weights(const consumer *c, int32_t row_shift, float weight[4]) {
    const sac_sum_weights *weights = &c->params->join.weights;
    const int32_t used = used_rows(c->args, c->q), first = query_at(c->q, thread_row()) + row_shift;
    const uint16_t *query[2];
#pragma unroll
    for (int r = 0; r < 2; r++)
        query[r] = first + 8 * r < used ? row_of_view(c, &c->args->q, first + 8 * r) : 0;
#pragma unroll
    for (int i = 0; i < 4; i++) weight[i] = 0;
    if (weights->of_query) multiply_weights(c, query, weight);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int32_t row = first + ROW_OF(i), call = first_column() + i % 2;
        float given = 1.0f / JOINED;
        if (row >= used || call >= JOINED)
            given = 0;
        else if (weights->given.data)
            given = unpack(row_of_view(c, &weights->given, row)[call]).x;
        weight[i] =
            row < used && weights->of_query ? ptx_reciprocal(1 + ptx_exp2(-LOG2_E * weight[i])) : given;
    }
}

/* The weight of one call for the r-th row. */
SAC_FN float weight_of(const float weight[4], int r, int call) {
    return __shfl_sync(~0u, weight[2 * r + call % 2], (lane_id() & ~3) | call / 2);
}

SAC_FN void add_weighted(float sum[8], float weight, const uint32_t w[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 pair = unpack(w[i]);
        sum[2 * i] = fmaf(weight, pair.x, sum[2 * i]);
        sum[2 * i + 1] = fmaf(weight, pair.y, sum[2 * i + 1]);
    }
}

/* Chunks of the other calls' outputs that this thread stores the sum of: all are asked for before any is used. */
SAC_FN void load_others(const consumer *c, int32_t row, uint32_t other[OTHERS][CHUNKS][4]) {
#pragma unroll
    for (int call = 0; call < OTHERS; call++) {
        const uint16_t *from = row_of_view(c, &c->params->join.others[call], row);
#pragma unroll
        for (int j = 0; j < CHUNKS; j++) {
            const int chunk = 4 * j + lane_id() % 4;
            uint4 w = make_uint4(0, 0, 0, 0);
            if (row < c->q->end && chunk < HEAD_DIM_V / 8) w = *(const uint4 *)(from + 8 * chunk);
            other[call][j][0] = w.x, other[call][j][1] = w.y;
            other[call][j][2] = w.z, other[call][j][3] = w.w;
        }
    }
}

/* The r-th row: this call's output, rounded as it would be stored, and stored where it is kept; then the sum. */
SAC_FN void store_joined_row(const consumer *c, int r, float factor, const float weight[4], int32_t row) {
    const sac_view *own = &c->params->join.own;
    uint32_t other[OTHERS][CHUNKS][4];
    load_others(c, row, other);
    float of_call[JOINED];
#pragma unroll
    for (int call = 0; call < JOINED; call++) of_call[call] = weight_of(weight, r, call);
#pragma unroll
    for (int j = 0; j < CHUNKS; j++) {
        const int chunk = 4 * j + lane_id() % 4, there = row < c->q->end && chunk < HEAD_DIM_V / 8;
        uint32_t w[4];
        pack_chunk(w, c->out, HEAD_DIM_V, 4 * j, r, factor);
        if (own->data)
            ptx_st_global_u32x4_if(there, (uint16_t *)row_of_view(c, own, row) + 8 * chunk, w[0], w[1], w[2],
                                   w[3]);
        float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
        for (int call = 0; call < OTHERS; call++) add_weighted(sum, of_call[call], other[call][j]);
        add_weighted(sum, of_call[OTHERS], w);
        ptx_st_global_u32x4_if(there, (uint16_t *)row_of_view(c, &c->args->out, row) + 8 * chunk,
                               pack(sum[0], sum[1]), pack(sum[2], sum[3]), pack(sum[4], sum[5]),
                               pack(sum[6], sum[7]));
    }
}

SAC_FN void store_joined(const consumer *c, const float factor[2], int32_t row_shift) {
    float weight[4];
    find_weights(c, row_shift, weight);
#pragma unroll
    for (int r = 0; r < 2; r++)
        store_joined_row(c, r, factor[r], weight, query_at(c->q, thread_row() + 8 * r) + row_shift);
}
#endif

#endif
