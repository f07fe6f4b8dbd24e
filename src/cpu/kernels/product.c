/* product.c - what the plain product must not be trusted with. */
#include "cpu/kernels/product.h"

static float half_of(float word, int which) {
    uint32_t bits;
    memcpy(&bits, &word, sizeof bits);
    bits = which ? bits & 0xffff0000 : bits << 16;
    memcpy(&word, &bits, sizeof bits);
    return word;
}

/* Fused where the vectors' multiply-add is: what nobody sees must not move a result by a bit, NaN or not. */
static float add_unless_zero(float sum, float coefficient, float a, float b) {
    if (coefficient == 0) return sum;
#ifdef __FMA__
    return __builtin_fmaf(a, b, sum);
#else
    return sum + a * b;
#endif
}

/* Words of 16-bit tensors need not be aligned. */
static float word_of_a(const gemm *g, int m, int k) {
    float word;
    memcpy(&word, (const char *)g->a + (g->a_transposed ? k * g->lda + 4 * m : m * g->lda + 4 * k),
           sizeof word);
    return word;
}

static void product_skipping_zeros(const gemm *g, sac_zeros zeros) {
    const bool in_a = zeros == SAC_ZEROS_IN_A;
    for (int m = 0; m < g->m; m++)
        for (int n = 0; n < g->n; n++) {
            float sum = g->accumulate ? g->c[m * g->ldc + n] : 0;
            for (int k = 0; k < g->k; k++) {
                const float a = word_of_a(g, m, k), b = g->b[k * g->ldb + n];
                if (!g->pairs) sum = add_unless_zero(sum, in_a ? a : b, a, b);
                for (int half = 0; g->pairs && half < 2; half++)
                    sum =
                        add_unless_zero(sum, half_of(in_a ? a : b, half), half_of(a, half), half_of(b, half));
            }
            g->c[m * g->ldc + n] = sum;
        }
}

static bool other_side_finite(const gemm *g, sac_zeros zeros) {
    if (zeros == SAC_ZEROS_IN_A) return sac_panel_finite(&(panel){g->b, 4 * g->ldb}, g->pairs, g->k, g->n);
    const panel a = {g->a, g->lda};
    return g->a_transposed ? sac_panel_finite(&a, g->pairs, g->k, g->m)
                           : sac_panel_finite(&a, g->pairs, g->m, g->k);
}

bool sac_hides_pairs(const q_tile *t, const sac_tile *tile) {
    return tile->banded || tile->bits != SAC_ALL_PARTS || (tile->kind == SAC_PARTIAL && t->call->mask_mod);
}

void sac_product(const q_tile *t, const sac_tile *tile, sac_zeros zeros, const gemm *g) {
    if (sac_hides_pairs(t, tile) && !other_side_finite(g, zeros))
        product_skipping_zeros(g, zeros);
    else
        sac_gemm(g);
}

void sac_diagonal_products(const q_tile *t, const sac_tile *tile, const float *rows_t, const sac_view *view,
                           int dim, float *products, float *room) {
    const tile_scratch *s = &t->scratch;
    const int words = t->pairs ? dim / 2 : dim;
    for (int lane = 0; lane < t->lanes; lane++) {
        const int32_t j = s->query[lane] + tile->delta;
        s->visible[lane] = lane < t->rows && j >= tile->begin && j < tile->end;
    }
    for (int first = 0; first < t->lanes; first += LANES) {
        sac_tile_gather_keys(t, room, view, dim, first, tile->delta, s->visible, false);
        vec sum = vset(0.f);
        for (int w = 0; w < words; w++)
            sum = vmultiply_add(t->pairs, sum, vload(rows_t + w * Q_TILE + first), vload(room + w * LANES));
        vstore(products + first, sum);
    }
}
