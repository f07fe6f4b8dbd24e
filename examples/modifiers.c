/* modifiers.c - masks and scores of one's own. docs/modifiers.md explains it piece by piece. */
#include <saccade/attention.h>
#include <saccade/native_modifier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 1, N = 8, H = 2, D = 16 };
static float q[B * N * H * D], k[B * N * H * D], v[B * N * H * D], out[B * N * H * D], lse[B * H * N];

/* Ends the program with the library's words when a call failed. */
static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

/* Attention of q, k, v with these parameters. */
static void attend(saccade_context *ctx, const saccade_attention_params *params) {
    check(saccade_attention_forward(
        ctx, SACCADE_TENSOR(q, SACCADE_F32, B, N, H, D), SACCADE_TENSOR(k, SACCADE_F32, B, N, H, D),
        SACCADE_TENSOR(v, SACCADE_F32, B, N, H, D), SACCADE_TENSOR(out, SACCADE_F32, B, N, H, D),
        SACCADE_TENSOR(lse, SACCADE_F32, B, H, N), params));
}

/* The gradient, for a loss whose gradient in out is v, of the aux tensors alone. */
static void attend_backward(saccade_context *ctx, const saccade_attention_params *params, DLTensor **daux) {
    saccade_attention_grads grads = {.dout = SACCADE_TENSOR(v, SACCADE_F32, B, N, H, D), .daux = daux};
    check(saccade_attention_backward(
        ctx, SACCADE_TENSOR(q, SACCADE_F32, B, N, H, D), SACCADE_TENSOR(k, SACCADE_F32, B, N, H, D),
        SACCADE_TENSOR(v, SACCADE_F32, B, N, H, D), SACCADE_TENSOR(out, SACCADE_F32, B, N, H, D),
        SACCADE_TENSOR(lse, SACCADE_F32, B, H, N), &grads, params));
}

static void prefix_mask(saccade_context *ctx) {
    saccade_modifier_params description = {
        .kind = SACCADE_MASK_KIND,
        .name = "prefix_lm",
        .text = "kv_idx < aux_i32(prefix, b) || q_idx >= kv_idx",
        .num_aux = 1,
        .aux = (saccade_aux_decl[]){{.name = "prefix", .dtype = SACCADE_I32}},
    };
    saccade_modifier *prefix_lm;
    check(saccade_modifier_create(ctx, &prefix_lm, &description));

    int32_t prefix[B] = {3};
    const DLTensor *aux[] = {SACCADE_TENSOR(prefix, SACCADE_I32, B)};
    attend(ctx, &(saccade_attention_params){.mask_mod = {.modifier = prefix_lm, .aux = aux}});
    saccade_modifier_destroy(prefix_lm);
}

static void softcap_with_its_gradient(saccade_context *ctx) {
    saccade_modifier_params description = {
        .kind = SACCADE_SCORE_KIND,
        .name = "softcap",
        .text = "scalar(cap) * tanhf(score / scalar(cap))",
        .grad_text = "{\n"
                     "    float t = tanhf(score / scalar(cap));\n"
                     "    return grad * (1.f - t * t);\n"
                     "}",
        .num_scalars = 1,
        .scalars = (const char *[]){"cap"},
    };
    saccade_modifier *softcap;
    check(saccade_modifier_create(ctx, &softcap, &description));

    /* The same modifier with other values: nothing is compiled again. */
    for (float cap = 30; cap <= 50; cap += 10)
        attend(ctx, &(saccade_attention_params){.score_mod = {.modifier = softcap, .scalars = &cap}});
    saccade_modifier_destroy(softcap);
}

static void learned_bias(saccade_context *ctx) {
    saccade_modifier_params description = {
        .kind = SACCADE_SCORE_KIND,
        .name = "relative",
        .text = "{\n"
                "    int64_t distance = q_idx - kv_idx + aux_size(bias, 1) / 2;\n"
                "    return score + aux_f32(bias, h * aux_size(bias, 1) + distance);\n"
                "}",
        .grad_text = "{\n"
                     "    int64_t distance = q_idx - kv_idx + aux_size(bias, 1) / 2;\n"
                     "    aux_grad(bias, h * aux_size(bias, 1) + distance, grad);\n"
                     "    return grad;\n"
                     "}",
        .num_aux = 1,
        .aux = (saccade_aux_decl[]){{.name = "bias", .dtype = SACCADE_F32}},
    };
    saccade_modifier *relative;
    check(saccade_modifier_create(ctx, &relative, &description));

    static float bias[H][2 * N - 1], dbias[H][2 * N - 1]; /* by distance, from -(N - 1) to N - 1 */
    const DLTensor *aux[] = {SACCADE_TENSOR(bias, SACCADE_F32, H, 2 * N - 1)};
    DLTensor *daux[] = {SACCADE_TENSOR(dbias, SACCADE_F32, H, 2 * N - 1)};
    saccade_attention_params params = {.score_mod = {.modifier = relative, .aux = aux}};
    attend(ctx, &params);
    attend_backward(ctx, &params, daux);
    saccade_modifier_destroy(relative);

    /* A softmax does not see what is added to a whole row, so that these sum to 0. */
    float sum = 0, first = dbias[0][0];
    for (int i = 0; i < 2 * N - 1; i++) sum += dbias[0][i];
    printf("dbias: computed %s, sum of a head is 0 %s\n", first != 0 ? "yes" : "no",
           sum < 1e-5f && sum > -1e-5f ? "yes" : "no");
}

