/* test_nsa_arguments.c - calls that make no sense are refused in words that name the argument, and write nothing. */
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/nsa_run.h"

static void top_k_0_below(nsa_session *s) { s->params.top_k = -1; }
static void top_k_without_room(nsa_session *s) { s->params.top_k = 2, s->params.initial_blocks = 2; }
static void negative_block(nsa_session *s) { s->params.block = -8; }
static void negative_window(nsa_session *s) { s->params.window = -1; }
static void wide_query_tile(nsa_session *s) { s->params.query_tile = 257; }
static void unknown_score(nsa_session *s) { s->params.score = (saccade_nsa_score)3; }
static void unknown_select_per(nsa_session *s) { s->params.select_per = (saccade_nsa_select_per)-1; }
static void unknown_visibility(nsa_session *s) { s->params.visibility = (saccade_nsa_visibility)2; }
static void negative_compressed_top_k(nsa_session *s) { s->params.compressed_top_k = -1; }
static void negative_initial_blocks(nsa_session *s) { s->params.initial_blocks = -1; }
static void unknown_backend(nsa_session *s) { s->params.backend = "nope"; }
static void no_q(nsa_session *s) { s->t.q = NULL; }
static void shorter_k(nsa_session *s) { s->tensor[NSA_K].shape[1] = 20, s->tensor[NSA_V].shape[1] = 20; }
static void short_k_cmp(nsa_session *s) { s->tensor[NSA_K_CMP].shape[1]--; }
static void wide_indices(nsa_session *s) { s->tensor[NSA_INDICES].shape[3]--; }
static void float_indices(nsa_session *s) { s->tensor[NSA_INDICES].tensor.dtype = SACCADE_F32; }
static void flat_w_k(nsa_session *s) { s->tensor[NSA_W_K].tensor.ndim = 2; }
static void gappy_w_k(nsa_session *s) { s->tensor[NSA_W_K].strides[1] += 8, s->tensor[NSA_W_K].shape[1]--; }
static void both_gates(nsa_session *s) { s->t.gates = s->t.q; }
static void short_lse(nsa_session *s) { s->tensor[NSA_LSE_SLC].shape[2]--; }
static void gpu_lse(nsa_session *s) { s->tensor[NSA_LSE_CMP].tensor.device.device_type = kDLCUDA; }
static void workspace_too_small(nsa_session *s) { s->params.workspace = s, s->params.workspace_bytes = 64; }

static void no_k_cmp(nsa_session *s) { s->t.k_cmp = NULL; }
static void no_indices(nsa_session *s) { s->t.indices = NULL; }
static void no_lse_win(nsa_session *s) { s->t.lse_win = NULL; }
static void no_dout(nsa_session *s) { s->grads.dout = NULL; }
static void unasked_dgates(nsa_session *s) { s->grads.dgates = s->t.lse_cmp; }
static void short_dk(nsa_session *s) { s->tensor[NSA_DK].shape[1]--; }

typedef struct refusal {
    void (*bend)(nsa_session *);
    const char *words;
    bool backward;
} refusal;

static const refusal refusals[] = {
    {top_k_0_below, "top_k: -1, must lie in 1..", false},
    {top_k_without_room, "top_k: 2, but 2 initial", false},
    {negative_block, "block: -8", false},
    {negative_window, "window: -1", false},
    {wide_query_tile, "query_tile: 257, must lie in 1..256", false},
    {unknown_score, "score: 3", false},
    {unknown_select_per, "select_per: -1", false},
    {unknown_visibility, "visibility: 2", false},
    {negative_compressed_top_k, "compressed_top_k: -1", false},
    {negative_initial_blocks, "initial_blocks: -1", false},
    {unknown_backend, "nope", false},
    {no_q, "q: is NULL", false},
    {shorter_k, "k: 20 tokens, q has 40", false},
    {short_k_cmp, "k_cmp: shape is", false},
    {wide_indices, "indices: shape is", false},
    {float_indices, "indices: dtype", false},
    {flat_w_k, "w_k: ", false},
    {gappy_w_k, "w_k: ", false},
    {both_gates, "gates: given beside w_gate", false},
    {short_lse, "lse_slc: shape is", false},
    {gpu_lse, "lse_cmp: ", false},
    {workspace_too_small, "workspace", false},
    {no_k_cmp, "k_cmp: is NULL", true},
    {no_indices, "indices: is NULL", true},
    {no_lse_win, "lse_win: is NULL", true},
    {no_dout, "dout: is NULL", true},
    {unasked_dgates, "dgates: is given, but there is no gates", true},
    {short_dk, "dk: shape is", true},
};

