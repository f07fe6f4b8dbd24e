/* test_attention_invariants.c - what must not change the results by one bit: the layout of the tensors, what comes
 * after a causal row, which results are asked for, another run, another thread; and what may change them only within
 * the bound: instruction sets and thread counts. */
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reference/number.h"
#include "support/attention_suite.h"
#include "support/random.h"

static const sac_dtype dtypes[] = {SAC_F32, SAC_BF16, SAC_F16};

/* Runs a declared case once more or less the same way, and compares with its row-major run. */
static void same_bits(const problem *p, const char *backend, const char *what, const run_options *options,
                      const results *expected) {
    results got;
    attention_results(p, backend, options, &got);
    results_same(p, what, &got, expected, options->forward_only);
    results_free(&got);
}

/* ---- layouts ---- */

static void every_layout_gives_the_bits_of_the_row_major_one(void **state) {
    const char *backend = usable_backend(state);
    attention_case c = {.name = "layouts",
                        .batch = 2,
                        .seqlen_q = 70,
                        .seqlen_k = 90,
                        .num_heads = 4,
                        .num_kv_heads = 2,
                        .head_dim = 40,
                        .head_dim_v = 24,
                        .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
                        .deterministic = true};
    for (size_t d = 0; d < COUNT_OF(dtypes); d++)
        for (test_layout layout = LAYOUT_HEADS_FIRST; layout <= LAYOUT_MIXED; layout++) {
            if (!backend_takes(backend, dtypes[d], true)) continue;
            c.layout = layout; /* heads of equal values where they share memory */
            problem *p = problem_create(&c, dtypes[d]);
            results row_major;
            attention_results(p, backend, &(run_options){0}, &row_major);
            results got; /* some backends refuse rows that are not aligned */
            if (attention_serves(p, backend, &(run_options){.layout = layout}, &got)) {
                results_same(p, "another layout", &got, &row_major, false);
                results_free(&got);
            }
            results_free(&row_major);
            problem_free(p);
        }
}

/* ---- causality ---- */

/* Queries up to t see keys up to t + shift. */
typedef struct causal_case {
    attention_case c;
    int32_t shift;
} causal_case;

