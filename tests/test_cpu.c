/* test_cpu.c - what the CPU backend promises beyond its results: the accuracy of its functions, independence of
 * threads, and that a NaN stays where it is seen. On every instruction set of this machine. */
#include <saccade/attention.h>
#include <saccade/block_mask.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/isa.h"
#include "support/cmocka_all.h"
#include "support/random.h"

static saccade_context *context(const char *isa, int32_t threads) {
    saccade_context *ctx;
    const saccade_context_params params = {.isa = isa, .num_threads = threads};
    if (saccade_context_create(&ctx, &params) != SACCADE_OK) fail_msg("%s", saccade_last_error());
    return ctx;
}

static void must(saccade_status status) {
    if (status != SACCADE_OK) fail_msg("%s", saccade_last_error());
}

/* Runs the test once for each usable instruction set. */
static void on_every_isa(void (*test)(const char *isa)) {
    for (int i = 0; i < SAC_NUM_ISAS; i++)
        if (sac_isa_usable((sac_isa)i)) test(sac_isa_name((sac_isa)i));
}

/* Two keys of scores 0 and x, of values 0 and 1: out = e^x / (1 + e^x), all of it exponential. */
static void exponential_on(const char *isa) {
    saccade_context *ctx = context(isa, 1);
    for (int step = 0; step <= 4000; step++) {
        const float x = -86.f * (float)step / 4000;
        float q[8] = {1}, k[2][8] = {{0}, {x}}, v[2][8] = {{0}, {1}}, out[8];
        must(saccade_attention_forward(
            ctx, SACCADE_TENSOR(q, SACCADE_F32, 1, 1, 1, 8), SACCADE_TENSOR(k, SACCADE_F32, 1, 2, 1, 8),
            SACCADE_TENSOR(v, SACCADE_F32, 1, 2, 1, 8), SACCADE_TENSOR(out, SACCADE_F32, 1, 1, 1, 8), NULL,
            &(saccade_attention_params){.has_scale = true, .scale = 1, .backend = "cpu"}));
        const double exact = exp(x) / (1 + exp(x)), error = fabs(out[0] - exact) / exact;
        /* x log2(e) is rounded once, to 2^-24 of itself: that much of a probability, and a few roundings more. */
        if (!(error <= 4e-7 + fabs((double)x) * 0x1p-23)) fail_msg("%s: e^%g is off by %.3g", isa, x, error);
    }
    saccade_context_destroy(ctx);
}
static void probabilities_are_exact_to_fp32(void **state) {
    (void)state;
    on_every_isa(exponential_on);
}

/* One key: lse is its score, c tanh(x / c). */
static void tanh_on(const char *isa) {
    saccade_context *ctx = context(isa, 1);
    for (int step = -2000; step <= 2000; step++) {
        const float x = (float)step / 100;
        float q[8] = {x}, k[8] = {1}, v[8] = {0}, out[8], lse;
        must(saccade_attention_forward(
            ctx, SACCADE_TENSOR(q, SACCADE_F32, 1, 1, 1, 8), SACCADE_TENSOR(k, SACCADE_F32, 1, 1, 1, 8),
            SACCADE_TENSOR(v, SACCADE_F32, 1, 1, 1, 8), SACCADE_TENSOR(out, SACCADE_F32, 1, 1, 1, 8),
            SACCADE_TENSOR(&lse, SACCADE_F32, 1, 1, 1),
            &(saccade_attention_params){.has_scale = true, .scale = 1, .softcap = 2, .backend = "cpu"}));
        const double exact = 2 * tanh(x / 2);
        if (!(fabs(lse - exact) <= 6e-7 * fabs(exact))) fail_msg("%s: 2 tanh(%g / 2) is %.9g", isa, x, lse);
    }
    saccade_context_destroy(ctx);
}
static void softcap_is_exact_to_fp32(void **state) {
    (void)state;
    on_every_isa(tanh_on);
}

/* ---- a larger problem ---- */

enum { HEADS = 8, KV_HEADS = 2, DIM = 40, MAX_Q = 300, MAX_K = 4100, SEED = 11 };

typedef struct problem {
    int32_t q_len, k_len;
    float q[MAX_Q * HEADS * DIM], k[MAX_K * KV_HEADS * DIM], v[MAX_K * KV_HEADS * DIM],
        dout[MAX_Q * HEADS * DIM];
    float out[MAX_Q * HEADS * DIM], lse[MAX_Q * HEADS];
    float dq[MAX_Q * HEADS * DIM], dk[MAX_K * KV_HEADS * DIM], dv[MAX_K * KV_HEADS * DIM];
} problem;

