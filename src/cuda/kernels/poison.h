/* poison.h - NaN and Inf stay where they are seen.
 *
 * A hidden pair has weight 0, and 0 * NaN is NaN: in a masked tile the tensor core would carry what lies in one row
 * to others that do not see it. Where a factor is poisoned, either the product leaves out what has weight 0
 * (gemm_weighted), or the poison goes ahead of the product to the rows that see it (add_poison) and zeros take its
 * place (tile_make_finite). Both are slow, and nothing but poisoned inputs comes here. What later tokens hold must
 * not change a bit of earlier outputs: out and dQ keep the arithmetic of clean inputs.
 */
#ifndef SAC_KERNELS_POISON_H
#define SAC_KERNELS_POISON_H

#include "cuda/kernels/tile.h"

/* acc += A B with A (rows, k) and B (k, columns) in shared memory, each at the warp's first row or column. */
template <operand_layout A, int A_PITCH, int B_PITCH, int K, int MT, int NT>
SAC_FN void gemm_weighted(float (&acc)[MT][NT][4], ptx_smem a, ptx_smem b) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 1
    for (int k = 0; k < K; k++) {
        float weight[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = 16 * m + 8 * half + g, at = A == K_INNER ? row * A_PITCH + k : k * A_PITCH + row;
                weight[m][half] = element_load_shared(a + at * sizeof(element));
            }
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const float2 y =
                pair_floats(pair_load_shared(b + (k * B_PITCH + 8 * n + 2 * t) * sizeof(element)));
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float w = weight[m][e / 2], sum = acc[m][n][e] + w * (e % 2 ? y.y : y.x);
                    acc[m][n][e] = w == 0 ? acc[m][n][e] : sum;
                }
        }
    }
}

/* What is NaN or Inf in B (keys, columns) is added to the rows of acc that see it: those whose score is not -inf. To
 * the others -0 is, which changes no bit. */
template <int B_PITCH, int MT, int NT, int ST>
SAC_FN void add_poison(float (&acc)[MT][NT][4], const float (&score)[MT][ST][4], ptx_smem b) {
    static_assert(2 * ST <= 32, "a bit for each of a lane's columns");
    uint32_t sees[MT][2] = {};
#pragma unroll
    for (int n = 0; n < ST; n++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sees[m][e / 2] |= (uint32_t)(score[m][n][e] != -INFINITE) << (2 * n + e % 2);
#pragma unroll 1
    for (int k = 0; k < 8 * ST; k++) {
        const int owner = threadIdx.x % 32 / 4 * 4 + k % 8 / 2, bit = k / 8 * 2 + k % 2;
        bool seen[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                seen[m][half] = __shfl_sync(0xffffffff, sees[m][half], owner) >> bit & 1;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const float2 y = pair_floats(
                pair_load_shared(b + (k * B_PITCH + 8 * n + threadIdx.x % 4 * 2) * sizeof(element)));
            const float poison[2] = {fabsf(y.x) < INFINITE ? -0.0f : y.x,
                                     fabsf(y.y) < INFINITE ? -0.0f : y.y};
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int e = 0; e < 4; e++) acc[m][n][e] += seen[m][e / 2] ? poison[e % 2] : -0.0f;
        }
    }
}

/* Zeros in the place of NaN and Inf, by the whole CTA. What is finite is then multiplied as if nothing else had been
 * there: to a row that sees nothing poisoned, not a bit changes. */
template <int ROWS, int COLUMNS> SAC_FN void tile_make_finite(ptx_smem tile) {
    for (int i = 2 * threadIdx.x; i < ROWS * COLUMNS; i += 2 * NUM_THREADS) {
        const ptx_smem at = tile + (i / COLUMNS * pitch_of(COLUMNS) + i % COLUMNS) * sizeof(element);
        pair_store_shared(at, pair_finite(pair_load_shared(at)));
    }
}

/* x * 0 is NaN for NaN and Inf alone. */
template <int MT, int NT> SAC_FN bool acc_not_finite(const float (&acc)[MT][NT][4]) {
    float probe = 0;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) probe += acc[m][n][e] * 0;
    return probe != 0;
}

#endif
