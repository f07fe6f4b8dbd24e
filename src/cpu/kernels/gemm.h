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
    ptrdiff_t lda; /* bytes from row to row: of a[m][k], or, transposed, of a[k][m], then whole words */
    const float *b;
    ptrdiff_t ldb;
    int m, n, k; /* n: a multiple of LANES */
    bool a_transposed, pairs, accumulate;
} gemm;

#define sac_gemm SAC_FOR_ISA(sac_gemm)
#define sac_gemm_begin SAC_FOR_ISA(sac_gemm_begin)
#define sac_gemm_end SAC_FOR_ISA(sac_gemm_end)

/* Products come between a beginning and an end on the same thread. */
void sac_gemm_begin(void);
void sac_gemm(const gemm *g);
void sac_gemm_end(void);

/* What it is made of: vectors for everything, and tiles for pairs where there are tiles, which are to be configured
 * before and released afterwards. */
#define sac_gemm_vectors SAC_FOR_ISA(sac_gemm_vectors)
#define sac_gemm_tiles SAC_FOR_ISA(sac_gemm_tiles)
#define sac_tiles_configure SAC_FOR_ISA(sac_tiles_configure)
#define sac_tiles_release SAC_FOR_ISA(sac_tiles_release)
void sac_gemm_vectors(const gemm *g);
void sac_gemm_tiles(const gemm *g);
void sac_tiles_configure(void);
void sac_tiles_release(void);

#endif
