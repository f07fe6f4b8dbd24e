/* test_attention_arguments.c - what saccade_attention_* refuses whatever the backend, and the words it uses. */
#include <math.h>

#include <saccade/attention.h>
#include <saccade/backend.h>

#include "api/attention_check.h"
#include "support/cmocka_all.h"
#include "support/test_context.h"

/* B 2, Nq 3, Nk 5, H 4, Hkv 2, D 16, Dv 8. */
static float q[2 * 3 * 4 * 16], k[2 * 5 * 2 * 16], v[2 * 5 * 2 * 8], out[2 * 3 * 4 * 8], lse[2 * 4 * 3];

static saccade_status check(const DLTensor *tq, const DLTensor *tk, const DLTensor *tv, const DLTensor *tout,
                            const DLTensor *tlse, const saccade_attention_params *params,
                            sac_attention_call *call) {
    static const saccade_attention_params defaults;
    saccade_request request;
    sac_attention_inputs in = {
        .q = tq, .k = tk, .v = tv, .out = tout, .lse = tlse, .params = params ? params : &defaults};
    return sac_attention_check(&in, call, &request);
}

#define Q SACCADE_TENSOR(q, SACCADE_F32, 2, 3, 4, 16)
#define K SACCADE_TENSOR(k, SACCADE_F32, 2, 5, 2, 16)
#define V SACCADE_TENSOR(v, SACCADE_F32, 2, 5, 2, 8)
#define OUT SACCADE_TENSOR(out, SACCADE_F32, 2, 3, 4, 8)
#define LSE SACCADE_TENSOR(lse, SACCADE_F32, 2, 4, 3)

static void accepts_dense_tensors_and_resolves_them(void **state) {
    (void)state;
    sac_attention_call call;
    assert_int_equal(check(Q, K, V, OUT, LSE, NULL, &call), SACCADE_OK);
    assert_int_equal(call.args.group, 2);
    assert_int_equal(call.args.head_dim, 16);
    assert_int_equal(call.args.head_dim_v, 8);
    assert_int_equal(call.args.q.batch_stride, 3 * 4 * 16);
    assert_int_equal(call.args.v.row_stride, 2 * 8);
    assert_int_equal(call.args.lse.head_stride, 3);
    assert_true(fabsf(call.args.scale - 0.25f) < 1e-7f);
}

static void names_the_shape_it_found_and_the_one_it_wants(void **state) {
    (void)state;
    sac_attention_call call;
    assert_invalid(check(Q, SACCADE_TENSOR(k, SACCADE_F32, 2, 5, 2, 8), V, OUT, LSE, NULL, &call),
                   "k: shape is (2, 5, 2, 8), expected (2, Nk, Hkv, 16)");
    assert_invalid(check(Q, K, SACCADE_TENSOR(v, SACCADE_F32, 2, 4, 2, 8), OUT, LSE, NULL, &call),
                   "v: shape is (2, 4, 2, 8), expected (2, 5, 2, Dv)");
    assert_invalid(check(SACCADE_TENSOR(q, SACCADE_F32, 6, 4, 16), K, V, OUT, LSE, NULL, &call),
                   "q: shape is (6, 4, 16), expected (B, Nq, H, D)");
    assert_invalid(check(Q, K, V, SACCADE_TENSOR(out, SACCADE_F32, 2, 3, 4, 16), LSE, NULL, &call),
                   "out: shape");
    assert_invalid(check(Q, K, V, OUT, SACCADE_TENSOR(lse, SACCADE_F32, 2, 3, 4), NULL, &call), "lse: shape");
    assert_invalid(check(SACCADE_TENSOR(q, SACCADE_F32, 2, 3, 3, 16), K, V, OUT, LSE, NULL, &call),
                   "q: 3 heads are not a multiple of k's 2");
}

