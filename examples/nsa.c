/* nsa.c - training with native sparse attention: forward, backward, and a gate that learns from its gradient.
 *
 * Each query attends to the means of blocks of 64 tokens, to the 16 blocks that its tile of 256 queries selects, and to
 * the last 512 tokens; a gate weighs the three. Here the gate learns to imitate dense attention over the same q, k and
 * v, whose gradients a model would carry on to its projections.
 */
#include <saccade/nsa.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 1, N = 2048, H = 4, HKV = 2, D = 64, STEPS = 20 };
enum { BLOCK = 64, TOP_K = 16, TILE = 256 }; /* the defaults, which the saved tensors' shapes follow */
enum { Q_SIZE = B * N * H * D, KV_SIZE = B * N * HKV * D, CMP_SIZE = B * (N / BLOCK) * HKV * D };

static float q[Q_SIZE], k[KV_SIZE], v[KV_SIZE], out[Q_SIZE], dense[Q_SIZE];
static float dq[Q_SIZE], dk[KV_SIZE], dv[KV_SIZE], dout[Q_SIZE];
static float w_gate[H * 3 * D], dw_gate[H * 3 * D];

/* What the forward keeps for the backward: little beside q, k and v. */
static float k_cmp[CMP_SIZE], v_cmp[CMP_SIZE], lse_cmp[B * H * N], lse_slc[B * H * N], lse_win[B * H * N];
static int32_t indices[B * H * (N / TILE) * TOP_K];

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

static void fill(float *values, size_t count, float least, float most) {
    for (size_t i = 0; i < count; i++) values[i] = least + (most - least) * (float)rand() / (float)RAND_MAX;
}

/* The mean square of out - dense; dout becomes its gradient. */
static float loss(void) {
    float sum = 0;
    for (size_t i = 0; i < Q_SIZE; i++) {
        const float difference = out[i] - dense[i];
        sum += difference * difference;
        dout[i] = 2 * difference / Q_SIZE;
    }
    return sum / Q_SIZE;
}

int main(void) {
    fill(q, Q_SIZE, 0, 1);
    fill(k, KV_SIZE, -1, 1);
    fill(v, KV_SIZE, -1, 1);
    saccade_nsa_tensors tensors = {
        .q = SACCADE_TENSOR(q, SACCADE_F32, B, N, H, D),
        .k = SACCADE_TENSOR(k, SACCADE_F32, B, N, HKV, D),
        .v = SACCADE_TENSOR(v, SACCADE_F32, B, N, HKV, D),
        .w_gate = SACCADE_TENSOR(w_gate, SACCADE_F32, H, 3, D),
        .k_cmp = SACCADE_TENSOR(k_cmp, SACCADE_F32, B, N / BLOCK, HKV, D),
        .v_cmp = SACCADE_TENSOR(v_cmp, SACCADE_F32, B, N / BLOCK, HKV, D),
        .indices = SACCADE_TENSOR(indices, SACCADE_I32, B, H, N / TILE, TOP_K),
        .lse_cmp = SACCADE_TENSOR(lse_cmp, SACCADE_F32, B, H, N),
        .lse_slc = SACCADE_TENSOR(lse_slc, SACCADE_F32, B, H, N),
        .lse_win = SACCADE_TENSOR(lse_win, SACCADE_F32, B, H, N),
    };
    saccade_nsa_grads grads = {
        .dout = SACCADE_TENSOR(dout, SACCADE_F32, B, N, H, D),
        .dq = SACCADE_TENSOR(dq, SACCADE_F32, B, N, H, D),
        .dk = SACCADE_TENSOR(dk, SACCADE_F32, B, N, HKV, D),
        .dv = SACCADE_TENSOR(dv, SACCADE_F32, B, N, HKV, D),
        .dw_gate = SACCADE_TENSOR(dw_gate, SACCADE_F32, H, 3, D),
    };

    saccade_context *ctx;
    check(saccade_context_create(&ctx, NULL));
    check(saccade_attention_forward(ctx, tensors.q, tensors.k, tensors.v,
                                    SACCADE_TENSOR(dense, SACCADE_F32, B, N, H, D), NULL,
                                    &(saccade_attention_params){.causal = SACCADE_CAUSAL_TOP_LEFT}));
    const float rate = 1000;
    float first = 0, last = 0;
    for (int step = 0; step < STEPS; step++) {
        check(saccade_nsa_forward(ctx, &tensors, SACCADE_TENSOR(out, SACCADE_F32, B, N, H, D), NULL));
        last = loss();
        if (step == 0) first = last;
        check(saccade_nsa_backward(ctx, &tensors, &grads, NULL));
        for (size_t i = 0; i < H * 3 * D; i++) w_gate[i] -= rate * dw_gate[i];
    }
    printf("loss %.1e, after %d steps %.1e\n", (double)first, STEPS, (double)last);
    saccade_context_destroy(ctx);
    return last < first / 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
