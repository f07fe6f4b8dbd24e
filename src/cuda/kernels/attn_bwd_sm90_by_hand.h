/* attn_bwd_sm90_by_hand.h - a product of the backward pass without the tensor cores, which would carry NaN to rows
 * that have no part in it: a hidden pair has weight 0, but 0 times NaN is NaN. Slow, and only run where something is
 * not finite. */
#ifndef SAC_ATTN_BWD_SM90_BY_HAND_H
#define SAC_ATTN_BWD_SM90_BY_HAND_H

#include "cuda/kernels/attn_sm90.h"

/* Is one of a thread's numbers, or packed pairs, not finite? 0 times it is NaN then, else 0. */
SAC_FN int has_unfinite(const float *x, int count) {
    float sum[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < count; i += 2) {
        sum[0] = fmaf(x[i], 0, sum[0]);
        sum[1] = fmaf(x[i + 1], 0, sum[1]);
    }
    return sum[0] + sum[1] != 0;
}
SAC_FN int has_unfinite_words(const uint32_t *x, int count) {
    uint32_t sum[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < count; i += 2) {
        sum[0] = fma_pair(x[i], 0, sum[0]);
        sum[1] = fma_pair(x[i + 1], 0, sum[1]);
    }
    return (sum[0] | sum[1]) != 0;
}

/* Of two packed numbers, those whose weight is not 0. Said without branches: with them every tile copies its
 * operand. */
SAC_FN uint32_t without_weightless(uint32_t both, uint32_t weights) { return both & nonzero_pair(weights); }

/* Of weights packed as an operand, 4 words for each 16 columns: those of the thread's two rows at a column, which
 * some lane of its quad holds. */
SAC_FN float2 weights_at(const uint32_t *words, int columns, int column) {
    uint32_t both[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < columns / 4; i++) both[i % 2] = column / 8 == i / 2 ? words[i] : both[i % 2];
#pragma unroll
    for (int r = 0; r < 2; r++) both[r] = __shfl_sync(~0u, both[r], (lane_id() & ~3) | column % 8 / 2);
    const float2 first = unpack(both[0]), second = unpack(both[1]);
    return column % 2 ? make_float2(first.y, second.y) : make_float2(first.x, second.x);
}

/* sums += weights rows, but for weights of 0; rows: as many in shared memory as the weights have columns. */
SAC_FN void add_by_hand(float *sums, int sum_columns, const uint32_t *words, const uint8_t *rows,
                        int num_rows) {
    const int own = lane_id() % 4 * 4; /* bytes: two columns of each eight */
#pragma unroll 1
    for (int row = 0; row < num_rows; row++) {
        const float2 w = weights_at(words, num_rows, row);
#pragma unroll
        for (int j = 0; j < sum_columns / 8; j++) {
            const uint8_t *chunk = rows + (j / 8 * num_rows + row) * ROW_BYTES + (j ^ row) % 8 * 16;
            const float2 x = unpack(*(const uint32_t *)(chunk + own));
            if (w.x != 0) sums[4 * j] += w.x * x.x, sums[4 * j + 1] += w.x * x.y;
            if (w.y != 0) sums[4 * j + 2] += w.y * x.x, sums[4 * j + 3] += w.y * x.y;
        }
    }
}

#endif
