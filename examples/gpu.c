/* gpu.c - generation on an NVIDIA GPU: one step of attention over a KV cache, captured once in a CUDA graph.
 *
 * decode.c explains the cache. Here it lies in GPU memory, and so do the lengths: the captured step reads them when it
 * runs, so the same graph serves every step. Needs the CUDA runtime: cc gpu.c -lsaccade -lcudart.
 */
#include <cuda_runtime_api.h>
#include <saccade/attention.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 4, CAPACITY = 1024, H = 32, HKV = 8, D = 128, PROMPT = 900, STEPS = 90 };
enum { ROW = B * H * D, KV_ROW = HKV * D, KV_SIZE = B * CAPACITY * KV_ROW };

/* bf16, as the upper half of a float. */
typedef uint16_t bf16;
static bf16 q[ROW], k[KV_SIZE], v[KV_SIZE], out[ROW], expected[ROW];
static int32_t used[B];

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

static void check_cuda(cudaError_t error) {
    if (error == cudaSuccess) return;
    fprintf(stderr, "%s\n", cudaGetErrorString(error));
    exit(EXIT_FAILURE);
}

static float value_of(bf16 half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void fill(bf16 *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float value = (float)rand() / (float)RAND_MAX - 0.5f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        values[i] = (bf16)(bits >> 16);
    }
}

static void *on_gpu(const void *source, size_t bytes) {
    void *memory;
    check_cuda(cudaMalloc(&memory, bytes));
    check_cuda(cudaMemcpy(memory, source, bytes, cudaMemcpyHostToDevice));
    return memory;
}

/* The largest difference from the same attention on the host. */
static float error_of_last_step(saccade_context *ctx) {
    check(saccade_attention_forward(
        ctx, SACCADE_TENSOR(q, SACCADE_BF16, B, 1, H, D),
        SACCADE_TENSOR(k, SACCADE_BF16, B, CAPACITY, HKV, D),
        SACCADE_TENSOR(v, SACCADE_BF16, B, CAPACITY, HKV, D),
        SACCADE_TENSOR(expected, SACCADE_BF16, B, 1, H, D), NULL,
        &(saccade_attention_params){.seqused_k = SACCADE_TENSOR(used, SACCADE_I32, B)}));
    float most = 0;
    for (size_t i = 0; i < ROW; i++) {
        const float difference = value_of(out[i]) - value_of(expected[i]);
        if (!(difference <= most && -difference <= most)) most = difference < 0 ? -difference : difference;
    }
    return most;
}

int main(void) {
    fill(q, ROW);
    fill(k, KV_SIZE);
    fill(v, KV_SIZE);
    for (int b = 0; b < B; b++) used[b] = PROMPT - 200 * b;
    void *gpu_q = on_gpu(q, sizeof q), *gpu_k = on_gpu(k, sizeof k), *gpu_v = on_gpu(v, sizeof v),
         *gpu_out = on_gpu(out, sizeof out), *gpu_used = on_gpu(used, sizeof used);
    cudaStream_t stream;
    check_cuda(cudaStreamCreate(&stream));

    saccade_context *ctx;
    check(saccade_context_create(&ctx, &(saccade_context_params){.stream = stream}));
    const DLDevice gpu = {kDLCUDA, 0};
    DLTensor *tq = SACCADE_TENSOR_ON(gpu, gpu_q, SACCADE_BF16, B, 1, H, D),
             *tk = SACCADE_TENSOR_ON(gpu, gpu_k, SACCADE_BF16, B, CAPACITY, HKV, D),
             *tv = SACCADE_TENSOR_ON(gpu, gpu_v, SACCADE_BF16, B, CAPACITY, HKV, D),
             *tout = SACCADE_TENSOR_ON(gpu, gpu_out, SACCADE_BF16, B, 1, H, D);
    saccade_attention_params params = {.seqused_k = SACCADE_TENSOR_ON(gpu, gpu_used, SACCADE_I32, B)};
    check(saccade_attention_workspace(ctx, tq, tk, tv, NULL, &params, &params.workspace_bytes));
    check_cuda(cudaMalloc(&params.workspace, params.workspace_bytes + 1));

    /* The first call loads the kernels, which a capture could not. With a workspace given, a call only queues them. */
    check(saccade_attention_forward(ctx, tq, tk, tv, tout, NULL, &params));
    cudaGraph_t graph;
    cudaGraphExec_t step;
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    check(saccade_attention_forward(ctx, tq, tk, tv, tout, NULL, &params));
    check_cuda(cudaStreamEndCapture(stream, &graph));
    check_cuda(cudaGraphInstantiateWithFlags(&step, graph, 0));

    /* A model would write each token's q, and its k and v behind those that are used; here they are there already. */
    for (int i = 0; i < STEPS; i++) {
        for (int b = 0; b < B; b++) used[b]++;
        check_cuda(cudaMemcpyAsync(gpu_used, used, sizeof used, cudaMemcpyHostToDevice, stream));
        check_cuda(cudaGraphLaunch(step, stream));
        check_cuda(cudaStreamSynchronize(stream));
    }
    check_cuda(cudaMemcpy(out, gpu_out, sizeof out, cudaMemcpyDeviceToHost));
    const float error = error_of_last_step(ctx);
    printf("%d steps of one graph, largest difference from the host %.1e\n", STEPS, (double)error);

    check_cuda(cudaGraphExecDestroy(step));
    check_cuda(cudaGraphDestroy(graph));
    saccade_context_destroy(ctx);
    void *const memory[] = {gpu_q, gpu_k, gpu_v, gpu_out, gpu_used, params.workspace};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) check_cuda(cudaFree(memory[i]));
    check_cuda(cudaStreamDestroy(stream));
    return error < 1e-3f ? EXIT_SUCCESS : EXIT_FAILURE;
}
