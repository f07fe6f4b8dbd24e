/* bench_gemm.c - the product that attention on the CPU is made of, on every instruction set of this machine, beside
 * libxsmm's (if it was found when this was built).
 *
 *     bench_gemm
 *
 * The products are those of one tile of 96 queries and 128 keys: scores = k q^T, out^T += v^T p, and dk += dscore^T
 * q, all operands in the cache, one thread, GFLOP/s of the fastest of several rounds in which the contenders take
 * turns, by the thread's own time. ratio: the best of ours to libxsmm. "-": libxsmm has no such product (it takes no
 * transposed left side in pairs of bf16). error: the largest difference of any of them from the sum in fp64, relative
 * to the largest element.
 *
 * It links the library's objects, not its interface, which has no product.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SAC_ISA generic /* the struct is the same for all */
#include "cpu/kernels.h"
#include "cpu/kernels/gemm.h"
#include "table.h"

#if SACCADE_BENCH_LIBXSMM
#include <libxsmm.h>
#endif

enum { QUERIES = SAC_CPU_Q_TILE, KEYS = 128, MAX_DIM = 128, ROUNDS = 7, CONTENDERS = SAC_NUM_ISAS + 1 };

typedef struct product {
    const char *name;
    int m, n, k; /* values, not words */
    bool a_transposed, accumulate;
} product;

static float a[KEYS * MAX_DIM], b[KEYS * MAX_DIM], c[KEYS * MAX_DIM];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Values in -1..1 that bf16 can hold; a pair holds two. */
static void fill(float *words, bool pairs, uint64_t state) {
    for (int i = 0; i < KEYS * MAX_DIM; i++) {
        uint32_t bits[2];
        for (int half = 0; half < 2; half++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            const float value = (float)((int32_t)(state >> 56) - 128) / 128;
            memcpy(&bits[half], &value, sizeof value);
        }
        if (pairs) bits[0] = bits[0] >> 16 | bits[1];
        memcpy(&words[i], &bits[0], sizeof *words);
    }
}