static void wrong_arguments_are_named_and_nothing_is_written(void **state) {
    (void)state;
    nsa_case c = {.name = "refused",
                  .seqlen = 40,
                  .num_heads = 2,
                  .num_kv_heads = 1,
                  .weights = true,
                  .gate = NSA_GATE_WEIGHTS};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        const refusal *r = &refusals[i];
        nsa_session *s = nsa_session_create(p, 0);
        r->bend(s);
        saccade_status status =
            r->backward ? saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params)
                        : saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params);
        if (status == SACCADE_OK || !strstr(saccade_last_error(), r->words))
            fail_msg("refusal %zu: status %s, \"%s\", expected \"%s\"", i, saccade_status_text(status),
                     saccade_last_error(), r->words);
        for (int operand = 0; operand < NSA_NUM_OPERANDS; operand++)
            test_tensor_unchanged(&s->tensor[operand], nsa_operand_name((nsa_operand)operand));
        nsa_session_free(s);
    }
    nsa_problem_free(p);
}

/* The backward walks what the caller saved; its lists decide what memory it reads. */
static void indices_that_no_forward_gives_are_refused(void **state) {
    (void)state;
    static const int32_t lists[][4] = {
        {0, 0, -1, -1}, {2, 1, -1, -1}, {0, 5, -1, -1}, {-1, 0, -1, -1}, {-2, -1, -1, -1}};
    nsa_case c = {.name = "indices", .seqlen = 40, .num_heads = 2};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        nsa_session *s = nsa_session_create(p, 0);
        assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params),
                         SACCADE_OK);
        int32_t *indices =
            (int32_t *)(s->tensor[NSA_INDICES].memory + s->tensor[NSA_INDICES].tensor.byte_offset);
        memcpy(indices + 4 * 4, lists[i], sizeof lists[i]); /* list 1, tile 1 */
        saccade_status status = saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params);
        if (status != SACCADE_INVALID_ARGUMENT || !strstr(saccade_last_error(), "list 1, tile 1"))
            fail_msg("list %zu: status %s, \"%s\"", i, saccade_status_text(status), saccade_last_error());
        test_tensor_unchanged(&s->tensor[NSA_DQ], "dq");
        nsa_session_free(s);
    }
    nsa_problem_free(p);
}

static void lengths_that_lie_are_refused(void **state) {
    (void)state;
    static const int32_t lies[][4] = {{1, 20, 20, 40}, {0, 30, 20, 40}, {0, 20, 20, 41}, {0, 20, 20, 40}};
    static const char *const words[] = {"cu_seqlens: starts at 1", "cu_seqlens: decreases from 30 to 20",
                                        "cu_seqlens: ends at 41", "max_seqlen: is 10, but the longest"};
    nsa_case c = {.name = "lies", .packed = true, .batch = 3, .lens = {20, 0, 20}};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        nsa_session *s = nsa_session_create(p, 0);
        for (int b = 0; b < 4; b++) p->values[NSA_CU_SEQLENS][b] = lies[i][b];
        test_tensor_write(&s->tensor[NSA_CU_SEQLENS], p->values[NSA_CU_SEQLENS]);
        if (i == 3) s->params.max_seqlen = 10;
        assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params),
                         SACCADE_INVALID_ARGUMENT);
        if (strstr(saccade_last_error(), words[i]) != saccade_last_error())
            fail_msg("\"%s\", expected \"%s\"", saccade_last_error(), words[i]);
        test_tensor_unchanged(&s->tensor[NSA_OUT], "out");
        nsa_session_free(s);
    }
    nsa_problem_free(p);
}

