/* bench_mask.c - how long block masks take to build, and what they weigh.
 *
 *     bench_mask [THREADS]      (default 2)
 *
 * first: the first call in a fresh context without a disk cache, which compiles a text and starts the threads.
 * MiB: all that the mask keeps: lists, transpose, what its mask_mod reads. ns/block: p50 for each listed block.
 */
#include <saccade/block_mask.h>
#include <saccade/native_modifier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "table.h"

typedef struct bench_case {
    const char *name, *blocks;
    int32_t q_len, kv_len, q_block, kv_block;
    saccade_status (*build)(saccade_context *ctx, saccade_block_mask **mask, const saccade_mask_shape *shape);
} bench_case;

static saccade_status causal(saccade_context *ctx, saccade_block_mask **mask,
                             const saccade_mask_shape *shape) {
    return saccade_block_mask_causal(ctx, mask, shape, false);
}

static saccade_status window(saccade_context *ctx, saccade_block_mask **mask,
                             const saccade_mask_shape *shape) {
    return saccade_block_mask_window(ctx, mask, shape, 4095, 0, false);
}

static saccade_status eagle3(saccade_context *ctx, saccade_block_mask **mask,
                             const saccade_mask_shape *shape) {
    return saccade_block_mask_eagle3(ctx, mask, shape, NULL);
}

static saccade_status documents(saccade_context *ctx, saccade_block_mask **mask,
                                const saccade_mask_shape *shape) {
    enum { LENGTH = 2000 };
    int32_t count = (shape->q_len + LENGTH - 1) / LENGTH, *lengths = malloc((size_t)count * sizeof *lengths);
    if (!lengths) return SACCADE_OUT_OF_MEMORY;
    for (int32_t i = 0; i < count; i++) lengths[i] = LENGTH;
    lengths[count - 1] = shape->q_len - (count - 1) * LENGTH;
    saccade_status status = saccade_block_mask_documents(ctx, mask, shape, lengths, count);
    free(lengths);
    return status;
}

static saccade_status causal_documents(saccade_context *ctx, saccade_block_mask **mask,
                                       const saccade_mask_shape *shape) {
    saccade_block_mask *a = NULL, *b = NULL;
    saccade_status status = causal(ctx, &a, shape);
    if (status == SACCADE_OK) status = documents(ctx, &b, shape);
    if (status == SACCADE_OK) status = saccade_block_mask_and(ctx, mask, a, b);
    saccade_block_mask_destroy(a);
    saccade_block_mask_destroy(b);
    return status;
}

SACCADE_MASK_MOD(shifted_window, { return q_idx >= kv_idx && q_idx - kv_idx <= 8192 + h; })

/* A causal window, the modifier made anew each time. */
static saccade_status from_mod(saccade_context *ctx, saccade_block_mask **mask,
                               const saccade_mask_shape *shape, const saccade_modifier_params *params) {
    saccade_modifier *modifier;
    saccade_status status = saccade_modifier_create(ctx, &modifier, params);
    if (status != SACCADE_OK) return status;
    status = saccade_block_mask_from_mod(ctx, mask, shape, &(saccade_bound_modifier){.modifier = modifier});
    saccade_modifier_destroy(modifier);
    return status;
}

static saccade_status from_native(saccade_context *ctx, saccade_block_mask **mask,
                                  const saccade_mask_shape *shape) {
    return from_mod(ctx, mask, shape, &(saccade_modifier_params){.native = &shifted_window});
}

static saccade_status from_text(saccade_context *ctx, saccade_block_mask **mask,
                                const saccade_mask_shape *shape) {
    return from_mod(ctx, mask, shape,
                    &(saccade_modifier_params){.kind = SACCADE_MASK_KIND,
                                               .text = "q_idx >= kv_idx && q_idx - kv_idx <= 8192 + h"});
}