static void names_the_dtype_it_found(void **state) {
    (void)state;
    sac_attention_call call;
    assert_invalid(check(Q, SACCADE_TENSOR(k, SACCADE_BF16, 2, 5, 2, 16), V, OUT, LSE, NULL, &call),
                   "k: dtype is bf16, expected fp32");
    assert_invalid(check(SACCADE_TENSOR(q, SACCADE_I32, 2, 3, 4, 16), K, V, OUT, LSE, NULL, &call),
                   "q: dtype is int32");
    assert_invalid(check(Q, K, V, OUT, SACCADE_TENSOR(lse, SACCADE_BF16, 2, 4, 3), NULL, &call),
                   "lse: dtype is bf16");
}

static void refuses_strides_it_cannot_honour(void **state) {
    (void)state;
    sac_attention_call call;
    DLTensor transposed = *K, overlapping = *OUT;
    transposed.strides = (int64_t[]){160, 32, 1, 2};
    assert_invalid(check(Q, &transposed, V, OUT, LSE, NULL, &call), "k: the last dimension has stride 2");
    overlapping.strides = (int64_t[]){96, 0, 8, 1};
    assert_invalid(check(Q, K, V, &overlapping, LSE, NULL, &call), "out: an output must not overlap itself");
    DLTensor broadcast = *K;
    broadcast.strides = (int64_t[]){0, 32, 16, 1};
    assert_int_equal(check(Q, &broadcast, V, OUT, LSE, NULL, &call), SACCADE_OK);
    assert_int_equal(call.args.k.batch_stride, 0);
}

static void refuses_missing_and_misaligned_data(void **state) {
    (void)state;
    sac_attention_call call;
    assert_invalid(check(Q, K, NULL, OUT, LSE, NULL, &call), "v: is NULL");
    assert_invalid(check(Q, SACCADE_TENSOR(NULL, SACCADE_F32, 2, 5, 2, 16), V, OUT, LSE, NULL, &call),
                   "k: data is NULL");
    DLTensor odd = *Q;
    odd.byte_offset = 2;
    assert_invalid(check(&odd, K, V, OUT, LSE, NULL, &call), "q: data is not aligned");
    assert_int_equal(check(SACCADE_TENSOR(NULL, SACCADE_F32, 2, 0, 4, 16), K, V,
                           SACCADE_TENSOR(NULL, SACCADE_F32, 2, 0, 4, 8), NULL, NULL, &call),
                     SACCADE_OK);
}

/* None of these could be in memory, but a workspace may be asked for before there is any. */
static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    const struct {
        int64_t q[4], kv[4];
        const char *words;
    } wrong[] = {
        {{INT64_C(1) << 32, 3, 4, 16}, {INT64_C(1) << 32, 3, 4, 16}, "q: 4294967296 batch entries"},
        {{1, INT64_C(1) << 30, 4, 16}, {1, 3, 4, 16}, "q: 1073741824 tokens a sequence"},
        {{1, 3, INT64_C(1) << 33, 16}, {1, 3, 4, 16}, "q: 8589934592 heads"},
        {{1, 3, 4, 16}, {1, 3, (INT64_C(1) << 32) + 2, 16}, "k: 4294967298 heads"},
        {{1, 3, 4, INT64_C(1) << 40}, {1, 3, 4, INT64_C(1) << 40}, "q: 1099511627776 elements a head"},
        {{1 << 30, 1 << 29, 1 << 20, 1 << 20},
         {1 << 30, 3, 4, 1 << 20},
         "q: dimension 1, of extent 536870912"},
        {{0, 1 << 29, INT32_MAX, INT32_MAX}, {0, 3, 1, INT32_MAX}, "q: dimension 2, of extent 2147483647"},
        {{1, 3, 4, 16}, {1, 3, 4, -16}, "k: shape is (1, 3, 4, -16)"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const int64_t *x = wrong[i].q, *y = wrong[i].kv;
        DLTensor *kv = SACCADE_TENSOR(NULL, SACCADE_F32, y[0], y[1], y[2], y[3]);
        saccade_request request;
        assert_invalid(saccade_request_from_call(&request,
                                                 SACCADE_TENSOR(NULL, SACCADE_F32, x[0], x[1], x[2], x[3]),
                                                 kv, kv, NULL, NULL),
                       wrong[i].words);
    }
    sac_attention_call call;
    DLTensor far = *K, shapeless = *K;
    far.strides = (int64_t[]){INT64_MAX / 2, 32, 16, 1};
    assert_invalid(check(Q, &far, V, OUT, LSE, NULL, &call), "k: dimension 0, of extent 2, reaches beyond");
    far.strides = (int64_t[]){-160, 32, 16, 1};
    assert_invalid(check(Q, &far, V, OUT, LSE, NULL, &call), "k: stride -160 of dimension 0 is negative");
    shapeless.shape = NULL;
    assert_invalid(check(Q, &shapeless, V, OUT, LSE, NULL, &call), "k: has 4 dimensions, but shape is NULL");
}

