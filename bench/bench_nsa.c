/* bench_nsa.c - native sparse attention on the CPU beside dense causal attention of the same tensors.
 *
 *     bench_nsa [TOKENS [THREADS [cpu] [forward]]]      (default 32768 2)
 *
 * B 1, H 8, Hkv 2, D 64, random data, the parameters' defaults (block 64, top_k 16, window 512, query_tile 256). The
 * two take turns. ratio: dense to sparse, of the medians; best: of the fastest calls. pairs: how many fewer pairs of
 * query and key the sparse one computes, which is what the ratio could be at most. `cpu`: the processor's time on all
 * threads instead of the clock's, for a machine that others use too. `forward`: that pass alone.
 */
#include <saccade/attention.h>
#include <saccade/nsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "table.h"

enum { H = 8, HKV = 2, D = 64, BLOCK = 64, TOP_K = 16, WINDOW = 512, TILE = 256, RUNS = 3 };

static clockid_t clock_id = CLOCK_MONOTONIC;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(clock_id, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

static void *allocated(int64_t count, size_t size) {
    void *memory = calloc((size_t)count, size);
    if (memory) return memory;
    fprintf(stderr, "out of memory\n");
    exit(EXIT_FAILURE);
}

/* (1, n, heads, D), uniform in -1..1. */
static void *random_rows(int64_t n, int heads, bool bf16) {
    float *values = allocated(n * heads * D, sizeof *values);
    uint64_t state = (uint64_t)heads;
    for (int64_t i = 0; i < n * heads * D; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        values[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
        if (!bf16) continue;
        uint16_t high; /* truncated to bf16, in place */
        memcpy(&high, (char *)&values[i] + 2, sizeof high);
        memcpy((char *)values + 2 * i, &high, sizeof high);
    }
    return values;
}

typedef struct problem {
    saccade_context *ctx;
    DLTensor *q, *k, *v, *dout, *out, *dq, *dk, *dv, *lse, *sparse_out;
    saccade_nsa_tensors nsa;
} problem;

static void dense(const problem *p, bool backward) {
    const saccade_attention_params params = {.causal = SACCADE_CAUSAL_TOP_LEFT, .backend = "cpu"};
    const saccade_attention_grads grads = {.dout = p->dout, .dq = p->dq, .dk = p->dk, .dv = p->dv};
    check(backward ? saccade_attention_backward(p->ctx, p->q, p->k, p->v, p->out, p->lse, &grads, &params)
                   : saccade_attention_forward(p->ctx, p->q, p->k, p->v, p->out, p->lse, &params));
}

static void sparse(const problem *p, bool backward) {
    const saccade_nsa_params params = {.backend = "cpu"};
    const saccade_nsa_grads grads = {.dout = p->dout, .dq = p->dq, .dk = p->dk, .dv = p->dv};
    check(backward ? saccade_nsa_backward(p->ctx, &p->nsa, &grads, &params)
                   : saccade_nsa_forward(p->ctx, &p->nsa, p->sparse_out, &params));
}

/* Pairs of one head: the selected blocks of whole tiles, the window, the compressed keys. */
static double sparse_pairs(int64_t n) {
    double pairs = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t tile_end = (i / TILE + 1) * TILE, own = i / BLOCK * BLOCK;
        const int64_t selected = tile_end <= TOP_K * BLOCK ? i + 1 : TOP_K * BLOCK;
        pairs += (double)(selected < own + BLOCK ? selected : own + BLOCK) +
                 (double)(i < WINDOW ? i + 1 : WINDOW) + (double)((i + 1) / BLOCK);
    }
    return pairs;
}

static void time_pass(const problem *p, int64_t n, const char *dtype, bool backward) {
    double ms[2][RUNS];
    for (int run = -1; run < RUNS; run++)
        for (int which = 0; which < 2; which++) {
            const double start = now_ms();
            (which ? sparse : dense)(p, backward);
            if (run >= 0) ms[which][run] = now_ms() - start;
        }
    for (int which = 0; which < 2; which++) qsort(ms[which], RUNS, sizeof(double), compare_times);
    printf("%-8s %7d %4s %10.1f %10.1f %6.2fx %6.2fx %6.2fx\n", backward ? "backward" : "forward", (int)n,
           dtype, ms[0][RUNS / 2], ms[1][RUNS / 2], ms[0][RUNS / 2] / ms[1][RUNS / 2], ms[0][0] / ms[1][0],
           (double)n * (double)(n + 1) / 2 / sparse_pairs(n));
    fflush(stdout);
}

static void run(saccade_context *ctx, int64_t n, bool bf16, int passes) {
    const DLDataType dtype = bf16 ? SACCADE_BF16 : SACCADE_F32;
    const int64_t blocks = n / BLOCK, tiles = (n + TILE - 1) / TILE;
    problem p = {.ctx = ctx,
                 .q = SACCADE_TENSOR(random_rows(n, H, bf16), dtype, 1, n, H, D),
                 .k = SACCADE_TENSOR(random_rows(n, HKV, bf16), dtype, 1, n, HKV, D),
                 .v = SACCADE_TENSOR(random_rows(n, HKV, bf16), dtype, 1, n, HKV, D),
                 .dout = SACCADE_TENSOR(random_rows(n, H, bf16), dtype, 1, n, H, D),
                 .out = SACCADE_TENSOR(allocated(n * H * D, 4), dtype, 1, n, H, D),
                 .sparse_out = SACCADE_TENSOR(allocated(n * H * D, 4), dtype, 1, n, H, D),
                 .dq = SACCADE_TENSOR(allocated(n * H * D, 4), dtype, 1, n, H, D),
                 .dk = SACCADE_TENSOR(allocated(n * HKV * D, 4), dtype, 1, n, HKV, D),
                 .dv = SACCADE_TENSOR(allocated(n * HKV * D, 4), dtype, 1, n, HKV, D),
                 .lse = SACCADE_TENSOR(allocated(n * H, 4), SACCADE_F32, 1, H, n)};
    p.nsa = (saccade_nsa_tensors){
        .q = p.q,
        .k = p.k,
        .v = p.v,
        .k_cmp = SACCADE_TENSOR(allocated(blocks * HKV * D, 4), dtype, 1, blocks, HKV, D),
        .v_cmp = SACCADE_TENSOR(allocated(blocks * HKV * D, 4), dtype, 1, blocks, HKV, D),
        .indices = SACCADE_TENSOR(allocated(H * tiles * TOP_K, 4), SACCADE_I32, 1, H, tiles, TOP_K),
        .lse_cmp = SACCADE_TENSOR(allocated(n * H, 4), SACCADE_F32, 1, H, n),
        .lse_slc = SACCADE_TENSOR(allocated(n * H, 4), SACCADE_F32, 1, H, n),
        .lse_win = SACCADE_TENSOR(allocated(n * H, 4), SACCADE_F32, 1, H, n)};
    for (int backward = 0; backward < passes; backward++) time_pass(&p, n, bf16 ? "bf16" : "fp32", backward);
    DLTensor *const owners[] = {p.sparse_out,  p.q,           p.k,           p.v,
                                p.dout,        p.out,         p.dq,          p.dk,
                                p.dv,          p.lse,         p.nsa.k_cmp,   p.nsa.v_cmp,
                                p.nsa.indices, p.nsa.lse_cmp, p.nsa.lse_slc, p.nsa.lse_win};
    for (size_t i = 0; i < sizeof owners / sizeof *owners; i++) free(owners[i]->data);
}

int main(int argc, char **argv) {
    const int64_t n = argc > 1 ? atoll(argv[1]) : 32768;
    const int threads = argc > 2 ? atoi(argv[2]) : 2;
    int passes = 2;
    bool known = true;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "cpu") == 0)
            clock_id = CLOCK_PROCESS_CPUTIME_ID;
        else if (strcmp(argv[i], "forward") == 0)
            passes = 1;
        else
            known = false;
    }
    if (n < 1 || threads < 1 || !known) {
        fprintf(stderr, "usage: bench_nsa [TOKENS [THREADS [cpu] [forward]]]\n");
        return EXIT_FAILURE;
    }
    saccade_context *ctx;
    check(saccade_context_create(&ctx, &(saccade_context_params){.num_threads = threads}));
    print_machine(threads);
    printf("%-8s %7s %4s %10s %10s %7s %7s %7s\n", "pass", "tokens", "", "dense ms", "sparse ms", "ratio",
           "best", "pairs");
    run(ctx, n, false, passes);
    run(ctx, n, true, passes);
    saccade_context_destroy(ctx);
    return 0;
}
