/* gemm_tiles.c - products of bf16 pairs on AMX tiles: 16 x 16 fp32 sums, 16 words deep.
 *
 * Four tiles hold sums, two by two, two hold blocks of a, two of b: each block that is loaded serves two products, and
 * four independent sums hide the latency of one. The layouts are those of the vector kernels: rows of b are words as
 * TDPBF16PS wants them, and rows of a are used where they lie; only a transposed a is turned, 32 rows at a time. Rows
 * and words beyond multiples of 16 are left to the vectors.
 */
#include "cpu/kernels/gemm.h"

#if defined(__AMX_BF16__)

#include <immintrin.h>
#include <stdatomic.h>

#include "cpu/kernels/panel.h"

enum { SIDE = 16, WORD = 4, DEPTH = 128, PANEL_ROW = DEPTH + SIDE };

/* The intrinsics paste the numbers of tiles into names of registers: sums 0 to 3 of row r and column c are 2 r + c. */
#define A_0 4
#define A_1 5
#define B_0 6
#define B_1 7

/* Palette 1: eight tiles of 16 rows of 64 bytes. Constant, since the compiler knows of no more than the first bytes
 * that they are read, and would leave the rest of a variable unwritten. */
void sac_tiles_configure(void) {
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1,
                .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
}

void sac_tiles_release(void) { _tile_release(); }

/* The compiler does not know that tile loads read memory. */
static void stores_come_first(void) { atomic_signal_fence(memory_order_seq_cst); }

/* Rows m .. m + 2 * SIDE (or SIDE) of a transposed a, over words [first, first + depth), as rows:
 * rows_of_a[row][word]. */
static void turn(const gemm *g, int m, int rows, int first, int depth, float rows_of_a[]) {
    for (int i = 0; i < rows; i += SIDE)
        sac_transpose_out(rows_of_a + i * PANEL_ROW, PANEL_ROW,
                          (const float *)g->a + first * (g->lda / WORD) + m + i, g->lda / WORD, depth);
    stores_come_first();
}

/* The same of an a whose rows lie as they should, but not on cache lines: a tile that is loaded across them takes seven
 * times as long. */
static void copy_rows(const gemm *g, int m, int rows, int first, int depth, float rows_of_a[]) {
    for (int i = 0; i < rows; i++)
        memcpy(rows_of_a + i * PANEL_ROW, (const char *)g->a + (m + i) * g->lda + WORD * first,
               (size_t)depth * WORD);
    stores_come_first();
}

/* SIDE rows of c, or twice as many, by SIDE columns, or twice as many. a: its first row, `a_bytes` from row to row. */
INLINE void block(const gemm *g, float *c, const char *a, ptrdiff_t a_bytes, const float *b, int depth,
                  bool accumulate, const bool two_rows, const bool two_columns) {
    const ptrdiff_t c_bytes = WORD * g->ldc, b_bytes = WORD * g->ldb;
    float *below = c + SIDE * g->ldc;
    if (accumulate) {
        _tile_loadd(0, c, c_bytes);
        if (two_columns) _tile_loadd(1, c + SIDE, c_bytes);
        if (two_rows) _tile_loadd(2, below, c_bytes);
        if (two_rows && two_columns) _tile_loadd(3, below + SIDE, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
#pragma GCC unroll 1 /* the products hide the loop; unrolled, its addresses would fill all registers */
    for (int k = 0; k < depth; k += SIDE, a += SIDE * WORD, b += SIDE * g->ldb) {
        _tile_loadd(A_0, a, a_bytes);
        _tile_loadd(B_0, b, b_bytes);
        _tile_dpbf16ps(0, A_0, B_0);
        if (two_columns) {
            _tile_loadd(B_1, b + SIDE, b_bytes);
            _tile_dpbf16ps(1, A_0, B_1);
        }
        if (two_rows) {
            _tile_loadd(A_1, a + SIDE * a_bytes, a_bytes);
            _tile_dpbf16ps(2, A_1, B_0);
            if (two_columns) _tile_dpbf16ps(3, A_1, B_1);
        }
    }
    _tile_stored(0, c, c_bytes);
    if (two_columns) _tile_stored(1, c + SIDE, c_bytes);
    if (two_rows) _tile_stored(2, below, c_bytes);
    if (two_rows && two_columns) _tile_stored(3, below + SIDE, c_bytes);
}

/* All columns of one or two times SIDE rows. */
INLINE void row_block(const gemm *g, float *c, const char *a, ptrdiff_t a_bytes, const float *b, int depth,
                      bool accumulate, const bool two_rows) {
    int n = 0;
    for (; n + 2 * SIDE <= g->n; n += 2 * SIDE)
        block(g, c + n, a, a_bytes, b + n, depth, accumulate, two_rows, true);
    if (n < g->n) block(g, c + n, a, a_bytes, b + n, depth, accumulate, two_rows, false);
}

/* The first `rows` rows of c, over words [first, first + depth) alone. */
static void add_words(const gemm *g, int rows, int first, int depth) {
    float rows_of_a[2 * SIDE * PANEL_ROW] __attribute__((aligned(64)));
    const float *b = g->b + first * g->ldb;
    const bool accumulate = g->accumulate || first > 0;
    for (int m = 0; m < rows; m += 2 * SIDE) {
        const bool two_rows = rows - m > SIDE;
        const char *a = (const char *)g->a + m * g->lda + WORD * first;
        const bool in_place = !g->a_transposed && ((uintptr_t)a | (uintptr_t)g->lda) % (SIDE * WORD) == 0;
        const ptrdiff_t a_bytes = in_place ? g->lda : WORD * PANEL_ROW;
        if (!in_place) {
            (g->a_transposed ? turn : copy_rows)(g, m, two_rows ? 2 * SIDE : SIDE, first, depth, rows_of_a);
            a = (const char *)rows_of_a;
        }
        if (two_rows)
            row_block(g, g->c + m * g->ldc, a, a_bytes, b, depth, accumulate, true);
        else
            row_block(g, g->c + m * g->ldc, a, a_bytes, b, depth, accumulate, false);
    }
}

void sac_gemm_tiles(const gemm *g) {
    const int rows = g->m / SIDE * SIDE, depth = g->k / SIDE * SIDE;
    gemm rest = *g;
    if (rows > 0 && depth > 0) {
        stores_come_first();
        for (int first = 0; first < depth; first += DEPTH)
            add_words(g, rows, first, depth - first < DEPTH ? depth - first : DEPTH);
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
