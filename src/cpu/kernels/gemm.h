/* gemm.h - the one product that attention is made of, forward and backward, in every precision.
 *
 *     c[m][n] = (or +=) sum over k of a(m, k) b[k][n]
 *
 * n runs over vector lanes; a is broadcast element by element, so that its rows are read where they lie, whatever
 * their stride. k counts words of 32 bits: one fp32 value, or, with `pairs`, two neighbouring bf16 values whose
 * products are summed (vdpbf16ps). Pairing changes nothing else: the same loops serve both.
 */
#ifndef SAC_CPU_KERNELS_GEMM_H
#define SAC_CPU_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "cpu/kernels/isa.h"

typedef struct gemm {
    float *c;
    ptrdiff_t ldc; /* words from row to row */
    const void *a;
    ptrdiff_t lda; /* bytes from row to row: of a[m][k], or, transposed, of a[k][m] */
    const float *b;
    ptrdiff_t ldb;
    int m, n, k; /* n: a multiple of LANES */
    bool a_transposed, pairs, accumulate;
} gemm;

#define sac_gemm SAC_FOR_ISA(sac_gemm)
void sac_gemm(const gemm *g);

/* What it is made of: vectors for everything, and tiles for pairs where there are tiles. */
#define sac_gemm_vectors SAC_FOR_ISA(sac_gemm_vectors)
#define sac_gemm_tiles SAC_FOR_ISA(sac_gemm_tiles)
void sac_gemm_vectors(const gemm *g);
void sac_gemm_tiles(const gemm *g);

#endif
