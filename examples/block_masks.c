/* block_masks.c - masks by blocks: building, combining, looking, exchanging. docs/block_masks.md explains it. */
#include <saccade/attention.h>
#include <stdio.h>
#include <stdlib.h>

enum { H = 2, D = 16 };

/* Ends the program with the library's words when a call failed. */
static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

/* One letter a block: Full, Partial, Diagonal, or a dot where it is not listed. */
static void draw(const char *title, const saccade_block_mask *mask) {
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    printf("%s\n", title);
    for (int32_t row = 0; row < info.num_q_blocks; row++) {
        for (int32_t column = 0; column < info.num_kv_blocks; column++)
            printf(" %c", ".PFD"[saccade_block_mask_kind(mask, 0, 0, row, column)]);
        printf("\n");
    }
}

/* Attention over n tokens of random numbers, each seeing of the others what the mask lets it see. */
static void attend(saccade_context *ctx, int32_t n, const saccade_block_mask *mask) {
    size_t size = (size_t)(n * H * D);
    float *qkv = malloc(4 * size * sizeof *qkv), *q = qkv, *k = q + size, *v = k + size, *out = v + size;
    if (!qkv) exit(EXIT_FAILURE);
    for (size_t i = 0; i < 3 * size; i++) qkv[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    check(saccade_attention_forward(
        ctx, SACCADE_TENSOR(q, SACCADE_F32, 1, n, H, D), SACCADE_TENSOR(k, SACCADE_F32, 1, n, H, D),
        SACCADE_TENSOR(v, SACCADE_F32, 1, n, H, D), SACCADE_TENSOR(out, SACCADE_F32, 1, n, H, D), NULL,
        &(saccade_attention_params){.block_mask = mask}));
    free(qkv);
}

static void packed_documents(saccade_context *ctx) {
    saccade_mask_shape shape = {.q_len = 1024, .kv_len = 1024};
    int32_t lengths[] = {500, 140, 384};
    saccade_block_mask *causal, *documents, *mask;
    check(saccade_block_mask_causal(ctx, &causal, &shape, false));
    check(saccade_block_mask_documents(ctx, &documents, &shape, lengths, 3));
    check(saccade_block_mask_and(ctx, &mask, causal, documents));
    saccade_block_mask_destroy(causal);
    saccade_block_mask_destroy(documents);

    attend(ctx, 1024, mask);
    draw("causal within documents", mask);
    saccade_block_mask_destroy(mask);
}

static void draft_training(saccade_context *ctx) {
    saccade_mask_shape shape = {.q_len = 512, .kv_len = 3 * 512};
    saccade_block_mask *mask;
    check(saccade_block_mask_eagle3(ctx, &mask, &shape, NULL));
    draw("eagle3, 3 rounds", mask);
    saccade_block_mask_destroy(mask);
}

static void exchange(saccade_context *ctx) {
    saccade_mask_shape shape = {.q_len = 300, .kv_len = 300};
    saccade_block_mask *window;
    check(saccade_block_mask_window(ctx, &window, &shape, 400, 0, false));

    int32_t counts[3], indices[3][3], full_counts[3], full_indices[3][3];
    saccade_block_mask_tensors tensors = {
        .kv_num_blocks = SACCADE_TENSOR(counts, SACCADE_I32, 1, 1, 3),
        .kv_indices = SACCADE_TENSOR(indices, SACCADE_I32, 1, 1, 3, 3),
        .full_kv_num_blocks = SACCADE_TENSOR(full_counts, SACCADE_I32, 1, 1, 3),
        .full_kv_indices = SACCADE_TENSOR(full_indices, SACCADE_I32, 1, 1, 3, 3),
    };
    check(saccade_block_mask_export(window, &tensors));
    saccade_block_mask_destroy(window);

    for (int row = 0; row < 3; row++)
        printf("row %d: %d partial, the first is %d; %d full\n", row, counts[row], indices[row][0],
               full_counts[row]);
}

int main(void) {
    saccade_context *ctx;
    check(saccade_context_create(&ctx, NULL));
    packed_documents(ctx);
    draft_training(ctx);
    exchange(ctx);
    saccade_context_destroy(ctx);
    return EXIT_SUCCESS;
}
