/* test_null_arguments.c - a pointer that is NULL where the headers do not allow it is an argument's name, never a
 * crash. */
#include <saccade/backend.h>
#include <saccade/device_mask.h>
#include <saccade/nsa.h>

#include "support/cmocka_all.h"
#include "support/test_context.h"

static float values[64];
#define TENSOR SACCADE_TENSOR(values, SACCADE_F32, 1, 1, 1, 8)
#define LSE SACCADE_TENSOR(values, SACCADE_F32, 1, 1, 1)

static void calls_name_what_is_missing(void **state) {
    (void)state;
    size_t bytes;
    assert_invalid(saccade_context_create(NULL, NULL), "ctx: is NULL");
    saccade_context *none = NULL;
    assert_invalid(saccade_context_create(&none, &(saccade_context_params){.num_threads = 1 << 20}),
                   "num_threads: 1048576, must lie in 0..4096");
    assert_null(none);
    assert_invalid(saccade_context_set_stream(NULL, NULL), "ctx: is NULL");
    assert_invalid(saccade_attention_forward(NULL, TENSOR, TENSOR, TENSOR, TENSOR, NULL, NULL),
                   "ctx: is NULL");
    assert_invalid(saccade_attention_forward(ctx, NULL, TENSOR, TENSOR, TENSOR, NULL, NULL), "q: is NULL");
    assert_invalid(saccade_attention_forward(ctx, TENSOR, NULL, TENSOR, TENSOR, NULL, NULL), "k: is NULL");
    assert_invalid(saccade_attention_forward(ctx, TENSOR, TENSOR, NULL, TENSOR, NULL, NULL), "v: is NULL");
    assert_invalid(saccade_attention_forward(ctx, TENSOR, TENSOR, TENSOR, NULL, NULL, NULL), "out: is NULL");
    assert_invalid(saccade_attention_backward(ctx, TENSOR, TENSOR, TENSOR, TENSOR, LSE, NULL, NULL),
                   "grads: is NULL");
    assert_invalid(saccade_attention_backward(ctx, TENSOR, TENSOR, TENSOR, TENSOR, NULL,
                                              &(saccade_attention_grads){.dout = TENSOR}, NULL),
                   "lse: is NULL");
    assert_invalid(saccade_attention_backward(ctx, TENSOR, TENSOR, TENSOR, TENSOR, LSE,
                                              &(saccade_attention_grads){.dout = NULL}, NULL),
                   "dout: is NULL");
    assert_invalid(saccade_attention_workspace(NULL, TENSOR, TENSOR, TENSOR, NULL, NULL, &bytes),
                   "ctx: is NULL");
    assert_invalid(saccade_attention_workspace(ctx, TENSOR, TENSOR, TENSOR, NULL, NULL, NULL),
                   "bytes: is NULL");
    assert_invalid(saccade_nsa_forward(ctx, NULL, TENSOR, NULL), "t: is NULL");
    assert_invalid(saccade_nsa_forward(ctx, &(saccade_nsa_tensors){0}, NULL, NULL), "out: is NULL");
    assert_invalid(saccade_nsa_workspace(ctx, &(saccade_nsa_tensors){0}, NULL, NULL, NULL), "bytes: is NULL");
}