static problem *problem_make(int32_t q_len, int32_t k_len) {
    problem *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->q_len = q_len;
    p->k_len = k_len;
    test_random random = {SEED};
    float *inputs[] = {p->q, p->k, p->v, p->dout};
    const size_t sizes[] = {sizeof p->q, sizeof p->k, sizeof p->v, sizeof p->dout};
    for (int i = 0; i < 4; i++)
        for (size_t e = 0; e < sizes[i] / sizeof(float); e++) inputs[i][e] = (float)random_normal(&random);
    return p;
}

static void solve(problem *p, const char *isa, int32_t threads, bool backward,
                  const saccade_attention_params *params) {
    saccade_context *ctx = context(isa, threads);
    const DLTensor *q = SACCADE_TENSOR(p->q, SACCADE_F32, 1, p->q_len, HEADS, DIM);
    const DLTensor *k = SACCADE_TENSOR(p->k, SACCADE_F32, 1, p->k_len, KV_HEADS, DIM);
    const DLTensor *v = SACCADE_TENSOR(p->v, SACCADE_F32, 1, p->k_len, KV_HEADS, DIM);
    DLTensor *out = SACCADE_TENSOR(p->out, SACCADE_F32, 1, p->q_len, HEADS, DIM);
    DLTensor *lse = SACCADE_TENSOR(p->lse, SACCADE_F32, 1, HEADS, p->q_len);
    must(saccade_attention_forward(ctx, q, k, v, out, lse, params));
    const saccade_attention_grads grads = {
        .dout = SACCADE_TENSOR(p->dout, SACCADE_F32, 1, p->q_len, HEADS, DIM),
        .dq = SACCADE_TENSOR(p->dq, SACCADE_F32, 1, p->q_len, HEADS, DIM),
        .dk = SACCADE_TENSOR(p->dk, SACCADE_F32, 1, p->k_len, KV_HEADS, DIM),
        .dv = SACCADE_TENSOR(p->dv, SACCADE_F32, 1, p->k_len, KV_HEADS, DIM),
    };
    if (backward) must(saccade_attention_backward(ctx, q, k, v, out, lse, &grads, params));
    saccade_context_destroy(ctx);
}

static void assert_same(const char *what, const char *isa, const float *a, const float *b, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof *a; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s, %s, seed %d: element %zu is %.9g and %.9g", what, isa, SEED, i, a[i], b[i]);
}

/* Few queries, many keys: the keys are split among the threads, and the parts combined. */
static void compare_split(const char *isa, int32_t q_len, const saccade_attention_params *params) {
    problem *whole = problem_make(q_len, MAX_K), *split = problem_make(q_len, MAX_K);
    solve(whole, isa, 1, false, params);
    solve(split, isa, 7, false, params);
    for (int32_t i = 0; i < q_len * HEADS * DIM; i++)
        if (!(fabsf(whole->out[i] - split->out[i]) <= 1e-6f))
            fail_msg("%s, seed %d, Nq %d: out %d is %.9g on one thread, %.9g on seven", isa, SEED, q_len, i,
                     whole->out[i], split->out[i]);
    for (int32_t i = 0; i < q_len * HEADS; i++)
        if (!(fabsf(whole->lse[i] - split->lse[i]) <= 2e-6f))
            fail_msg("%s, seed %d, Nq %d: lse %d is %.9g on one thread, %.9g on seven", isa, SEED, q_len, i,
                     whole->lse[i], split->lse[i]);
    free(whole);
    free(split);
}

static void split_on(const char *isa) {
    const saccade_attention_params causal = {.causal = SACCADE_CAUSAL_BOTTOM_RIGHT, .backend = "cpu"};
    for (int32_t q_len = 1; q_len <= 33; q_len += 16) compare_split(isa, q_len, &causal);
}
static void keys_split_among_threads_combine_to_the_same(void **state) {
    (void)state;
    on_every_isa(split_on);
}

