/* poison.h - products that keep NaN and Inf where they are seen.
 *
 * A hidden pair has weight 0, and 0 * NaN is NaN: in a masked tile the tensor core would carry what lies in one row to
 * others that do not see it. Where a factor is poisoned, these products take its place: one step of the reduction after
 * the other, without those whose weight is 0. They are slow, and nothing but poisoned inputs comes here.
 * What later tokens hold must not change a bit of earlier outputs: out and dQ keep the arithmetic of clean inputs.
 */
#ifndef SAC_KERNELS_POISON_H
#define SAC_KERNELS_POISON_H

#include "cuda/kernels/tile.h"

/* acc += a b for one step of the reduction. a: of this lane's rows; b: this lane's columns of the step's row of B.
 * POISON: only what is NaN or Inf there. */
template <bool POISON, int MT, int NT>
SAC_FN void add_weighted(float (&acc)[MT][NT][4], const float (&a)[MT][2], ptx_smem b) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const pair p = pair_load_shared(b + 8 * n * sizeof(element));
        const float2 y = pair_floats(p), finite = pair_floats(pair_finite(p));
        const bool adds_x = !POISON || y.x != finite.x, adds_y = !POISON || y.y != finite.y;
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (a[m][half] == 0) continue;
                if (adds_x) acc[m][n][2 * half] += a[m][half] * y.x;
                if (adds_y) acc[m][n][2 * half + 1] += a[m][half] * y.y;
            }
    }
}

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
        add_weighted<false>(acc, weight, b + (k * B_PITCH + 2 * t) * sizeof(element));
    }
}

/* The same with A in registers, as the accumulator of an earlier product. What is finite is multiplied as by
 * gemm_from_acc: to a row that sees nothing poisoned, not a bit changes. lane: as there. */
template <int B_PITCH, int MT, int NT, int PT>
SAC_FN void gemm_weighted_from_acc(float (&acc)[MT][NT][4], const float (&p)[MT][PT][4], ptx_smem b,
                                   ptx_smem lane) {
    gemm_from_acc<K_OUTER, B_PITCH, PT / 2, true>(acc, p, lane);
    float all[PT][2][MT][2]; /* in local memory, since the loop below is not unrolled */
#pragma unroll
    for (int n = 0; n < PT; n++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) all[n][e % 2][m][e / 2] = p[m][n][e];
#pragma unroll 1
    for (int k = 0; k < 8 * PT; k++) {
        const int owner = threadIdx.x % 32 / 4 * 4 + k % 8 / 2;
        float weight[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                weight[m][half] = __shfl_sync(0xffffffff, all[k / 8][k % 2][m][half], owner);
        add_weighted<true>(acc, weight, b + (k * B_PITCH + threadIdx.x % 4 * 2) * sizeof(element));
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
