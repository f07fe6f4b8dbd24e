/* bench_device_mask.c - how long block masks take to build on a GPU: whole builds queued one after another, so that
 * what is timed is the longer of queueing and computing; and beside it the host's builder.
 *
 *     bench_device_mask          GPU 0
 */
#include <dlfcn.h>
#include <saccade/device_mask.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BUILDS = 200 };

typedef struct bench_case {
    const char *name;
    saccade_mask_shape shape;
    const char *text; /* of a mask_mod; NULL: Eagle3 */
} bench_case;

static const bench_case cases[] = {
    {"eagle3 16K x 5", {.q_len = 16384, .kv_len = 5 * 16384}, NULL},
    {"eagle3 64K x 5", {.q_len = 65536, .kv_len = 5 * 65536}, NULL},
    {"mod causal 32K", {.q_len = 32768, .kv_len = 32768}, "q_idx >= kv_idx"},
    {"mod window 32K", {.q_len = 32768, .kv_len = 32768}, "q_idx >= kv_idx && q_idx - kv_idx <= 4096"},
};

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "bench_device_mask: %s\n", saccade_last_error());
    exit(1);
}

/* The driver's own allocator: the least that the bench needs of a GPU. */
static void *device_memory(size_t bytes) {
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *context, *pointer = NULL;
    if (!cuda) {
        fprintf(stderr, "bench_device_mask: no libcuda.so.1\n");
        exit(1);
    }
    int (*init)(unsigned), (*retain)(void **, int), (*set)(void *), (*alloc)(void **, size_t);
    *(void **)&init = dlsym(cuda, "cuInit");
    *(void **)&retain = dlsym(cuda, "cuDevicePrimaryCtxRetain");
    *(void **)&set = dlsym(cuda, "cuCtxSetCurrent");
    *(void **)&alloc = dlsym(cuda, "cuMemAlloc_v2");
    if (init(0) || retain(&context, 0) || set(context) || alloc(&pointer, bytes)) {
        fprintf(stderr, "bench_device_mask: no %zu bytes on GPU 0\n", bytes);
        exit(1);
    }
    return pointer;
}

static void build_on_device(saccade_context *ctx, const bench_case *c, const saccade_device_mask_params *p,
                            const saccade_bound_modifier *mod, saccade_block_mask **mask) {
    check(c->text ? saccade_device_mask_from_mod(ctx, mask, p, mod)
                  : saccade_device_mask_eagle3(ctx, mask, p, NULL));
}

static void build_on_host(saccade_context *ctx, const bench_case *c, const saccade_bound_modifier *mod,
                          saccade_block_mask **mask) {
    check(c->text ? saccade_block_mask_from_mod(ctx, mask, &c->shape, mod)
                  : saccade_block_mask_eagle3(ctx, mask, &c->shape, NULL));
}

static void bench(saccade_context *ctx, const bench_case *c) {
    saccade_device_mask_params p = {.shape = c->shape, .device = {kDLCUDA, 0}};
    saccade_bound_modifier mod = {0};
    saccade_modifier *modifier = NULL;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    if (c->text)
        check(saccade_modifier_create(
            ctx, &modifier, &(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = c->text}));
    mod.modifier = modifier;
    check(saccade_device_mask_bytes(ctx, &p, &p.memory_bytes));
    p.memory = device_memory(p.memory_bytes);
    double begin = now_us();
    build_on_device(ctx, c, &p, &mod, &mask);
    check(saccade_device_mask_check(ctx, mask, &info));
    double first = now_us() - begin;
    begin = now_us();
    for (int i = 0; i < BUILDS; i++) {
        saccade_block_mask_destroy(mask);
        build_on_device(ctx, c, &p, &mod, &mask);
    }
    check(saccade_device_mask_check(ctx, mask, NULL));
    double device = (now_us() - begin) / BUILDS;
    saccade_block_mask_destroy(mask);

    build_on_host(ctx, c, &mod, &mask);
    saccade_block_mask_destroy(mask);
    begin = now_us();
    build_on_host(ctx, c, &mod, &mask);
    double host = now_us() - begin;
    saccade_block_mask_destroy(mask);
    saccade_modifier_destroy(modifier);
    printf("%-16s %9lld %9lld %9lld %10.1f %10.1f %10.1f %9.1f\n", c->name, (long long)info.full,
           (long long)info.partial, (long long)info.diagonal, device, first / 1000, host,
           (double)p.memory_bytes / (1 << 20));
}

int main(void) {
    saccade_context *ctx;
    check(saccade_context_create(&ctx, NULL));
    printf("%-16s %9s %9s %9s %10s %10s %10s %9s\n", "mask", "full", "partial", "diagonal", "device us",
           "first ms", "host us", "MiB");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) bench(ctx, &cases[i]);
    saccade_context_destroy(ctx);
    return 0;
}
