/* decode.c - generation over a KV cache: a prompt of another length in each batch entry, then one token a step.
 *
 * The cache is two tensors (B, CAPACITY, Hkv, D) that grow in place; seqused_k says how much of each entry is there, so
 * that no call depends on how long the others are. The context, and a workspace that is asked for once, serve every
 * step: nothing is allocated between them. gpu.c does the same on a GPU, in a CUDA graph.
 */
#include <saccade/attention.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, CAPACITY = 96, H = 8, HKV = 2, D = 64, STEPS = 24 };
static const int32_t prompt[B] = {70, 9};

/* What a model would compute from its tokens: all of q, k and v, of which each step is shown its row. */
static float all_q[B][CAPACITY][H][D], all_k[B][CAPACITY][HKV][D], all_v[B][CAPACITY][HKV][D];
static float whole[B][CAPACITY][H][D]; /* attention over all of it at once, to compare with */

static float k_cache[B][CAPACITY][HKV][D], v_cache[B][CAPACITY][HKV][D];
static float q[B][H][D], out[B][H][D];
static int32_t used[B];

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

static float larger(float a, float b) { return a > b ? a : b; }

static float difference(float a[H][D], float b[H][D]) {
    float most = 0;
    for (int h = 0; h < H; h++)
        for (int d = 0; d < D; d++) most = larger(most, larger(a[h][d] - b[h][d], b[h][d] - a[h][d]));
    return most;
}

/* Takes the next token of every entry into the cache. */
static void append(void) {
    for (int b = 0; b < B; b++) {
        const int32_t at = used[b]++;
        memcpy(k_cache[b][at], all_k[b][at], sizeof k_cache[b][at]);
        memcpy(v_cache[b][at], all_v[b][at], sizeof v_cache[b][at]);
        memcpy(q[b], all_q[b][at], sizeof q[b]);
    }
}

int main(void) {
    fill(&all_q[0][0][0][0], sizeof all_q / sizeof(float));
    fill(&all_k[0][0][0][0], sizeof all_k / sizeof(float));
    fill(&all_v[0][0][0][0], sizeof all_v / sizeof(float));
    saccade_context *ctx;
    check(saccade_context_create(&ctx, NULL));
    check(saccade_attention_forward(ctx, SACCADE_TENSOR(all_q, SACCADE_F32, B, CAPACITY, H, D),
                                    SACCADE_TENSOR(all_k, SACCADE_F32, B, CAPACITY, HKV, D),
                                    SACCADE_TENSOR(all_v, SACCADE_F32, B, CAPACITY, HKV, D),
                                    SACCADE_TENSOR(whole, SACCADE_F32, B, CAPACITY, H, D), NULL,
                                    &(saccade_attention_params){.causal = SACCADE_CAUSAL_TOP_LEFT}));

    /* The prompts: here they only fill the cache; their own attention is the causal call above. */
    for (int b = 0; b < B; b++) {
        memcpy(k_cache[b], all_k[b], sizeof k_cache[b][0] * (size_t)prompt[b]);
        memcpy(v_cache[b], all_v[b], sizeof v_cache[b][0] * (size_t)prompt[b]);
        used[b] = prompt[b];
    }

    DLTensor *tq = SACCADE_TENSOR(q, SACCADE_F32, B, 1, H, D),
             *tout = SACCADE_TENSOR(out, SACCADE_F32, B, 1, H, D);
    DLTensor *tk = SACCADE_TENSOR(k_cache, SACCADE_F32, B, CAPACITY, HKV, D);
    DLTensor *tv = SACCADE_TENSOR(v_cache, SACCADE_F32, B, CAPACITY, HKV, D);
    saccade_attention_params params = {.seqused_k = SACCADE_TENSOR(used, SACCADE_I32, B)};
    check(saccade_attention_workspace(ctx, tq, tk, tv, NULL, &params, &params.workspace_bytes));
    params.workspace = aligned_alloc(64, (params.workspace_bytes + 63) / 64 * 64);

    float error = 0;
    for (int step = 0; step < STEPS; step++) {
        append();
        check(saccade_attention_forward(ctx, tq, tk, tv, tout, NULL, &params));
        for (int b = 0; b < B; b++) error = larger(error, difference(out[b], whole[b][used[b] - 1]));
    }
    printf("%d steps, workspace %zu bytes, largest difference from one causal call %.1e\n", STEPS,
           params.workspace_bytes, (double)error);
    free(params.workspace);
    saccade_context_destroy(ctx);
    return error < 1e-5f ? EXIT_SUCCESS : EXIT_FAILURE;
}
