/* gemm_tiles.c - products of bf16 pairs on AMX tiles: 16 x 16 fp32 sums, 16 words deep.
 *
 * Six tiles hold sums of 16 rows of c, one a block of a, one a block of b. The layouts are those of the vector
 * kernels: rows of b are words as TDPBF16PS wants them, and rows of a are used where they lie; only a transposed a
 * is turned, 16 x 16 words at a time, for six products each. Rows and words beyond multiples of 16 are left to the
 * vectors.
 */
#include "cpu/kernels/gemm.h"

#if defined(__AMX_BF16__)

#include <immintrin.h>
#include <stdatomic.h>

#include "cpu/kernels/simd.h"

enum { SIDE = 16, SUMS = 6, WORD = 4 };

/* The intrinsics paste the numbers of tiles into names of registers. */
#define A_TILE 6
#define B_TILE 7

#define EACH_SUM(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

/* Palette 1: eight tiles of 16 rows of 64 bytes. */
static void configure(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = SIDE * WORD;
        config.rows[i] = SIDE;
    }
    _tile_loadconfig(&config);
}

/* The compiler does not know that tile loads read memory. */
static void stores_come_first(void) { atomic_signal_fence(memory_order_seq_cst); }

/* a[k .. k + 16][m .. m + 16] turned: rows of m, words along k. */
static void turn(const gemm *g, int m, int k, float turned[SIDE * SIDE]) {
    vec r[LANES];
    const char *a = (const char *)g->a + k * g->lda + WORD * m;
    UNROLL for (int i = 0; i < LANES; i++) memcpy(&r[i], a + i * g->lda, sizeof r[i]);
    vtranspose(r);
    UNROLL for (int i = 0; i < LANES; i++) vstore(turned + i * SIDE, r[i]);
    stores_come_first();
}

/* 16 rows of c from m on, `sums` tiles wide from column n on, over the first `depth` words. */
static void block(const gemm *g, int m, int n, int sums, int depth) {
    float turned[SIDE * SIDE] __attribute__((aligned(64)));
    float *c = g->c + m * g->ldc + n;
    const char *a = (const char *)g->a + m * g->lda;
    const float *b = g->b + n;
    const ptrdiff_t c_bytes = WORD * g->ldc, b_bytes = WORD * g->ldb;
#define BEGIN_SUM(t)                                                                                         \
    if (t < sums) {                                                                                          \
        if (g->accumulate)                                                                                   \
            _tile_loadd(t, c + t * SIDE, c_bytes);                                                           \
        else                                                                                                 \
            _tile_zero(t);                                                                                   \
    }
#define ADD_PRODUCT(t)                                                                                       \
    if (t < sums) {                                                                                          \
        _tile_loadd(B_TILE, b + k * g->ldb + t * SIDE, b_bytes);                                             \
        _tile_dpbf16ps(t, A_TILE, B_TILE);                                                                   \
    }
#define END_SUM(t)                                                                                           \
    if (t < sums) _tile_stored(t, c + t * SIDE, c_bytes);
    EACH_SUM(BEGIN_SUM)
    for (int k = 0; k < depth; k += SIDE) {
        if (g->a_transposed) {
            turn(g, m, k, turned);
            _tile_loadd(A_TILE, turned, SIDE * WORD);
        } else {
            _tile_loadd(A_TILE, a + WORD * k, g->lda);
        }
        EACH_SUM(ADD_PRODUCT)
    }
    EACH_SUM(END_SUM)
}

void sac_gemm_tiles(const gemm *g) {
    const int rows = g->m / SIDE * SIDE, depth = g->k / SIDE * SIDE;
    gemm rest = *g;
    if (rows > 0 && depth > 0) {
        stores_come_first();
        configure();
        for (int m = 0; m < rows; m += SIDE)
            for (int n = 0; n < g->n; n += SUMS * SIDE) {
                const int left = (g->n - n) / SIDE;
                block(g, m, n, left < SUMS ? left : SUMS, depth);
            }
        _tile_release();
        stores_come_first();
        rest.m = rows;
        rest.k = g->k - depth;
        rest.a = (const char *)g->a + (g->a_transposed ? depth * g->lda : WORD * depth);
        rest.b = g->b + depth * g->ldb;
        rest.accumulate = true;
        if (rest.k > 0) sac_gemm_vectors(&rest);
        rest = *g;
        rest.m = g->m - rows;
        rest.a = (const char *)g->a + (g->a_transposed ? WORD * rows : rows * g->lda);
        rest.c = g->c + rows * g->ldc;
    }
    if (rest.m > 0) sac_gemm_vectors(&rest);
}

#endif