/* Many listed blocks at the beginning, then gaps, then nothing; and a head that sees two blocks. */
static void split_blocks_on(const char *isa) {
    enum { BLOCK = 64, Q_LEN = 16, LISTED = 40 };
    int32_t indices[HEADS][LISTED];
    for (int32_t h = 0; h < HEADS; h++)
        for (int32_t i = 0; i < LISTED; i++) indices[h][i] = h == 1 && i > 1 ? -1 : i < 30 ? i : 2 * i - 29;
    saccade_context *ctx = context(isa, 1);
    saccade_block_mask *mask;
    must(saccade_block_mask_from_indices(
        ctx, &mask,
        &(saccade_mask_shape){
            .num_heads = HEADS, .q_len = Q_LEN, .kv_len = MAX_K, .q_block = BLOCK, .kv_block = BLOCK},
        SACCADE_TENSOR(indices, SACCADE_I32, 1, HEADS, 1, LISTED), SACCADE_FULL));
    compare_split(isa, Q_LEN, &(saccade_attention_params){.block_mask = mask, .backend = "cpu"});
    saccade_block_mask_destroy(mask);
    saccade_context_destroy(ctx);
}
static void listed_blocks_split_among_threads_combine_to_the_same(void **state) {
    (void)state;
    on_every_isa(split_blocks_on);
}

/* Four queries with a choice of blocks each; all but the first choose otherwise in the second run. */
static void neighbours_on(const char *isa) {
    enum { BLOCK = 64, Q_LEN = 4, LISTED = 5 };
    static const int32_t choices[2][Q_LEN][LISTED] = {
        {{0, 1, 2, 9, 30}, {0, 1, 2, 9, 30}, {0, 3, 9, 10, 31}, {5, 6, 7, 8, 9}},
        {{0, 1, 2, 9, 30}, {1, 4, 9, 30, 31}, {2, 11, 12, 13, 14}, {0, 1, 2, 3, -1}}};
    problem *runs[2];
    saccade_context *ctx = context(isa, 1);
    for (int run = 0; run < 2; run++) {
        saccade_block_mask *mask;
        must(saccade_block_mask_from_indices(
            ctx, &mask,
            &(saccade_mask_shape){.q_len = Q_LEN, .kv_len = MAX_K, .q_block = 1, .kv_block = BLOCK},
            SACCADE_TENSOR((void *)choices[run], SACCADE_I32, 1, 1, Q_LEN, LISTED), SACCADE_FULL));
        runs[run] = problem_make(Q_LEN, MAX_K);
        solve(runs[run], isa, 1, true, &(saccade_attention_params){.block_mask = mask, .backend = "cpu"});
        saccade_block_mask_destroy(mask);
    }
    const size_t row = HEADS * DIM * sizeof(float);
    assert_same("out", isa, runs[0]->out, runs[1]->out, row);
    assert_same("dq", isa, runs[0]->dq, runs[1]->dq, row);
    assert_memory_not_equal((char *)runs[0]->out + row, (char *)runs[1]->out + row, row);
    free(runs[0]);
    free(runs[1]);
    saccade_context_destroy(ctx);
}
static void row_does_not_depend_on_the_blocks_of_its_neighbours(void **state) {
    (void)state;
    on_every_isa(neighbours_on);
}

static void assert_same_gradients(const char *isa, const problem *a, const problem *b) {
    assert_same("dq", isa, a->dq, b->dq, sizeof a->dq);
    assert_same("dk", isa, a->dk, b->dk, sizeof a->dk);
    assert_same("dv", isa, a->dv, b->dv, sizeof a->dv);
}

/* One thread works on the heads of a group together, more threads do not. */
static void compare_threads(const char *isa, const saccade_attention_params *params) {
    problem *one = problem_make(MAX_Q, 500), *many = problem_make(MAX_Q, 500);
    solve(one, isa, 1, true, params);
    for (int32_t threads = 2; threads <= 5; threads++) {
        solve(many, isa, threads, true, params);
        assert_same("out", isa, one->out, many->out, sizeof one->out);
        assert_same("lse", isa, one->lse, many->lse, sizeof one->lse);
        assert_same_gradients(isa, one, many);
    }
    free(one);
    free(many);
}
static void threads_on(const char *isa) {
    compare_threads(isa, &(saccade_attention_params){
                             .causal = SACCADE_CAUSAL_TOP_LEFT, .deterministic = true, .backend = "cpu"});
    compare_threads(
        isa, &(saccade_attention_params){.window = {true, 70, 40}, .deterministic = true, .backend = "cpu"});
}
static void deterministic_results_do_not_depend_on_threads(void **state) {
    (void)state;
    on_every_isa(threads_on);
}