static void masks_name_what_is_missing(void **state) {
    (void)state;
    const saccade_mask_shape shape = {.q_len = 8, .kv_len = 8};
    const int32_t lengths[] = {8};
    saccade_block_mask *mask = NULL, *made;
    saccade_block_mask_info info;
    bool visible;
    assert_invalid(saccade_block_mask_causal(NULL, &mask, &shape, false), "ctx: is NULL");
    assert_invalid(saccade_block_mask_causal(ctx, NULL, &shape, false), "mask: is NULL");
    assert_invalid(saccade_block_mask_causal(ctx, &mask, NULL, false), "shape: is NULL");
    assert_invalid(saccade_block_mask_documents(ctx, NULL, &shape, lengths, 1), "mask: is NULL");
    assert_invalid(saccade_block_mask_documents(ctx, &mask, &shape, NULL, 1), "lengths: is NULL");
    assert_invalid(saccade_block_mask_prefix_lm(ctx, &mask, &shape, NULL), "prefix: is NULL");
    assert_invalid(saccade_block_mask_from_mod(ctx, &mask, &shape, NULL), "mask_mod: is NULL");
    assert_invalid(saccade_block_mask_from_dense(ctx, &mask, NULL, 8, 8), "visible: is NULL");
    assert_invalid(saccade_block_mask_from_indices(ctx, &mask, &shape, NULL, SACCADE_FULL),
                   "indices: is NULL");
    assert_invalid(saccade_block_mask_import(ctx, &mask, &shape, NULL), "tensors: is NULL");
    assert_invalid(saccade_block_mask_export(NULL, &(saccade_block_mask_tensors){0}), "mask: is NULL");
    assert_invalid(saccade_block_mask_visible(ctx, NULL, 0, 0, 0, 0, &visible), "mask: is NULL");
    assert_invalid(saccade_block_mask_get_info(NULL, &info), "mask: is NULL");
    assert_int_equal(saccade_block_mask_kind(NULL, 0, 0, 0, 0), -1);
    assert_invalid(saccade_block_mask_not(ctx, &mask, NULL), "a: is NULL");
    assert_invalid(saccade_device_mask_causal(ctx, &mask, NULL, false), "params: is NULL");
    assert_invalid(saccade_device_mask_bytes(ctx, &(saccade_device_mask_params){.shape = shape}, NULL),
                   "bytes: is NULL");
    assert_invalid(saccade_device_mask_check(ctx, NULL, NULL), "mask: is NULL");
    assert_null(mask);
    must(saccade_block_mask_causal(ctx, &made, &shape, false));
    assert_invalid(saccade_block_mask_export(made, NULL), "tensors: is NULL");
    assert_invalid(saccade_block_mask_get_info(made, NULL), "info: is NULL");
    assert_invalid(saccade_block_mask_visible(ctx, made, 0, 0, 0, 0, NULL), "visible: is NULL");
    assert_invalid(saccade_block_mask_and(ctx, &mask, made, NULL), "b: is NULL");
    assert_invalid(saccade_block_mask_and(ctx, NULL, made, made), "mask: is NULL");
    saccade_block_mask_destroy(made);
    saccade_block_mask_destroy(NULL);
}

static void modifiers_and_reports_name_what_is_missing(void **state) {
    (void)state;
    const saccade_modifier_params params = {.kind = SACCADE_MASK_KIND, .text = "1"};
    saccade_modifier *modifier = NULL;
    saccade_backend_report *report = NULL;
    saccade_request request;
    assert_invalid(saccade_modifier_create(NULL, &modifier, &params), "ctx: is NULL");
    assert_invalid(saccade_modifier_create(ctx, NULL, &params), "modifier: is NULL");
    assert_invalid(saccade_modifier_create(ctx, &modifier, NULL), "params: is NULL");
    assert_invalid(saccade_modifier_compile(ctx, NULL), "modifier: is NULL");
    assert_string_equal(saccade_modifier_compiler(NULL), "");
    must(saccade_request_from_call(&request, TENSOR, TENSOR, TENSOR, NULL, NULL));
    assert_invalid(saccade_request_from_call(NULL, TENSOR, TENSOR, TENSOR, NULL, NULL), "request: is NULL");
    assert_invalid(saccade_request_from_call(&request, NULL, TENSOR, TENSOR, NULL, NULL), "q: is NULL");
    assert_invalid(saccade_select_backend(NULL, &request, &report), "ctx: is NULL");
    assert_invalid(saccade_select_backend(ctx, NULL, &report), "request: is NULL");
    assert_null(modifier);
    assert_null(report);
    saccade_modifier_destroy(NULL);
    saccade_backend_report_destroy(NULL);
    saccade_context_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_name_what_is_missing),
        cmocka_unit_test(masks_name_what_is_missing),
        cmocka_unit_test(modifiers_and_reports_name_what_is_missing),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
