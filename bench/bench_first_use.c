/* bench_first_use.c - what the first use of a new modifier costs on a GPU, forward and backward: when its kernels
 * must be compiled, when another process has left them on the disk, and when they are loaded; and the device memory
 * that loaded kernels keep.
 *
 *     bench_first_use [BACKEND]      (default: the best for each call; GPU 0)
 *
 * B 1, N 1024, H 4, D 128, bf16, random data, until the results are there. Each of NUM modifiers is new; the first,
 * which also starts the compiler, is not counted. A context without a GPU kernel of its own is made anew for each use.
 */
#include <dlfcn.h>
#include <saccade/attention.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "table.h"

enum { N = 1024, H = 4, D = 128, NUM = 6 };

static struct {
    int (*init)(unsigned);
    int (*retain)(void **context, int device);
    int (*set)(void *context);
    int (*alloc)(void **, size_t);
    int (*upload)(void *, const void *, size_t);
    int (*download)(void *, const void *, size_t);
    int (*sync)(void);
    int (*memory)(size_t *free, size_t *total);
} cu;

static void stop(const char *what) {
    fprintf(stderr, "bench_first_use: %s\n", what);
    exit(EXIT_FAILURE);
}

static void check(saccade_status status) {
    if (status != SACCADE_OK) stop(saccade_last_error());
}

static void open_driver(void) {
    const struct {
        void *to;
        const char *symbol;
    } symbols[] = {{&cu.init, "cuInit"},
                   {&cu.retain, "cuDevicePrimaryCtxRetain"},
                   {&cu.set, "cuCtxSetCurrent"},
                   {&cu.alloc, "cuMemAlloc_v2"},
                   {&cu.upload, "cuMemcpyHtoD_v2"},
                   {&cu.download, "cuMemcpyDtoH_v2"},
                   {&cu.sync, "cuCtxSynchronize"},
                   {&cu.memory, "cuMemGetInfo_v2"}};
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *context;
    if (!cuda) stop("no libcuda.so.1");
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (!(*(void **)symbols[i].to = dlsym(cuda, symbols[i].symbol))) stop(symbols[i].symbol);
    if (cu.init(0) || cu.retain(&context, 0) || cu.set(context)) stop("GPU 0 cannot be used");
}

/* ---- one call ---- */

enum { Q, K, V, OUT, DOUT, DQ, DK, DV, NUM_TENSORS };
static void *data[NUM_TENSORS], *lse;

static void make_tensors(void) {
    const size_t count = (size_t)N * H * D;
    uint16_t *values = malloc(count * sizeof *values);
    if (!values) stop("out of memory");
    for (int i = 0; i < NUM_TENSORS; i++) {
        for (size_t e = 0; e < count; e++) /* bf16 of magnitude 1/2 to 1, either sign */
            values[e] = (uint16_t)(0x3f00 | (rand() & 0x7f) | (rand() & 1) << 15);
        if (cu.alloc(&data[i], count * 2) || cu.upload(data[i], values, count * 2)) stop("no GPU memory");
    }
    if (cu.alloc(&lse, (size_t)N * H * sizeof(float))) stop("no GPU memory");
    free(values);
}

/* Forward and backward with the modifier, in ms until they are done. */
static double use(saccade_context *ctx, const saccade_modifier *modifier, const char *backend) {
    const DLDevice gpu = {kDLCUDA, 0};
#define TENSOR(i) SACCADE_TENSOR_ON(gpu, data[i], SACCADE_BF16, 1, N, H, D)
    DLTensor *of_lse = SACCADE_TENSOR_ON(gpu, lse, SACCADE_F32, 1, H, N);
    saccade_attention_params params = {
        .score_mod.modifier = modifier, .causal = SACCADE_CAUSAL_TOP_LEFT, .backend = backend};
    saccade_attention_grads grads = {
        .dout = TENSOR(DOUT), .dq = TENSOR(DQ), .dk = TENSOR(DK), .dv = TENSOR(DV)};
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    check(saccade_attention_forward(ctx, TENSOR(Q), TENSOR(K), TENSOR(V), TENSOR(OUT), of_lse, &params));
    check(saccade_attention_backward(ctx, TENSOR(Q), TENSOR(K), TENSOR(V), TENSOR(OUT), of_lse, &grads,
                                     &params));
    if (cu.sync()) stop("a kernel failed");
    clock_gettime(CLOCK_MONOTONIC, &end);
    uint16_t one;
    if (cu.download(&one, data[DQ], sizeof one) || (one & 0x7f80) == 0x7f80) stop("dq is not finite");
    return (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-6;
}

static saccade_context *new_context(const char *cache_dir) {
    saccade_context *ctx;
    check(saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = cache_dir}));
    return ctx;
}

static size_t free_bytes(void) {
    size_t free_now, total;
    if (cu.sync() || cu.memory(&free_now, &total)) stop("the GPU does not answer");
    return free_now;
}

/* The median, and the times in their order. */
static double median(double *ms, int count) {
    qsort(ms, (size_t)count, sizeof *ms, compare_times);
    return ms[count / 2];
}

int main(int argc, char **argv) {
    const char *backend = argc > 1 ? argv[1] : NULL;
    char dir[] = "/tmp/saccade-first-use-XXXXXX", command[64];
    if (!mkdtemp(dir)) stop("no temporary folder");
    setenv("CUDA_CACHE_DISABLE", "1", 1); /* where NVRTC would find what an earlier run compiled */
    open_driver();
    make_tensors();
    saccade_modifier *modifiers[NUM];
    saccade_context *keeper = new_context(dir), *ctx;
    double compiled[NUM], from_disk[NUM], loaded[NUM];
    print_machine(1);
    printf("forward + backward of a modifier, ms\n%-8s %12s %12s %12s\n", "", "compiled", "from disk",
           "loaded");
    for (int i = 0; i < NUM; i++) {
        char text[96];
        snprintf(text, sizeof text, "score - 0.0%d1f * fabsf((float)(q_idx - kv_idx))", i);
        check(saccade_modifier_create(
            keeper, &modifiers[i],
            &(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .text = text, .grad_text = "grad"}));
        ctx = new_context(dir);
        compiled[i] = use(ctx, modifiers[i], backend);
        loaded[i] = use(ctx, modifiers[i], backend);
        saccade_context_destroy(ctx);
        ctx = new_context(dir);
        from_disk[i] = use(ctx, modifiers[i], backend);
        saccade_context_destroy(ctx);
        printf("%-8d %12.2f %12.2f %12.2f\n", i, compiled[i], from_disk[i], loaded[i]);
        fflush(stdout);
    }
    size_t before = free_bytes();
    for (int i = 0; i < NUM; i++) use(keeper, modifiers[i], backend);
    size_t after = free_bytes();
    printf("%-8s %12.2f %12.2f %12.2f\n", "median", median(compiled + 1, NUM - 1), median(from_disk, NUM),
           median(loaded, NUM));
    printf("\ndevice memory kept by the kernels of %d modifiers: %.1f MiB\n", NUM,
           ((double)before - (double)after) / (1 << 20));
    for (int i = 0; i < NUM; i++) saccade_modifier_destroy(modifiers[i]);
    saccade_context_destroy(keeper);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}
