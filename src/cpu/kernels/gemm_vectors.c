/* gemm_vectors.c - register-blocked micro-kernels: BLOCK_ROWS x 3 vectors of c stay in registers through the whole of
 * k.
 *
 * Per word of k a block loads 3 vectors of b and broadcasts BLOCK_ROWS words of a, for 3 * BLOCK_ROWS FMAs: loads are
 * well below the two a cycle that a core can do. 8 x 3 fills 28 of the 32 registers of AVX-512, 4 x 3 all 16 of AVX2.
 */
#include "cpu/kernels/gemm.h"

#include "cpu/kernels/simd.h"

enum { BLOCK_ROWS = LANES == 16 ? 8 : 4, BLOCK_VECS = 3 };

/* One block of c. Everything but k and the pointers is a constant after inlining. */
INLINE void block(const gemm *g, float *c, const char *a, const float *b, const int rows, const int vecs,
                  const bool transposed, const bool pairs) {
    const ptrdiff_t lda = g->lda, ldb = g->ldb, ldc = g->ldc;
    const ptrdiff_t a_row = transposed ? 4 : lda, a_step = transposed ? lda : 4;
    vec sum[BLOCK_ROWS][BLOCK_VECS];
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int j = 0; j < vecs; j++) {
            sum[i][j] = g->accumulate ? vload(c + i * ldc + j * LANES) : vset(0.f);
        }
    }
    for (int k = g->k; k > 0; k--, a += a_step, b += ldb) {
        vec column[BLOCK_VECS];
        UNROLL for (int j = 0; j < vecs; j++) column[j] = vload(b + j * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            float word;
            memcpy(&word, a + i * a_row, sizeof word);
            const vec broadcast = vset(word);
            UNROLL for (int j = 0; j < vecs; j++) {
                sum[i][j] = vmultiply_add(pairs, sum[i][j], broadcast, column[j]);
            }
        }
    }
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int j = 0; j < vecs; j++) vstore(c + i * ldc + j * LANES, sum[i][j]);
    }
}

/* All rows of c, `vecs` vectors wide from column n on. */
INLINE void column_block(const gemm *g, int n, const int vecs, const bool transposed, const bool pairs) {
    const char *a = g->a;
    const ptrdiff_t a_row = transposed ? 4 : g->lda;
    const float *b = g->b + n;
    float *c = g->c + n;
    int m = 0;
    for (; m + BLOCK_ROWS <= g->m; m += BLOCK_ROWS)
        block(g, c + m * g->ldc, a + m * a_row, b, BLOCK_ROWS, vecs, transposed, pairs);
#if defined(__AVX512F__)
    if (m + 4 <= g->m) {
        block(g, c + m * g->ldc, a + m * a_row, b, 4, vecs, transposed, pairs);
        m += 4;
    }
#endif
    if (m + 2 <= g->m) {
        block(g, c + m * g->ldc, a + m * a_row, b, 2, vecs, transposed, pairs);
        m += 2;
    }
    if (m < g->m) block(g, c + m * g->ldc, a + m * a_row, b, 1, vecs, transposed, pairs);
}

/* Columns in threes; four that are left go as two and two, since a lone vector would wait for its sums. */
INLINE void all_columns(const gemm *g, const bool transposed, const bool pairs) {
    int n = 0, left = g->n / LANES;
    while (left > 0) {
        int vecs = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;
        if (vecs == 3)
            column_block(g, n, 3, transposed, pairs);
        else if (vecs == 2)
            column_block(g, n, 2, transposed, pairs);
        else
            column_block(g, n, 1, transposed, pairs);
        n += vecs * LANES;
        left -= vecs;
    }
}

static void gemm_plain(const gemm *g) { all_columns(g, false, false); }
static void gemm_transposed(const gemm *g) { all_columns(g, true, false); }
static void gemm_plain_pairs(const gemm *g) { all_columns(g, false, true); }
static void gemm_transposed_pairs(const gemm *g) { all_columns(g, true, true); }

void sac_gemm_vectors(const gemm *g) {
    if (g->pairs)
        (g->a_transposed ? gemm_transposed_pairs : gemm_plain_pairs)(g);
    else
        (g->a_transposed ? gemm_transposed : gemm_plain)(g);
}
