/* test_modifier_rows.c - modifiers evaluated through the public interface, a row at a time. */
#include <string.h>

#include <saccade/modifier.h>

#include "support/cmocka_all.h"
#include "support/test_context.h"

static void mask_row_is_the_text_at_each_key(void **state) {
    (void)state;
    saccade_modifier *mod = made(&(saccade_modifier_params){
        .kind = SACCADE_MASK_KIND, .text = "(kv_idx + h) % 3 == b || q_idx == kv_idx"});
    saccade_bound_modifier bound = {.modifier = mod};
    uint8_t visible[9];
    memset(visible, 7, sizeof visible);
    saccade_modifier_row row = {.b = 1, .h = 2, .q_idx = 10, .kv_idx = 4, .n = 8};
    assert_int_equal(saccade_modifier_mask_row(ctx, &bound, &row, visible), SACCADE_OK);
    for (int i = 0; i < 8; i++) assert_int_equal(visible[i], (i + 4 + 2) % 3 == 1 || i + 4 == 10);
    assert_int_equal(visible[8], 7);
    saccade_modifier_destroy(mod);
}

static void score_row_and_its_gradient_use_aux_tensors_and_scalars(void **state) {
    (void)state;
    float bias[4] = {1, 2, 3, 4}, dbias[4] = {0}, slope = 0.5f;
    saccade_modifier *mod = made(&(saccade_modifier_params){
        .kind = SACCADE_SCORE_KIND,
        .text = "score * scalar(slope) + aux_f32(bias, kv_idx)",
        .grad_text = "{ aux_grad(bias, kv_idx, grad); return grad * scalar(slope); }",
        .num_aux = 1,
        .aux = (saccade_aux_decl[]){{.name = "bias", .dtype = SACCADE_F32}},
        .num_scalars = 1,
        .scalars = (const char *[]){"slope"}});
    saccade_bound_modifier bound = {.modifier = mod,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(bias, SACCADE_F32, 4)},
                                    .scalars = &slope};
    saccade_modifier_row row = {.q_idx = 3, .kv_idx = 1, .n = 3};
    float score[3] = {10, 20, 30}, before[3] = {10, 20, 30}, grad[3] = {1, 2, 4};
    assert_int_equal(saccade_modifier_score_row(ctx, &bound, &row, score), SACCADE_OK);
    for (int i = 0; i < 3; i++) assert_true(score[i] == before[i] * 0.5f + bias[i + 1]);
    DLTensor *daux[1] = {SACCADE_TENSOR(dbias, SACCADE_F32, 4)};
    assert_int_equal(saccade_modifier_score_grad_row(ctx, &bound, &row, grad, before, daux), SACCADE_OK);
    for (int i = 0; i < 3; i++)
        assert_true(grad[i] == 0.5f * (float)(1 << i) && dbias[i + 1] == (float)(1 << i));
    assert_true(dbias[0] == 0);
    saccade_modifier_destroy(mod);
}

static void wrong_kinds_and_absent_gradients_are_refused(void **state) {
    (void)state;
    saccade_modifier *mask = made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "1"});
    saccade_modifier *score = made(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .text = "score"});
    saccade_bound_modifier bound_mask = {.modifier = mask}, bound_score = {.modifier = score}, none = {0};
    saccade_modifier_row row = {.n = 1}, negative = {.n = -1};
    float x[1] = {3}, grad[1] = {1};
    uint8_t visible[1] = {7};
    assert_invalid(saccade_modifier_score_row(ctx, &bound_mask, &row, x), "is a mask_mod");
    assert_invalid(saccade_modifier_mask_row(ctx, &bound_score, &row, visible), "is a score_mod");
    assert_invalid(saccade_modifier_mask_row(ctx, &none, &row, visible), "there is none");
    assert_invalid(saccade_modifier_mask_row(ctx, &bound_mask, &negative, visible), "row.n: -1 is negative");
    assert_invalid(saccade_modifier_score_grad_row(ctx, &bound_score, &row, grad, x, NULL), "no gradient");
    assert_true(x[0] == 3 && grad[0] == 1 && visible[0] == 7);
    saccade_modifier_destroy(mask);
    saccade_modifier_destroy(score);
}

static void rows_and_gradients_that_have_no_place_are_refused(void **state) {
    (void)state;
    float bias[4] = {1, 2, 3, 4}, score[4] = {0}, grad[4] = {0};
    saccade_modifier *mod =
        made(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND,
                                        .text = "score + aux_f32(bias, kv_idx)",
                                        .grad_text = "{ aux_grad(bias, kv_idx, grad); return grad; }",
                                        .num_aux = 1,
                                        .aux = (saccade_aux_decl[]){{.name = "bias", .dtype = SACCADE_F32}}});
    saccade_bound_modifier bound = {.modifier = mod,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(bias, SACCADE_F32, 4)}};
    saccade_modifier_row row = {.n = 4};
    DLTensor apart = *SACCADE_TENSOR(grad, SACCADE_F32, 4);
    apart.strides = (int64_t[]){2};
    const struct {
        const float *score;
        float *grad;
        DLTensor *dbias;
        const char *words;
    } wrong[] = {
        {NULL, grad, NULL, "score: is NULL"},
        {score, NULL, NULL, "grad: is NULL"},
        {score, grad, SACCADE_TENSOR(grad, SACCADE_F32, 3),
         "daux[0]: has 3 elements, but the aux tensor has 4"},
        {score, grad, SACCADE_TENSOR(grad, SACCADE_F16, 4), "daux[0]: dtype fp16"},
        {score, grad, SACCADE_TENSOR(NULL, SACCADE_F32, 4), "daux[0]: data is NULL"},
        {score, grad, &apart, "daux[0]: its strides leave gaps"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        DLTensor *daux[] = {wrong[i].dbias};
        assert_invalid(
            saccade_modifier_score_grad_row(ctx, &bound, &row, wrong[i].grad, wrong[i].score, daux),
            wrong[i].words);
    }
    assert_invalid(saccade_modifier_score_row(ctx, &bound, &row, NULL), "score: is NULL");
    saccade_modifier_destroy(mod);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mask_row_is_the_text_at_each_key),
        cmocka_unit_test(score_row_and_its_gradient_use_aux_tensors_and_scalars),
        cmocka_unit_test(wrong_kinds_and_absent_gradients_are_refused),
        cmocka_unit_test(rows_and_gradients_that_have_no_place_are_refused),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
