/* modifiers.c - bodies of the tests' modifiers, and the tensors they read. */
#include "support/modifiers.h"

#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/random.h"

static double noise(int64_t index) {
    test_random random = {(uint64_t)index + 77};
    return random_normal(&random);
}

/* ---- score_mods ---- */

SACCADE_SCORE_MOD(smooth_cap, { return 3.f * tanhf(score / 3.f); })
SACCADE_SCORE_GRAD(smooth_cap, {
    float t = tanhf(score / 3.f);
    return grad * (1.f - t * t);
})
const test_modifier test_smooth_cap = {.native = &smooth_cap, .grad = &smooth_cap_grad};

/* bias (H, 64): the distance, folded into 64 buckets. */
SACCADE_SCORE_MOD(relative_bias, { return score + aux_f32(0, h * aux_size(0, 1) + ((kv_idx - q_idx) & 63)); })
SACCADE_SCORE_GRAD(relative_bias, {
    aux_grad(0, h * aux_size(0, 1) + ((kv_idx - q_idx) & 63), grad);
    return grad;
})
static test_shape bias_shape(const attention_case *c) { return (test_shape){2, {c->num_heads, 64}}; }
static double bias_value(const attention_case *c, int64_t index) {
    (void)c;
    return noise(index);
}
const test_modifier test_relative_bias = {
    .native = &relative_bias,
    .grad = &relative_bias_grad,
    .num_aux = 1,
    .aux = {
        {.decl = {.name = "bias", .dtype = {kDLFloat, 32, 1}}, .shape = bias_shape, .value = bias_value}}};

SACCADE_SCORE_MOD(temperature, { return score * scalar(0) * aux_f32(0, b); })
SACCADE_SCORE_GRAD(temperature, {
    aux_grad(0, b, grad * score * scalar(0));
    return grad * scalar(0) * aux_f32(0, b);
})
static test_shape batch_shape(const attention_case *c) { return (test_shape){1, {c->batch}}; }
static double temperature_value(const attention_case *c, int64_t index) {
    (void)c;
    return 0.75 + 0.125 * (double)(index % 5);
}
const test_modifier test_temperature = {.native = &temperature,
                                        .grad = &temperature_grad,
                                        .num_aux = 1,
                                        .num_scalars = 1,
                                        .aux = {{.decl = {.name = "factor", .dtype = {kDLFloat, 32, 1}},
                                                 .shape = batch_shape,
                                                 .value = temperature_value}},
                                        .scalar_names = {"gain"},
                                        .scalars = {1.25f}};

SACCADE_SCORE_MOD(head_slope, { return score + 0.01f * (h + 1) * (kv_idx - q_idx); })
SACCADE_SCORE_GRAD(head_slope, { return grad; })
const test_modifier test_head_slope = {.native = &head_slope, .grad = &head_slope_grad};

/* ---- mask_mods ---- */

SACCADE_MASK_MOD(prefix_lm, { return kv_idx < aux_i32(0, b) || q_idx >= kv_idx; })
static double prefix_value(const attention_case *c, int64_t index) {
    return (double)(((index + 1) * c->seqlen_k / 3) % (c->seqlen_k + 1));
}
const test_modifier test_prefix_lm = {
    .native = &prefix_lm,
    .num_aux = 1,
    .aux = {
        {.decl = {.name = "prefix", .dtype = {kDLInt, 32, 1}}, .shape = batch_shape, .value = prefix_value}}};

SACCADE_MASK_MOD(documents, { return aux_i32(0, q_idx) == aux_i32(0, kv_idx); })
static test_shape longest_shape(const attention_case *c) {
    return (test_shape){1, {c->seqlen_q > c->seqlen_k ? c->seqlen_q : c->seqlen_k}};
}
static double document_value(const attention_case *c, int64_t index) {
    (void)c;
    return (double)(index / 37);
}
const test_modifier test_documents = {.native = &documents,
                                      .num_aux = 1,
                                      .aux = {{.decl = {.name = "document", .dtype = {kDLInt, 32, 1}},
                                               .shape = longest_shape,
                                               .value = document_value}}};

SACCADE_MASK_MOD(dilated, { return (q_idx - kv_idx) % 3 == 0; })
const test_modifier test_dilated = {.native = &dilated};

SACCADE_MASK_MOD(blind_rows, { return q_idx % 5 != 4; })
const test_modifier test_blind_rows = {.native = &blind_rows};

SACCADE_MASK_MOD(late_keys, { return kv_idx >= 200; })
const test_modifier test_late_keys = {.native = &late_keys};

SACCADE_MASK_MOD(head_parity, { return (q_idx + kv_idx + h + b) % 2 == 0; })
const test_modifier test_head_parity = {.native = &head_parity};

/* ---- making them ---- */

saccade_modifier *test_modifier_create(saccade_context *ctx, const test_modifier *modifier, bool as_text) {
    saccade_aux_decl decls[TEST_MAX_SLOTS];
    saccade_modifier *made = NULL;
    for (int32_t i = 0; i < modifier->num_aux; i++) decls[i] = modifier->aux[i].decl;
    saccade_modifier_params params = {.native = modifier->native,
                                      .native_grad = modifier->grad,
                                      .num_aux = modifier->num_aux,
                                      .aux = decls,
                                      .num_scalars = modifier->num_scalars,
                                      .scalars = modifier->scalar_names};
    if (as_text) {
        params.kind = modifier->native->kind;
        params.text = modifier->native->text;
        params.grad_text = modifier->grad ? modifier->grad->text : NULL;
        params.native = NULL;
        params.native_grad = NULL;
    }
    if (saccade_modifier_create(ctx, &made, &params) != SACCADE_OK)
        fail_msg("modifier %s: %s", modifier->native->name, saccade_last_error());
    return made;
}

void test_modifier_values(const test_modifier *modifier, const attention_case *c, saccade_aux *aux) {
    memset(aux, 0, sizeof *aux);
    for (int32_t i = 0; i < modifier->num_aux; i++) {
        const test_aux *declared = &modifier->aux[i];
        test_shape shape = declared->shape(c);
        int64_t size = test_shape_size(&shape);
        float *f32 = calloc((size_t)size + 1, sizeof *f32);
        int32_t *i32 = (int32_t *)f32; /* elements of both are as wide */
        assert_non_null(f32);
        for (int64_t e = 0; e < size; e++) {
            if (declared->decl.dtype.code == kDLInt)
                i32[e] = (int32_t)declared->value(c, e);
            else
                f32[e] = (float)declared->value(c, e);
        }
        aux->tensor[i].data = f32;
        memcpy(aux->tensor[i].extent, shape.extent, sizeof aux->tensor[i].extent);
    }
    for (int32_t i = 0; i < modifier->num_scalars; i++) aux->scalar[i] = modifier->scalars[i];
}

void test_modifier_values_free(saccade_aux *aux) {
    for (int i = 0; i < TEST_MAX_SLOTS; i++) free((void *)aux->tensor[i].data);
    memset(aux, 0, sizeof *aux);
}
