/* bench_blocks.c - what a pair of query and key costs on the CPU by the size of the blocks that list it.
 *
 *     bench_blocks [THREADS]      (default 2)
 *
 * Forward and backward, B 1, H 8, Hkv 2, D 64, bf16, N 8192; each query block lists 1024 keys in blocks at random
 * places, the same for all heads. alike: so many neighbouring query blocks list the same. By the process's own time,
 * the fastest of several calls, in nanoseconds a pair of one head; ratio to the first row, which is dense.
 */
#include <saccade/attention.h>
#include <saccade/block_mask.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "table.h"

enum { N = 8192, H = 8, HKV = 2, D = 64, LISTED = 1024, RUNS = 4 };

static const struct {
    int q_block, kv_block, alike; /* q_block 0: no mask */
} rows[] = {{0, 0, 1},  {128, 128, 1}, {256, 64, 1}, {64, 64, 1}, {16, 64, 1}, {16, 16, 1},
            {4, 64, 1}, {4, 64, 4},    {1, 64, 1},   {1, 64, 2},  {1, 64, 4},  {1, 64, 16}};

static uint64_t state = 1;
static uint32_t random_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

static void *allocated(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory) return memory;
    fprintf(stderr, "out of memory\n");
    exit(EXIT_FAILURE);
}

/* bf16 between 1/2 and 2, of either sign. */
static void *random_values(size_t count) {
    uint16_t *values = allocated(count, sizeof *values);
    for (size_t i = 0; i < count; i++) values[i] = (uint16_t)(0x3f00 + (random_bits() & 0x80ff));
    return values;
}

/* A row of indices: `top` of `blocks`, ascending. */
static void choose(int32_t *indices, int top, int blocks) {
    for (int block = 0, left = top; left > 0; block++)
        if ((int)(random_bits() % (uint32_t)(blocks - block)) < left) indices[top - left--] = block;
}

static saccade_block_mask *make_mask(saccade_context *ctx, int q_block, int kv_block, int alike) {
    const int num_rows = N / q_block, top = LISTED / kv_block;
    int32_t *indices = allocated((size_t)num_rows * (size_t)top, sizeof *indices);
    for (int row = 0; row < num_rows; row++)
        if (row % alike == 0)
            choose(indices + row * top, top, N / kv_block);
        else
            memcpy(indices + row * top, indices + (row - 1) * top, (size_t)top * sizeof *indices);
    saccade_block_mask *mask;
    check(saccade_block_mask_from_indices(
        ctx, &mask, &(saccade_mask_shape){.q_len = N, .kv_len = N, .q_block = q_block, .kv_block = kv_block},
        SACCADE_TENSOR(indices, SACCADE_I32, 1, 1, num_rows, top), SACCADE_FULL));
    free(indices);
    return mask;
}

typedef struct tensors {
    DLTensor *q, *k, *v, *dout, *out, *lse, *dq, *dk, *dv;
} tensors;

static double seconds(saccade_context *ctx, const tensors *t, const saccade_attention_params *params,
                      bool backward) {
    const saccade_attention_grads grads = {.dout = t->dout, .dq = t->dq, .dk = t->dk, .dv = t->dv};
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) {
        const double start = now();
        check(backward ? saccade_attention_backward(ctx, t->q, t->k, t->v, t->out, t->lse, &grads, params)
                       : saccade_attention_forward(ctx, t->q, t->k, t->v, t->out, t->lse, params));
        if (now() - start < best) best = now() - start;
    }
    return best;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 2;
    saccade_context *ctx;
    check(saccade_context_create(&ctx, &(saccade_context_params){.num_threads = threads}));
    const tensors t = {.q = SACCADE_TENSOR(random_values(N * H * D), SACCADE_BF16, 1, N, H, D),
                       .k = SACCADE_TENSOR(random_values(N * HKV * D), SACCADE_BF16, 1, N, HKV, D),
                       .v = SACCADE_TENSOR(random_values(N * HKV * D), SACCADE_BF16, 1, N, HKV, D),
                       .dout = SACCADE_TENSOR(random_values(N * H * D), SACCADE_BF16, 1, N, H, D),
                       .out = SACCADE_TENSOR(random_values(N * H * D), SACCADE_BF16, 1, N, H, D),
                       .dq = SACCADE_TENSOR(random_values(N * H * D), SACCADE_BF16, 1, N, H, D),
                       .dk = SACCADE_TENSOR(random_values(N * HKV * D), SACCADE_BF16, 1, N, HKV, D),
                       .dv = SACCADE_TENSOR(random_values(N * HKV * D), SACCADE_BF16, 1, N, HKV, D),
                       .lse = SACCADE_TENSOR(allocated(N * H, 4), SACCADE_F32, 1, H, N)};
    print_machine(threads);
    printf("%-9s %6s %11s %7s %11s %7s\n", "blocks", "alike", "forward ns", "ratio", "backward ns", "ratio");
    double dense[2] = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const bool masked = rows[i].q_block > 0;
        saccade_attention_params params = {.backend = "cpu"};
        if (masked) params.block_mask = make_mask(ctx, rows[i].q_block, rows[i].kv_block, rows[i].alike);
        printf("%4dx%-4d %6d", rows[i].q_block, rows[i].kv_block, rows[i].alike);
        for (int backward = 0; backward < 2; backward++) {
            const double pairs = (double)N * H * (masked ? LISTED : N);
            const double ns = seconds(ctx, &t, &params, backward) / pairs * 1e9;
            if (!masked) dense[backward] = ns;
            printf(" %11.3f %6.2fx", ns, ns / dense[backward]);
        }
        printf("\n");
        fflush(stdout);
        saccade_block_mask_destroy((saccade_block_mask *)params.block_mask);
    }
    DLTensor *const owners[] = {t.q, t.k, t.v, t.dout, t.out, t.lse, t.dq, t.dk, t.dv};
    for (size_t i = 0; i < sizeof owners / sizeof *owners; i++) free(owners[i]->data);
    saccade_context_destroy(ctx);
    return 0;
}