enum { reach };
SACCADE_MASK_MOD(dilated, {
    int32_t distance = q_idx - kv_idx, most = (int32_t)scalar(reach);
    return distance >= 0 && distance <= most && distance % 2 == 0;
})

static void native_mask(saccade_context *ctx) {
    saccade_modifier_params description = {
        .native = &dilated,
        .num_scalars = 1,
        .scalars = (const char *[]){"reach"},
    };
    saccade_modifier *every_other;
    check(saccade_modifier_create(ctx, &every_other, &description));

    float most = 4;
    attend(ctx, &(saccade_attention_params){.mask_mod = {.modifier = every_other, .scalars = &most}});
    printf("dilated runs as %s code\n", saccade_modifier_compiler(every_other));
    saccade_modifier_destroy(every_other);
}

static void mistakes(saccade_context *ctx) {
    saccade_modifier_params description = {
        .kind = SACCADE_MASK_KIND,
        .name = "documents",
        .text = "aux_f32(document, q_idx) == aux_f32(document, kv_idx)",
        .num_aux = 1,
        .aux = (saccade_aux_decl[]){{.name = "document", .dtype = SACCADE_I32}},
    };
    saccade_modifier *documents;
    if (saccade_modifier_create(ctx, &documents, &description) != SACCADE_OK)
        printf("%s\n", saccade_last_error());

    description.text = "aux_i32(document, q_idx) ==\n    document_of(kv_idx)";
    check(saccade_modifier_create(ctx, &documents, &description));
    if (saccade_modifier_compile(ctx, documents) == SACCADE_COMPILE_FAILED)
        printf("line 2 is named: %s\n", strstr(saccade_last_error(), "documents:2:") ? "yes" : "no");
    saccade_modifier_destroy(documents);
}

/* Draws the pairs that a text with the scalar n and the documents 0 0 0 1 1 1 1 2 lets through. */
static void draw(saccade_context *ctx, const char *text, float n) {
    int32_t documents[N] = {0, 0, 0, 1, 1, 1, 1, 2};
    saccade_modifier_params description = {
        .kind = SACCADE_MASK_KIND,
        .text = text,
        .num_aux = 1,
        .aux = (saccade_aux_decl[]){{.name = "document", .dtype = SACCADE_I32}},
        .num_scalars = 1,
        .scalars = (const char *[]){"n"},
    };
    saccade_modifier *modifier;
    check(saccade_modifier_create(ctx, &modifier, &description));

    const DLTensor *aux[] = {SACCADE_TENSOR(documents, SACCADE_I32, N)};
    saccade_bound_modifier bound = {.modifier = modifier, .aux = aux, .scalars = &n};
    saccade_mask_shape shape = {.q_len = N, .kv_len = N, .q_block = 4, .kv_block = 4};
    saccade_block_mask *mask;
    check(saccade_block_mask_from_mod(ctx, &mask, &shape, &bound));
    printf("%s\n", text);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            bool visible;
            check(saccade_block_mask_visible(ctx, mask, 0, 0, i, j, &visible));
            printf(visible ? " #" : " .");
        }
        printf("\n");
    }
    saccade_block_mask_destroy(mask);
    saccade_modifier_destroy(modifier);
}

int main(void) {
    for (int i = 0; i < B * N * H * D; i++) {
        q[i] = (float)rand() / (float)RAND_MAX - 0.5f;
        k[i] = (float)rand() / (float)RAND_MAX - 0.5f;
        v[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    }
    saccade_context *ctx;
    check(saccade_context_create(&ctx, NULL));
    prefix_mask(ctx);
    softcap_with_its_gradient(ctx);
    learned_bias(ctx);
    native_mask(ctx);
    mistakes(ctx);
    draw(ctx, "q_idx >= kv_idx", 0);
    draw(ctx, "q_idx >= kv_idx && q_idx - kv_idx < scalar(n)", 3);
    draw(ctx, "kv_idx < scalar(n) || q_idx >= kv_idx", 3);
    draw(ctx, "aux_i32(document, q_idx) == aux_i32(document, kv_idx)", 0);
    draw(ctx, "q_idx / (int32_t)scalar(n) == kv_idx / (int32_t)scalar(n)", 4);
    draw(ctx, "{ int32_t d = q_idx - kv_idx; return d >= 0 && (d < 2 || d % (int32_t)scalar(n) == 0); }", 3);
    saccade_context_destroy(ctx);
    return EXIT_SUCCESS;
}