static void requests_made_by_hand_are_checked_too(void **state) {
    (void)state;
    saccade_request request, wrong;
    assert_int_equal(saccade_request_from_call(&request, Q, K, V, NULL, NULL), SACCADE_OK);
    assert_int_equal(saccade_select_backend(ctx, &request, NULL), SACCADE_OK);
    wrong = request;
    wrong.num_kv_heads = -1;
    assert_invalid(saccade_select_backend(ctx, &wrong, NULL), "request.num_kv_heads: -1");
    wrong = request;
    wrong.batch = INT64_MAX;
    assert_invalid(saccade_select_backend(ctx, &wrong, NULL), "request.batch: 9223372036854775807");
    wrong = request;
    wrong.seqlen_k = INT64_MAX / 4;
    assert_invalid(saccade_select_backend(ctx, &wrong, NULL), "request.seqlen_k: ");
    wrong = request;
    wrong.head_dim_v = INT32_MIN;
    assert_invalid(saccade_select_backend(ctx, &wrong, NULL), "request.head_dim_v: -2147483648");
}

static saccade_status check_packed(int32_t *cu_q, int32_t *cu_k, int32_t *used,
                                   const saccade_attention_params *more) {
    sac_attention_call call;
    saccade_attention_params params = more ? *more : (saccade_attention_params){0};
    params.cu_seqlens_q = SACCADE_TENSOR(cu_q, SACCADE_I32, 4);
    params.cu_seqlens_k = SACCADE_TENSOR(cu_k, SACCADE_I32, 4);
    params.seqused_k = used ? SACCADE_TENSOR(used, SACCADE_I32, 3) : NULL;
    return check(SACCADE_TENSOR(q, SACCADE_F32, 6, 4, 16), SACCADE_TENSOR(k, SACCADE_F32, 10, 2, 16),
                 SACCADE_TENSOR(v, SACCADE_F32, 10, 2, 8), SACCADE_TENSOR(out, SACCADE_F32, 6, 4, 8),
                 SACCADE_TENSOR(lse, SACCADE_F32, 4, 6), &params, &call);
}

static void refuses_cu_seqlens_that_lie(void **state) {
    (void)state;
    int32_t good_q[] = {0, 2, 2, 6}, good_k[] = {0, 3, 4, 10};
    assert_int_equal(check_packed(good_q, good_k, NULL, NULL), SACCADE_OK);
    assert_invalid(check_packed((int32_t[]){1, 2, 2, 6}, good_k, NULL, NULL), "cu_seqlens_q: starts at 1");
    assert_invalid(check_packed((int32_t[]){0, 4, 2, 6}, good_k, NULL, NULL),
                   "cu_seqlens_q: decreases from 4 to 2 at entry 2");
    assert_invalid(check_packed(good_q, (int32_t[]){0, 3, 4, 11}, NULL, NULL),
                   "cu_seqlens_k: ends at 11, but k has 10 tokens");
    assert_invalid(check_packed(good_q, good_k, (int32_t[]){3, 2, 6}, NULL),
                   "seqused_k: entry 1 is 2, must lie in 0..1");
    assert_invalid(check_packed(good_q, good_k, NULL, &(saccade_attention_params){.max_seqlen_k = 5}),
                   "max_seqlen_k: is 5, but the longest sequence has 6");
}

static void refuses_one_cu_seqlens_without_the_other(void **state) {
    (void)state;
    sac_attention_call call;
    int32_t cu[] = {0, 3};
    saccade_attention_params params = {.cu_seqlens_k = SACCADE_TENSOR(cu, SACCADE_I32, 2)};
    assert_invalid(check(Q, K, V, OUT, LSE, &params, &call), "cu_seqlens_q: is NULL");
}

