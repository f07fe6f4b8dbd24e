/* gemm.c - which of the two computes a product: pairs go to the tiles of an instruction set that has them. */
#include "cpu/kernels/gemm.h"

void sac_gemm(const gemm *g) {
#if defined(__AMX_BF16__)
    if (g->pairs) {
        sac_gemm_tiles(g);
        return;
    }
#endif
    sac_gemm_vectors(g);
}

void sac_gemm_begin(void) {
#if defined(__AMX_BF16__)
    sac_tiles_configure();
#endif
}

void sac_gemm_end(void) {
#if defined(__AMX_BF16__)
    sac_tiles_release();
#endif
}