static const causal_case causal_cases[] = {
    {{.name = "causal top_left",
      .seqlen_q = 200,
      .num_heads = 2,
      .num_kv_heads = 1,
      .causal = SACCADE_CAUSAL_TOP_LEFT},
     0},
    {{.name = "causal bottom_right",
      .seqlen_q = 150,
      .seqlen_k = 200,
      .num_heads = 2,
      .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
     50},
    {{.name = "window", .seqlen_q = 200, .num_heads = 2, .window = {true, 37, 0}, .sink = true}, 0},
    {{.name = "window (-1, 3)", .seqlen_q = 200, .window = {true, -1, 3}}, 3},
    {{.name = "causal by blocks", .seqlen_q = 200, .num_heads = 2, .blocks = {BLOCKS_CAUSAL, 64, 32}}, 0},
    {{.name = "causal and blocks",
      .seqlen_q = 200,
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      .mask_mod = &test_head_parity,
      .blocks = {BLOCKS_RANDOM, 64, 64}},
     0},
    {{.name = "causal and score_mod",
      .seqlen_q = 200,
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      .score_mod = &test_relative_bias,
      .softcap = 3},
     0},
};

/* Other numbers, or NaN, in rows [from, end) of k and v. */
static void change_later_keys(problem *p, int64_t from, bool nan) {
    test_random random = {99};
    for (int side = K; side <= V; side++) {
        int64_t width = (int64_t)p->c.num_kv_heads * (side == K ? p->c.head_dim : p->c.head_dim_v);
        for (int64_t e = from * width; e < p->rows_k * width; e++)
            p->values[side][e] = nan ? NAN : sac_number_round(3 * random_normal(&random), p->dtype);
    }
}

/* tolerance 0: bit for bit. */
static void rows_same(const problem *p, int32_t t, const results *a, const results *b, double tolerance) {
    for (int32_t i = 0; i <= t; i++)
        for (int32_t h = 0; h < p->c.num_heads; h++) {
            int64_t at = problem_lse_index(p, 0, h, i), dim = p->c.head_dim_v;
            const double *left = a->values[OUT] + (i * p->c.num_heads + h) * dim,
                         *right = b->values[OUT] + (left - a->values[OUT]);
            bool same = fabs(a->values[LSE][at] - b->values[LSE][at]) <= tolerance ||
                        a->values[LSE][at] == b->values[LSE][at];
            for (int64_t d = 0; d < dim; d++) same = same && fabs(left[d] - right[d]) <= tolerance;
            if (!same) fail_msg("%s: row %d, head %d changes with what follows %d", p->c.name, i, h, t);
        }
}

static void check_causality(const char *backend, const causal_case *declared, sac_dtype dtype, bool nan) {
    static const int32_t times[] = {0, 1, 63, 64, 100, 149};
    run_options forward = {.forward_only = true};
    problem *p = problem_create(&declared->c, dtype);
    results before, after;
    attention_results(p, backend, &forward, &before);
    for (size_t i = COUNT_OF(times); i-- > 0;) { /* from the last, since changes stay */
        if (times[i] + declared->shift + 1 >= p->rows_k) continue;
        change_later_keys(p, times[i] + declared->shift + 1, nan);
        attention_results(p, backend, &forward, &after);
        rows_same(p, times[i], &before, &after, nan ? 0.02 : 0); /* NaN may take another way to the sum */
        results_free(&after);
    }
    results_free(&before);
    problem_free(p);
}

static void rows_up_to_t_do_not_depend_on_what_follows(void **state) {
    const char *backend = usable_backend(state);
    for (size_t i = 0; i < COUNT_OF(causal_cases); i++)
        for (size_t d = 0; d < COUNT_OF(dtypes); d++)
            if (backend_takes(backend, dtypes[d], false))
                check_causality(backend, &causal_cases[i], dtypes[d], false);
}

static void nan_stays_in_the_rows_that_see_it(void **state) {
    const char *backend = usable_backend(state);
    for (size_t i = 0; i < COUNT_OF(causal_cases); i++)
        for (size_t d = 0; d < COUNT_OF(dtypes); d++)
            if (backend_takes(backend, dtypes[d], false))
                check_causality(backend, &causal_cases[i], dtypes[d], true);
}

/* ---- the same again ---- */

static void deterministic_runs_give_the_same_bits(void **state) {
    const char *backend = usable_backend(state);
    attention_case c = {.name = "deterministic",
                        .batch = 2,
                        .seqlen_q = 200,
                        .seqlen_k = 300,
                        .num_heads = 6,
                        .num_kv_heads = 2,
                        .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
                        .sink = true,
                        .softcap = 3,
                        .lse_grad = true,
                        .deterministic = true};
    for (size_t d = 0; d < COUNT_OF(dtypes); d++) {
        if (!backend_takes(backend, dtypes[d], true)) continue;
        problem *p = problem_create(&c, dtypes[d]);
        results first;
        attention_results(p, backend, &(run_options){0}, &first);
        for (int run = 0; run < 4; run++) same_bits(p, backend, "another run", &(run_options){0}, &first);
        results_free(&first);
        problem_free(p);
    }
}

static void results_do_not_depend_on_which_are_asked_for(void **state) {
    const char *backend = usable_backend(state);
    attention_case c = {.name = "asked for",
                        .batch = 2,
                        .seqlen_q = 70,
                        .seqlen_k = 90,
                        .num_heads = 4,
                        .num_kv_heads = 2,
                        .sink = true,
                        .deterministic = true};
    problem *p = problem_create(&c, SAC_BF16);
    results all, some;
    attention_results(p, backend, &(run_options){0}, &all);
    for (test_operand left_out = LSE; left_out <= DSINK; left_out++) {
        run_options options = {.forward_only = left_out == LSE, .without = 1u << left_out};
        attention_results(p, backend, &options, &some);
        test_shape shape = problem_shape(p, left_out);
        memcpy(some.values[left_out], all.values[left_out], (size_t)test_shape_size(&shape) * sizeof(double));
        results_same(p, test_operand_name(left_out), &some, &all, options.forward_only);
        results_free(&some);
    }
    results_free(&all);
    problem_free(p);
}

/* ---- instruction sets and threads ---- */

static const attention_case everywhere = {.name = "everywhere",
                                          .batch = 2,
                                          .seqlen_q = 150,
                                          .seqlen_k = 200,
                                          .num_heads = 6,
                                          .num_kv_heads = 2,
                                          .head_dim = 72,
                                          .head_dim_v = 40,
                                          .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
                                          .score_mod = &test_relative_bias,
                                          .mask_mod = &test_head_parity,
                                          .sink = true,
                                          .lse_grad = true};

static void every_instruction_set_of_this_machine_stays_within_the_bound(void **state) {
    static const char *const isas[] = {"generic", "avx2", "avx512", "amx"};
    const char *backend = usable_host_backend(state);
    for (size_t i = 0; i < COUNT_OF(isas); i++) {
        saccade_context *ctx;
        if (saccade_context_create(&ctx, &(saccade_context_params){.isa = isas[i]}) != SACCADE_OK) {
            print_message("skipped: %s\n", saccade_last_error());
            continue;
        }
        saccade_context_destroy(ctx);
        for (size_t d = 0; d < COUNT_OF(dtypes); d++)
            if (backend_takes(backend, dtypes[d], true))
                attention_verify(&everywhere, dtypes[d], backend, &(run_options){.isa = isas[i]});
    }
}

static void any_number_of_threads_stays_within_the_bound(void **state) {
    static const int32_t counts[] = {1, 2, 3, 7, 32};
    static const attention_case decode = {
        .name = "decode", .seqlen_q = 1, .seqlen_k = 3000, .num_heads = 3, .num_kv_heads = 1};
    const char *backend = usable_host_backend(state);
    for (size_t d = 0; d < COUNT_OF(dtypes); d++)
        for (size_t i = 0; i < COUNT_OF(counts); i++) {
            run_options options = {.num_threads = counts[i]};
            attention_verify(&everywhere, dtypes[d], backend, &options);
            attention_verify(&decode, dtypes[d], backend, &options);
        }
}

typedef struct worker {
    const problem *p;
    const char *backend;
    saccade_status status;
    results r;
} worker;

static void *work(void *data) {
    worker *w = data;
    w->status = attention_run(w->p, w->backend, w->p->dtype, &(run_options){.num_threads = 2}, &w->r);
    return NULL;
}

static void two_contexts_in_two_threads_do_not_disturb_each_other(void **state) {
    const char *backend = usable_backend(state);
    attention_case c = everywhere;
    c.deterministic = true;
    c.score_mod = NULL;
    problem *p = problem_create(&c, backend_takes(backend, SAC_F32, true) ? SAC_F32 : SAC_BF16);
    worker workers[2];
    results alone;
    attention_results(p, backend, &(run_options){.num_threads = 2}, &alone);
    for (int round = 0; round < 8; round++) {
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) {
            workers[i] = (worker){.p = p, .backend = backend};
            results_create(p, &workers[i].r);
            assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
        }
        for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(workers[i].status, SACCADE_OK);
            results_same(p, "beside another thread", &workers[i].r, &alone, false);
            results_free(&workers[i].r);
        }
    }
    results_free(&alone);
    problem_free(p);
}

