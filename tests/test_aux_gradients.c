/* test_aux_gradients.c - gradients of several aux tensors do not meet, whatever their ranks. */
#include <math.h>
#include <saccade/attention.h>
#include <saccade/native_modifier.h>

#include "support/cmocka_all.h"

enum { N = 40, H = 2, D = 16 };

SACCADE_SCORE_MOD(affine, { return score * aux_f32(0, 0) + aux_f32(1, h) * kv_idx; })
SACCADE_SCORE_GRAD(affine, {
    aux_grad(0, 0, grad * score);
    aux_grad(1, h, grad * kv_idx);
    return grad * aux_f32(0, 0);
})

typedef struct aux_gradients {
    float gain, slope[H];
} aux_gradients;

/* Values that differ everywhere, in [-1, 1]. */
static void fill(float *x, int seed) {
    for (int i = 0; i < N * H * D; i++) x[i] = sinf(0.37f * (float)(i + 1) + (float)seed);
}

static aux_gradients gradients_on(const char *backend) {
    static float q[N * H * D], k[N * H * D], v[N * H * D], out[N * H * D], lse[N * H], dout[N * H * D];
    fill(q, 1), fill(k, 2), fill(v, 3), fill(dout, 4);
    DLTensor *const tq = SACCADE_TENSOR(q, SACCADE_F32, 1, N, H, D);
    DLTensor *const tk = SACCADE_TENSOR(k, SACCADE_F32, 1, N, H, D);
    DLTensor *const tv = SACCADE_TENSOR(v, SACCADE_F32, 1, N, H, D);
    DLTensor *const tout = SACCADE_TENSOR(out, SACCADE_F32, 1, N, H, D);
    DLTensor *const tlse = SACCADE_TENSOR(lse, SACCADE_F32, 1, H, N);

    saccade_context *ctx;
    saccade_modifier *modifier;
    assert_int_equal(saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = ""}), SACCADE_OK);
    saccade_modifier_params described = {
        .native = &affine,
        .native_grad = &affine_grad,
        .num_aux = 2,
        .aux = (saccade_aux_decl[]){{"gain", SACCADE_F32}, {"slope", SACCADE_F32}}};
    assert_int_equal(saccade_modifier_create(ctx, &modifier, &described), SACCADE_OK);

    aux_gradients result = {NAN, {NAN, NAN}};
    float gain_value = 0.75f, slope_values[H] = {0.01f, -0.02f};
    DLTensor gain = {.data = &gain_value, .device = {kDLCPU, 0}, .dtype = SACCADE_F32}, dgain = gain;
    dgain.data = &result.gain;
    dgain.strides =
        (int64_t[1]){0}; /* some exporters give a tensor without dimensions strides all the same */
    saccade_attention_params params = {
        .backend = backend,
        .score_mod = {.modifier = modifier,
                      .aux = (const DLTensor *[]){&gain, SACCADE_TENSOR(slope_values, SACCADE_F32, H)}}};
    saccade_attention_grads grads = {
        .dout = SACCADE_TENSOR(dout, SACCADE_F32, 1, N, H, D),
        .daux = (DLTensor *[]){&dgain, SACCADE_TENSOR(result.slope, SACCADE_F32, H)}};
    if (saccade_attention_forward(ctx, tq, tk, tv, tout, tlse, &params) != SACCADE_OK ||
        saccade_attention_backward(ctx, tq, tk, tv, tout, tlse, &grads, &params) != SACCADE_OK)
        fail_msg("%s: %s", backend, saccade_last_error());
    saccade_modifier_destroy(modifier);
    saccade_context_destroy(ctx);
    return result;
}

static void expect_close(const char *name, float found, float expected) {
    if (!(fabsf(found - expected) <= 1e-4f + 1e-4f * fabsf(expected)))
        fail_msg("%s: cpu gives %g, the reference %g", name, (double)found, (double)expected);
}

static void tensor_without_dimensions_has_a_gradient_of_its_own(void **state) {
    (void)state;
    aux_gradients found = gradients_on("cpu"), expected = gradients_on("reference");
    expect_close("gain", found.gain, expected.gain);
    expect_close("slope[0]", found.slope[0], expected.slope[0]);
    expect_close("slope[1]", found.slope[1], expected.slope[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tensor_without_dimensions_has_a_gradient_of_its_own)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