static void refuses_cu_seqlens_of_other_shapes(void **state) {
    (void)state;
    sac_attention_call call;
    int32_t cu[] = {0, 3};
    DLTensor shapeless = *SACCADE_TENSOR(cu, SACCADE_I32, 2);
    shapeless.shape = NULL;
    const struct {
        const DLTensor *cu;
        const char *words;
    } wrong[] = {{SACCADE_TENSOR(cu, SACCADE_I32, 1, 2), "cu_seqlens_q: shape is (1, 2), expected (B + 1)"},
                 {SACCADE_TENSOR(cu, SACCADE_I32, 0), "cu_seqlens_q: 0 entries, 1 to 2147483647 are allowed"},
                 {SACCADE_TENSOR(cu, SACCADE_I64, 2), "cu_seqlens_q: dtype is int64, expected int32"},
                 {&shapeless, "cu_seqlens_q: has 1 dimensions, but shape is NULL"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        saccade_attention_params params = {.cu_seqlens_q = wrong[i].cu, .cu_seqlens_k = wrong[i].cu};
        assert_invalid(check(SACCADE_TENSOR(q, SACCADE_F32, 6, 4, 16),
                             SACCADE_TENSOR(k, SACCADE_F32, 10, 2, 16),
                             SACCADE_TENSOR(v, SACCADE_F32, 10, 2, 8),
                             SACCADE_TENSOR(out, SACCADE_F32, 6, 4, 8), NULL, &params, &call),
                       wrong[i].words);
    }
}

static void refuses_values_without_meaning(void **state) {
    (void)state;
    sac_attention_call call;
    assert_invalid(check(Q, K, V, OUT, LSE, &(saccade_attention_params){.softcap = -1}, &call),
                   "softcap: -1");
    assert_invalid(
        check(Q, K, V, OUT, LSE, &(saccade_attention_params){.has_scale = true, .scale = NAN}, &call),
        "scale: ");
    assert_invalid(check(Q, K, V, OUT, LSE, &(saccade_attention_params){.causal = (saccade_causal)7}, &call),
                   "causal: 7");
    assert_invalid(
        check(Q, K, V, OUT, LSE, &(saccade_attention_params){.window = {.enabled = true, .left = -2}}, &call),
        "window: (-2, 0)");
    assert_invalid(check(Q, K, V, OUT, LSE,
                         &(saccade_attention_params){.sink = SACCADE_TENSOR(lse, SACCADE_F32, 3)}, &call),
                   "sink: shape is (3), expected (4)");
}

static void request_says_what_the_call_asks_for(void **state) {
    (void)state;
    saccade_request request;
    saccade_attention_params params = {
        .causal = SACCADE_CAUSAL_BOTTOM_RIGHT, .softcap = 30, .deterministic = true};
    saccade_attention_grads grads = {0};
    assert_int_equal(saccade_request_from_call(&request, Q, K, V, &grads, &params), SACCADE_OK);
    assert_true(request.training && request.softcap && request.deterministic && !request.sink);
    assert_int_equal(request.causal, SACCADE_CAUSAL_BOTTOM_RIGHT);
    assert_int_equal(request.seqlen_k, 5);
    assert_int_equal(request.num_kv_heads, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_dense_tensors_and_resolves_them),
        cmocka_unit_test(names_the_shape_it_found_and_the_one_it_wants),
        cmocka_unit_test(names_the_dtype_it_found),
        cmocka_unit_test(refuses_strides_it_cannot_honour),
        cmocka_unit_test(refuses_missing_and_misaligned_data),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(requests_made_by_hand_are_checked_too),
        cmocka_unit_test(refuses_cu_seqlens_that_lie),
        cmocka_unit_test(refuses_one_cu_seqlens_without_the_other),
        cmocka_unit_test(refuses_cu_seqlens_of_other_shapes),
        cmocka_unit_test(refuses_values_without_meaning),
        cmocka_unit_test(request_says_what_the_call_asks_for),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