static double value_of(const float *words, int64_t index, bool pairs, int half) {
    uint32_t bits;
    float value;
    memcpy(&bits, &words[index], sizeof bits);
    if (pairs) bits = half ? bits & 0xffff0000 : bits << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static gemm arguments(const product *p, bool pairs) {
    const int depth = pairs ? p->k / 2 : p->k;
    return (gemm){.c = c,
                  .ldc = p->n,
                  .a = a,
                  .lda = (p->a_transposed ? p->m : depth) * (ptrdiff_t)sizeof(float),
                  .b = b,
                  .ldb = p->n,
                  .m = p->m,
                  .n = p->n,
                  .k = depth,
                  .a_transposed = p->a_transposed,
                  .pairs = pairs,
                  .accumulate = p->accumulate};
}

/* Of c after one product onto zeros. */
static double error_of(const gemm *g) {
    double largest = 0, error = 0;
    for (int m = 0; m < g->m; m++)
        for (int n = 0; n < g->n; n++) {
            double sum = 0;
            for (int k = 0; k < g->k; k++)
                for (int half = 0; half <= g->pairs; half++)
                    sum += value_of(a, g->a_transposed ? k * g->m + m : m * g->k + k, g->pairs, half) *
                           value_of(b, k * g->ldb + n, g->pairs, half);
            largest = fmax(largest, fabs(sum));
            error = fmax(error, fabs(sum - c[m * g->ldc + n]));
        }
    return error / largest;
}

/* One of the contenders; index SAC_NUM_ISAS is libxsmm. */
typedef struct contender {
    void (*multiply)(const gemm *g);
#if SACCADE_BENCH_LIBXSMM
    libxsmm_smmfunction fp32;
    libxsmm_bsmmfunction bf16;
#endif
} contender;

static void call(const contender *who, const gemm *g) {
    if (who->multiply) who->multiply(g);
#if SACCADE_BENCH_LIBXSMM
    else if (who->fp32)
        who->fp32(b, a, c);
    else
        who->bf16((const libxsmm_bfloat16 *)b, (const libxsmm_bfloat16 *)a, c);
#endif
}

/* libxsmm counts by columns: what is c = a b by rows is c = b a there. A b in pairs is its VNNI format. */
static bool find_libxsmm(const gemm *g, contender *who) {
    *who = (contender){0};
#if SACCADE_BENCH_LIBXSMM
    if (g->pairs && g->a_transposed) return false;
    const int scale = g->pairs ? 2 : 1;
    const libxsmm_blasint lda = (libxsmm_blasint)g->ldb, ldb = (libxsmm_blasint)(g->lda / 4) * scale,
                          ldc = (libxsmm_blasint)g->ldc;
    const float alpha = 1, beta = g->accumulate;
    const int flags = (g->a_transposed ? LIBXSMM_GEMM_FLAG_TRANS_B : 0) |
                      (g->pairs ? LIBXSMM_GEMM_FLAG_VNNI_A : 0),
              prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
    if (g->pairs)
        who->bf16 = libxsmm_bsmmdispatch(g->n, g->m, g->k * scale, &lda, &ldb, &ldc, &alpha, &beta, &flags,
                                         &prefetch);
    else
        who->fp32 = libxsmm_smmdispatch(g->n, g->m, g->k, &lda, &ldb, &ldc, &alpha, &beta, &flags, &prefetch);
    return who->bf16 || who->fp32;
#else
    (void)g;
    return false;
#endif
}

static double seconds_of(const contender *who, const gemm *g, int calls) {
    const double start = now();
    for (int i = 0; i < calls; i++) call(who, g);
    return (now() - start) / calls;
}

static void time_product(const product *p, bool pairs) {
    contender who[CONTENDERS] = {0};
    bool present[CONTENDERS];
    double best[CONTENDERS], error = 0, ours = INFINITY;
    const gemm g = arguments(p, pairs);
    const double flop = 2.0 * p->m * p->n * p->k;
    fill(a, pairs, 1);
    fill(b, pairs, 2);
    for (int i = 0; i < CONTENDERS; i++) {
        const sac_cpu_kernels *kernels =
            i < SAC_NUM_ISAS && sac_isa_usable((sac_isa)i) ? sac_cpu_kernels_of((sac_isa)i) : NULL;
        best[i] = INFINITY;
        present[i] =
            i == SAC_NUM_ISAS ? find_libxsmm(&g, &who[i]) : kernels && (!pairs || kernels->has_pairs);
        if (!present[i]) continue;
        if (kernels) who[i].multiply = kernels->multiply;
        memset(c, 0, sizeof c);
        call(&who[i], &g);
        error = fmax(error, error_of(&g));
    }
    memset(c, 0, sizeof c);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < CONTENDERS; i++)
            if (present[i]) best[i] = fmin(best[i], seconds_of(&who[i], &g, (int)(2e8 / flop) + 1));
    printf("%-14s %4d %4d %4d  %s", p->name, p->m, p->n, p->k, pairs ? "bf16" : "fp32");
    for (int i = 0; i < CONTENDERS; i++) {
        if (i < SAC_NUM_ISAS) ours = fmin(ours, best[i]);
        if (present[i])
            printf(" %8.1f", flop / best[i] * 1e-9);
        else
            printf(" %8s", "-");
    }
    if (present[SAC_NUM_ISAS])
        printf(" %6.2fx", best[SAC_NUM_ISAS] / ours);
    else
        printf(" %7s", "-");
    printf(" %8.1e\n", error);
    fflush(stdout);
}

int main(void) {
    print_machine(1);
#if !SACCADE_BENCH_LIBXSMM
    printf("libxsmm was not found when this was built (Debian: libxsmm-dev): its column stays empty\n\n");
#endif
    printf("%-14s %4s %4s %4s  %4s", "product", "m", "n", "k", "");
    for (int i = 0; i < SAC_NUM_ISAS; i++) printf(" %8s", sac_isa_name((sac_isa)i));
    printf(" %8s %7s %8s\n", "libxsmm", "ratio", "error");
    for (int pairs = 0; pairs < 2; pairs++)
        for (int dim = 64; dim <= MAX_DIM; dim *= 2) {
            const product products[] = {{"k q^T", KEYS, QUERIES, dim, false, false},
                                        {"v^T p", dim, QUERIES, KEYS, true, true},
                                        {"dscore^T q", KEYS, dim, QUERIES, false, true}};
            for (size_t i = 0; i < sizeof products / sizeof *products; i++) time_product(&products[i], pairs);
        }
    return 0;
}