/* A child that inherits a pool of threads which it does not have must not wait for them. */
static void a_forked_child_can_compute(void **state) {
    const char *backend = usable_host_backend(state);
    problem *p = problem_create(&everywhere, SAC_F32);
    run_options options = {.forward_only = true, .num_threads = 3};
    results before, after;
    attention_results(p, backend, &options, &before);
    results_create(p, &after);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(10);
        saccade_status status = attention_run(p, backend, p->dtype, &options, &after);
        test_shape shape = problem_shape(p, OUT);
        bool same = memcmp(after.values[OUT], before.values[OUT],
                           (size_t)test_shape_size(&shape) * sizeof(double)) == 0;
        _exit(status == SACCADE_OK && same ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) fail_msg("the child was ended by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    results_free(&before);
    results_free(&after);
    problem_free(p);
}

/* ---- ten thousand calls ---- */

enum { CALLS = 10000, TOKENS = 24, DIM = 16 };

static void ten_thousand_calls_with_one_dirty_workspace_stay_the_same(void **state) {
    const char *backend = usable_host_backend(state);
    static float q[TOKENS * DIM], k[TOKENS * DIM], v[TOKENS * DIM], out[TOKENS * DIM], first[TOKENS * DIM];
    test_random random = {5};
    for (int e = 0; e < TOKENS * DIM; e++) {
        q[e] = (float)random_normal(&random);
        k[e] = (float)random_normal(&random);
        v[e] = (float)random_normal(&random);
    }
#define ROWS(pointer) SACCADE_TENSOR(pointer, SACCADE_F32, 1, TOKENS, 1, DIM)
    saccade_context *ctx;
    saccade_attention_params params = {
        .causal = SACCADE_CAUSAL_TOP_LEFT, .deterministic = true, .backend = backend};
    assert_int_equal(saccade_context_create(&ctx, NULL), SACCADE_OK);
    assert_int_equal(
        saccade_attention_workspace(ctx, ROWS(q), ROWS(k), ROWS(v), NULL, &params, &params.workspace_bytes),
        SACCADE_OK);
    params.workspace = aligned_alloc(64, (params.workspace_bytes + 64) / 64 * 64);
    memset(params.workspace, 0xff, params.workspace_bytes);
    size_t used = 0;
    for (int call = 0; call < CALLS; call++) {
        assert_int_equal(saccade_attention_forward(ctx, ROWS(q), ROWS(k), ROWS(v), ROWS(out), NULL, &params),
                         SACCADE_OK);
        if (call == 100) used = mallinfo2().uordblks;
        if (call == 0) memcpy(first, out, sizeof out);
        if (memcmp(first, out, sizeof out) != 0) fail_msg("call %d gives other bits than the first", call);
    }
    size_t now = mallinfo2().uordblks;
    if (now > used + 4096) fail_msg("memory grew from %zu to %zu bytes", used, now);
    free(params.workspace);
    saccade_context_destroy(ctx);
}

int main(void) {
    static const suite_extra extras[] = {
        {"every_layout_gives_the_bits_of_the_row_major_one",
         every_layout_gives_the_bits_of_the_row_major_one},
        {"rows_up_to_t_do_not_depend_on_what_follows", rows_up_to_t_do_not_depend_on_what_follows},
        {"nan_stays_in_the_rows_that_see_it", nan_stays_in_the_rows_that_see_it},
        {"deterministic_runs_give_the_same_bits", deterministic_runs_give_the_same_bits},
        {"results_do_not_depend_on_which_are_asked_for", results_do_not_depend_on_which_are_asked_for},
        {"every_instruction_set_of_this_machine_stays_within_the_bound",
         every_instruction_set_of_this_machine_stays_within_the_bound},
        {"any_number_of_threads_stays_within_the_bound", any_number_of_threads_stays_within_the_bound},
        {"two_contexts_in_two_threads_do_not_disturb_each_other",
         two_contexts_in_two_threads_do_not_disturb_each_other},
        {"a_forked_child_can_compute", a_forked_child_can_compute},
        {"ten_thousand_calls_with_one_dirty_workspace_stay_the_same",
         ten_thousand_calls_with_one_dirty_workspace_stay_the_same},
    };
    return attention_suite("attention_invariants", NULL, 0, extras, COUNT_OF(extras), false);
}