/* On one thread the heads of a group share the tiles of a window, on five they do not; each has its slope and sink. */
static void shared_tiles_on(const char *isa) {
    static const float per_head[HEADS] = {0.01f, 0.02f, 0.04f, 0.08f, 0.16f, 0.3f, 0.6f, 1.2f};
    const saccade_attention_params params = {.window = {true, 70, 40},
                                             .sink = SACCADE_TENSOR(per_head, SACCADE_F32, HEADS),
                                             .alibi_slopes = SACCADE_TENSOR(per_head, SACCADE_F32, HEADS),
                                             .backend = "cpu"};
    problem *shared = problem_make(MAX_Q, 500), *alone = problem_make(MAX_Q, 500);
    solve(shared, isa, 1, false, &params);
    solve(alone, isa, 5, false, &params);
    assert_same("out", isa, shared->out, alone->out, sizeof shared->out);
    assert_same("lse", isa, shared->lse, alone->lse, sizeof shared->lse);
    free(shared);
    free(alone);
}
static void heads_that_share_a_windows_tiles_give_what_each_gives_alone(void **state) {
    (void)state;
    on_every_isa(shared_tiles_on);
}

static void repeats_on(const char *isa) {
    const saccade_attention_params params = {.backend = "cpu"};
    problem *first = problem_make(150, 700), *again = problem_make(150, 700);
    solve(first, isa, 3, true, &params);
    for (int run = 0; run < 5; run++) {
        solve(again, isa, 3, true, &params);
        assert_same("out", isa, first->out, again->out, sizeof first->out);
        assert_same_gradients(isa, first, again);
    }
    free(first);
    free(again);
}
static void gradients_repeat_bit_for_bit_without_being_asked(void **state) {
    (void)state;
    on_every_isa(repeats_on);
}

static void assert_finite(const char *what, const char *isa, const float *values, int64_t begin,
                          int64_t end) {
    for (int64_t e = begin; e < end; e++)
        if (!isfinite(values[e]))
            fail_msg("%s, %s, seed %d: element %lld is %g", what, isa, SEED, (long long)e, values[e]);
}

/* Causal: queries before key NAN_AT do not see it. Everything of it that could be poison is. */
static void nan_on(const char *isa) {
    enum { LENGTH = 200, NAN_AT = 150, ROW = KV_HEADS * DIM };
    const saccade_attention_params params = {.causal = SACCADE_CAUSAL_TOP_LEFT, .backend = "cpu"};
    problem *p = problem_make(LENGTH, LENGTH);
    for (int d = 0; d < ROW; d++) p->k[NAN_AT * ROW + d] = p->v[NAN_AT * ROW + d] = d % 2 ? NAN : INFINITY;
    solve(p, isa, 2, true, &params);
    assert_finite("out", isa, p->out, 0, NAN_AT * HEADS * DIM);
    assert_finite("dq", isa, p->dq, 0, NAN_AT * HEADS * DIM);
    for (int e = NAN_AT * HEADS * DIM; e < LENGTH * HEADS * DIM; e++)
        if (!isnan(p->out[e])) fail_msg("%s: a row that sees the NaN has out %g", isa, p->out[e]);
    free(p);

    p = problem_make(LENGTH, LENGTH);
    enum { QUERY = 90 };
    for (int d = 0; d < HEADS * DIM; d++) p->q[QUERY * HEADS * DIM + d] = NAN;
    solve(p, isa, 2, true, &params);
    assert_finite("dk beyond the NaN query", isa, p->dk, (QUERY + 1) * ROW, LENGTH * ROW);
    assert_finite("dv beyond the NaN query", isa, p->dv, (QUERY + 1) * ROW, LENGTH * ROW);
    assert_true(isnan(p->dk[0]) && isnan(p->dv[QUERY * ROW]));
    free(p);
}
static void nan_stays_in_rows_that_see_it(void **state) {
    (void)state;
    on_every_isa(nan_on);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_are_exact_to_fp32),
        cmocka_unit_test(softcap_is_exact_to_fp32),
        cmocka_unit_test(keys_split_among_threads_combine_to_the_same),
        cmocka_unit_test(listed_blocks_split_among_threads_combine_to_the_same),
        cmocka_unit_test(row_does_not_depend_on_the_blocks_of_its_neighbours),
        cmocka_unit_test(deterministic_results_do_not_depend_on_threads),
        cmocka_unit_test(heads_that_share_a_windows_tiles_give_what_each_gives_alone),
        cmocka_unit_test(gradients_repeat_bit_for_bit_without_being_asked),
        cmocka_unit_test(nan_stays_in_rows_that_see_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
