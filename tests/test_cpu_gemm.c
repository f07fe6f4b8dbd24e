/* test_cpu_gemm.c - the product that the CPU kernels are made of, on every instruction set of this machine, against
 * the loops that define it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAC_ISA generic /* the struct is the same for all */
#include "cpu/kernels.h"
#include "cpu/kernels/gemm.h"
#include "support/cmocka_all.h"
#include "support/random.h"

enum { MAX_WORDS = 160 * 100, SEED = 7 };

static float half(float word, int which) {
    uint32_t bits;
    memcpy(&bits, &word, sizeof bits);
    bits = which ? bits & 0xffff0000 : bits << 16;
    memcpy(&word, &bits, sizeof bits);
    return word;
}

static double expected(const gemm *g, const float *c, int m, int n) {
    double sum = g->accumulate ? c[m * g->ldc + n] : 0;
    for (int k = 0; k < g->k; k++) {
        float a, b = g->b[k * g->ldb + n];
        memcpy(&a, (const char *)g->a + (g->a_transposed ? k * g->lda + 4 * m : m * g->lda + 4 * k),
               sizeof a);
        if (g->pairs)
            sum += (double)half(a, 0) * half(b, 0) + (double)half(a, 1) * half(b, 1);
        else
            sum += (double)a * b;
    }
    return sum;
}

/* Small integers: every sum is exact, whatever its order, also in pairs of bf16. */
static void fill(float *words, bool pairs, test_random *random) {
    for (int i = 0; i < MAX_WORDS; i++) {
        float low = (float)random_below(random, 17) - 8, high = (float)random_below(random, 17) - 8;
        uint32_t bits[2];
        memcpy(&bits[0], &low, 4);
        memcpy(&bits[1], &high, 4);
        if (pairs) bits[0] = bits[0] >> 16 | bits[1];
        memcpy(&words[i], &bits[0], 4);
    }
}

static void check(sac_isa isa, int m, int n, int k, int variant) {
    static float a[MAX_WORDS], b[MAX_WORDS], c[MAX_WORDS], before[MAX_WORDS];
    const bool pairs = variant & 4, transposed = variant & 1;
    test_random random = {SEED};
    fill(a, pairs, &random);
    fill(b, pairs, &random);
    fill(before, false, &random);
    memcpy(c, before, sizeof c);
    const gemm g = {.c = c,
                    .ldc = n + 3,
                    .a = a,
                    .lda = 4 * 90 + (pairs && !transposed ? 2 : 0),
                    .b = b,
                    .ldb = n + 1,
                    .m = m,
                    .n = n,
                    .k = k,
                    .a_transposed = transposed,
                    .accumulate = variant & 2,
                    .pairs = pairs};
    sac_cpu_kernels_of(isa)->multiply(&g);
    for (int i = 0; i < MAX_WORDS; i++) {
        const int row = i / (n + 3), column = i % (n + 3);
        const double want = row < m && column < n ? expected(&g, before, row, column) : before[i];
        if (c[i] != want)
            fail_msg("%s, seed %d: m %d, n %d, k %d, transposed %d, accumulate %d, pairs %d: c[%d][%d] is "
                     "%g, not %g",
                     sac_isa_name(isa), SEED, m, n, k, g.a_transposed, g.accumulate, pairs, row, column, c[i],
                     want);
    }
}

static void product_is_the_sum_that_defines_it(void **state) {
    (void)state;
    static const int rows[] = {1, 2, 3, 7, 8, 13, 29, 77}, depths[] = {0, 1, 2, 5, 21, 64, 150};
    for (sac_isa isa = SAC_ISA_GENERIC; isa < SAC_NUM_ISAS; isa++) {
        const bool usable = sac_isa_usable(isa);
        print_message("%s: %s\n", sac_isa_name(isa), usable ? "tested" : "not on this machine");
        if (!usable) continue;
        const sac_cpu_kernels *kernels = sac_cpu_kernels_of(isa);
        for (int variant = 0; variant < (kernels->has_pairs ? 8 : 4); variant++)
            for (size_t m = 0; m < sizeof rows / sizeof *rows; m++)
                for (size_t k = 0; k < sizeof depths / sizeof *depths; k++)
                    for (int n = 0; n <= 96; n += kernels->lanes) check(isa, rows[m], n, depths[k], variant);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(product_is_the_sum_that_defines_it)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
