/* attention.c - causal grouped-query attention: 8 query heads share 2 key/value heads. */
#include <saccade/attention.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 1, N = 1024, H = 8, HKV = 2, D = 64 };
static float q[B * N * H * D], k[B * N * HKV * D], v[B * N * HKV * D], out[B * N * H * D], lse[B * H * N];

static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

int main(void) {
    fill(q, sizeof q / sizeof *q);
    fill(k, sizeof k / sizeof *k);
    fill(v, sizeof v / sizeof *v);

    saccade_context *ctx = NULL;
    saccade_attention_params params = {.causal = SACCADE_CAUSAL_TOP_LEFT};
    if (saccade_context_create(&ctx, NULL) != SACCADE_OK ||
        saccade_attention_forward(
            ctx, SACCADE_TENSOR(q, SACCADE_F32, B, N, H, D), SACCADE_TENSOR(k, SACCADE_F32, B, N, HKV, D),
            SACCADE_TENSOR(v, SACCADE_F32, B, N, HKV, D), SACCADE_TENSOR(out, SACCADE_F32, B, N, H, D),
            SACCADE_TENSOR(lse, SACCADE_F32, B, H, N), &params) != SACCADE_OK) {
        fprintf(stderr, "%s\n", saccade_last_error());
        return EXIT_FAILURE;
    }
    /* The first query sees the first key only, so its output is that key's value. */
    printf("out %.6f, v %.6f, lse %.6f\n", out[0], v[0], lse[0]);
    saccade_context_destroy(ctx);
    return out[0] == v[0] ? EXIT_SUCCESS : EXIT_FAILURE;
}