static saccade_status from_dense(saccade_context *ctx, saccade_block_mask **mask,
                                 const saccade_mask_shape *shape) {
    static uint8_t *visible;
    size_t bytes = (size_t)shape->q_len * (size_t)shape->kv_len;
    if (!visible) {
        visible = malloc(bytes);
        if (!visible) return SACCADE_OUT_OF_MEMORY;
        for (int32_t i = 0; i < shape->q_len; i++)
            for (int32_t j = 0; j < shape->kv_len; j++)
                visible[(size_t)i * (size_t)shape->kv_len + (size_t)j] = j <= i;
    }
    return saccade_block_mask_from_dense(
        ctx, mask, SACCADE_TENSOR(visible, SACCADE_U8, 1, 1, shape->q_len, shape->kv_len), shape->q_block,
        shape->kv_block);
}

enum { K = 1024, M = 1024 * K };

static const bench_case cases[] = {
    {"causal", "128x128", 32 * K, 32 * K, 128, 128, causal},
    {"causal", "128x128", M, M, 128, 128, causal},
    {"window 4096", "128x128", M, M, 128, 128, window},
    {"window 4096", "1x64", M, M, 1, 64, window},
    {"eagle3, 5 rounds", "128x128", 16 * K, 5 * 16 * K, 128, 128, eagle3},
    {"documents of 2000", "128x128", M, M, 128, 128, documents},
    {"causal & documents", "128x128", 32 * K, 32 * K, 128, 128, causal_documents},
    {"causal & documents", "128x128", M, M, 128, 128, causal_documents},
    {"native mask_mod", "128x128", 32 * K, 32 * K, 128, 128, from_native},
    {"mask_mod text", "128x128", 32 * K, 32 * K, 128, 128, from_text},
    {"mask_mod text", "64x64", 32 * K, 32 * K, 64, 64, from_text},
    {"dense tensor", "128x128", 16 * K, 16 * K, 128, 128, from_dense},
};

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* At least 5 runs, and as many as fit into half a second. */
static int run_case(const bench_case *c, int threads) {
    enum { MAX_RUNS = 200, MIN_RUNS = 5 };
    double times[MAX_RUNS], first = 0, begin = now_ms();
    saccade_context *ctx;
    saccade_block_mask_info info = {0};
    saccade_mask_shape shape = {
        .q_len = c->q_len, .kv_len = c->kv_len, .q_block = c->q_block, .kv_block = c->kv_block};
    if (saccade_context_create(&ctx, &(saccade_context_params){.num_threads = threads, .cache_dir = ""}) !=
        SACCADE_OK)
        return 1;
    int runs = 0;
    for (int i = -1; i < MAX_RUNS && (i < MIN_RUNS || now_ms() - begin < 500); i++) {
        saccade_block_mask *mask;
        double start = now_ms();
        saccade_status status = c->build(ctx, &mask, &shape);
        double elapsed = now_ms() - start;
        if (status != SACCADE_OK) {
            fprintf(stderr, "%s: %s\n", c->name, saccade_last_error());
            saccade_context_destroy(ctx);
            return 1;
        }
        if (i < 0)
            first = elapsed;
        else
            times[runs++] = elapsed;
        saccade_block_mask_get_info(mask, &info);
        saccade_block_mask_destroy(mask);
    }
    saccade_context_destroy(ctx);
    qsort(times, (size_t)runs, sizeof *times, compare_times);
    double p50 = times[runs / 2], p90 = times[runs * 9 / 10];
    printf("%-19s %8d %8d %8s %9lld %8lld %8lld %9.3f %9.3f %9.3f %9.2f %9.1f\n", c->name, c->q_len,
           c->kv_len, c->blocks, (long long)info.full, (long long)info.partial, (long long)info.diagonal,
           first, p50, p90, (double)info.bytes / (1 << 20),
           p50 * 1e6 / (double)(info.full + info.partial + info.diagonal));
    return 0;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 2, failures = 0;
    print_machine(threads);
    printf("%-19s %8s %8s %8s %9s %8s %8s %9s %9s %9s %9s %9s\n", "mask", "Nq", "Nk", "block", "full",
           "partial", "diagonal", "first ms", "ms p50", "p90", "MiB", "ns/block");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) failures += run_case(&cases[i], threads);
    return failures != 0;
}