static void stages_name_what_they_miss(void **state) {
    (void)state;
    nsa_case c = {.name = "stages", .seqlen = 40, .num_heads = 2};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_session *s = nsa_session_create(p, 0);
    DLTensor *scores = &s->tensor[NSA_SCORES].tensor, *out = &s->tensor[NSA_OUT].tensor;
    s->t.v_cmp = NULL;
    assert_int_equal(saccade_nsa_compress(s->ctx, &s->t, &s->params), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "v_cmp: is NULL"));
    s->t.indices = NULL;
    assert_int_equal(saccade_nsa_select(s->ctx, &s->t, &s->params), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "indices: is NULL"));
    s->tensor[NSA_SCORES].shape[3]++;
    assert_int_equal(saccade_nsa_score_blocks(s->ctx, &s->t, scores, &s->params), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "scores: shape is"));
    s->tensor[NSA_SCORES].shape[3]--;
    s->tensor[NSA_SCORES].strides[1]++; /* the next list lies too far */
    assert_int_equal(saccade_nsa_score_blocks(s->ctx, &s->t, scores, &s->params), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "scores: must be contiguous"));
    assert_int_equal(saccade_nsa_score_blocks(s->ctx, &s->t, NULL, &s->params), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "scores: is NULL"));
    assert_int_equal(saccade_nsa_gate(s->ctx, &s->t, out, out, NULL, out, &s->params),
                     SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "out_win: is NULL"));
    assert_int_equal(saccade_nsa_gate(s->ctx, &s->t, out, out, out, NULL, &s->params),
                     SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "out: is NULL"));
    nsa_session_free(s);
    nsa_problem_free(p);
}

static void calls_without_the_essentials_are_refused(void **state) {
    (void)state;
    nsa_case c = {.name = "essentials", .seqlen = 40};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_session *s = nsa_session_create(p, 0);
    size_t bytes;
    assert_int_equal(saccade_nsa_forward(NULL, &s->t, &s->tensor[NSA_OUT].tensor, NULL),
                     SACCADE_INVALID_ARGUMENT);
    assert_int_equal(saccade_nsa_forward(s->ctx, NULL, &s->tensor[NSA_OUT].tensor, NULL),
                     SACCADE_INVALID_ARGUMENT);
    assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, NULL, NULL), SACCADE_INVALID_ARGUMENT);
    assert_int_equal(saccade_nsa_backward(s->ctx, &s->t, NULL, NULL), SACCADE_INVALID_ARGUMENT);
    assert_int_equal(saccade_nsa_workspace(s->ctx, NULL, NULL, NULL, &bytes), SACCADE_INVALID_ARGUMENT);
    nsa_session_free(s);
    nsa_problem_free(p);
}

/* Keys without a query head: a group of none, and gradients of nothing. */
static void keys_without_query_heads_are_legal(void **state) {
    (void)state;
    enum { N = 16, HKV = 2, D = 8, SIZE = N * HKV * D };
    static float k[SIZE], dk[SIZE], dv[SIZE];
    memset(dk, 0xff, sizeof dk);
    memset(dv, 0xff, sizeof dv);
    DLTensor *q = SACCADE_TENSOR(NULL, SACCADE_F32, 1, N, 0, D),
             *lse = SACCADE_TENSOR(NULL, SACCADE_F32, 1, 0, N);
    DLTensor *tk = SACCADE_TENSOR(k, SACCADE_F32, 1, N, HKV, D);
    saccade_context *ctx;
    assert_int_equal(saccade_context_create(&ctx, NULL), SACCADE_OK);
    for (int per = SACCADE_NSA_SELECT_DEFAULT; per <= SACCADE_NSA_PER_GROUP; per++) {
        saccade_nsa_params params = {.query_tile = 1, .select_per = (saccade_nsa_select_per)per};
        assert_int_equal(
            saccade_nsa_forward(ctx, &(saccade_nsa_tensors){.q = q, .k = tk, .v = tk}, q, &params),
            SACCADE_OK);
    }
    saccade_attention_grads grads = {.dout = q,
                                     .dk = SACCADE_TENSOR(dk, SACCADE_F32, 1, N, HKV, D),
                                     .dv = SACCADE_TENSOR(dv, SACCADE_F32, 1, N, HKV, D)};
    assert_int_equal(saccade_attention_backward(ctx, q, tk, tk, q, lse, &grads, NULL), SACCADE_OK);
    for (int i = 0; i < SIZE; i++) assert_true(dk[i] == 0 && dv[i] == 0);
    saccade_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_arguments_are_named_and_nothing_is_written),
        cmocka_unit_test(indices_that_no_forward_gives_are_refused),
        cmocka_unit_test(lengths_that_lie_are_refused),
        cmocka_unit_test(stages_name_what_they_miss),
        cmocka_unit_test(calls_without_the_essentials_are_refused),
        cmocka_unit_test(keys_without_query_heads_are_legal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
