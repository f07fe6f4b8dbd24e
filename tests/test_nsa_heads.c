/* test_nsa_heads.c - native sparse attention over a few key/value heads at a time, and on some threads: how many heads
 * does not matter but to the order of sums, and how many threads not even to that. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/nsa_check.h"
#include "nsa/heads.h"
#include "nsa/memory.h"
#include "support/cmocka_all.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

static void call(nsa_session *s, bool backward, int32_t kv_heads) {
    const sac_nsa_inputs in = {.t = &s->t,
                               .out = backward ? NULL : &s->tensor[NSA_OUT].tensor,
                               .grads = backward ? &s->grads : NULL,
                               .params = &s->params,
                               .purpose = backward ? SAC_NSA_FOR_BACKWARD : SAC_NSA_FOR_FORWARD};
    sac_nsa_call c;
    assert_int_equal(sac_nsa_prepare(s->ctx, &in, &c), SACCADE_OK);
    c.kv_heads_at_once = kv_heads;
    const size_t bytes = sac_nsa_workspace(s->ctx, &c);
    c.workspace = nsa_workspace_create(bytes);
    assert_int_equal(backward ? sac_nsa_backward(s->ctx, &c) : sac_nsa_forward(s->ctx, &c), SACCADE_OK);
    nsa_workspace_free(s->p->c.name, c.workspace, bytes);
}

static void run(const nsa_problem *p, int32_t kv_heads, nsa_results *r) {
    nsa_session *s = nsa_session_create(p, 0);
    call(s, false, kv_heads);
    call(s, true, kv_heads);
    nsa_session_read(s, r);
    nsa_session_free(s);
}

/* Within the rounding of the dtype, and in fp32, where gradients of weights are sums over all rows in another order,
 * of the tensor's largest element; rows of no sequence stay NaN. */
static bool close(double a, double b, double largest, sac_dtype dtype) {
    const double bound = dtype == SAC_F32 ? 1e-5 * fmax(largest, 0.2) : 0x1p-6 * fmax(fabs(a), 0.1);
    return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= bound;
}

static void expect_same(const nsa_case *c, sac_dtype dtype) {
    nsa_problem *p = nsa_problem_create(c, dtype);
    nsa_results whole, parts;
    nsa_results_create(p, &whole);
    run(p, 3, &whole);
    for (int32_t kv_heads = 1; kv_heads < 3; kv_heads++) {
        nsa_results_create(p, &parts);
        run(p, kv_heads, &parts);
        for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++) {
            test_shape shape = nsa_problem_shape(p, operand);
            const int64_t count = shape.ndim ? test_shape_size(&shape) : 0;
            const double largest = nsa_largest(whole.values[operand], count);
            for (int64_t e = 0; e < count; e++)
                if (!close(parts.values[operand][e], whole.values[operand][e], largest, dtype))
                    fail_msg("%s: %d heads at once: element %lld of %s is %.9g, with all at once %.9g",
                             c->name, kv_heads, (long long)e, nsa_operand_name(operand),
                             parts.values[operand][e], whole.values[operand][e]);
        }
        nsa_results_free(&parts);
    }
    nsa_results_free(&whole);
    nsa_problem_free(p);
}

static void any_number_of_heads_at_once_gives_the_same(void **state) {
    (void)state;
    const nsa_case cases[] = {
        {.name = "dense, per head", .batch = 2, .seqlen = 130, .weights = true, .gate = NSA_GATE_WEIGHTS},
        {.name = "packed, per group",
         .packed = true,
         .batch = 3,
         .lens = {65, 0, 127},
         .query_tile = 1,
         .gate = NSA_GATE_TENSOR},
        {.name = "tiles of 48", .batch = 2, .seqlen = 333, .query_tile = 48, .gate = NSA_GATE_TENSOR},
        {.name = "sparse compressed branch, mixed strides",
         .seqlen = 300,
         .block = 1,
         .compressed_top_k = 1,
         .layout = LAYOUT_MIXED,
         .weights = true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        nsa_case c = cases[i];
        c.num_heads = 6, c.num_kv_heads = 3;
        c.keep_outputs = i >= 2;
        expect_same(&c, i % 2 ? SAC_F32 : SAC_BF16);
    }
}

/* ---- threads ---- */

static void expect_same_bits(const nsa_case *c, sac_dtype dtype) {
    static const int32_t num_threads[] = {2, 3, 16};
    nsa_problem *p = nsa_problem_create(c, dtype);
    nsa_results one, many;
    nsa_results_create(p, &one);
    nsa_run(p, &(nsa_run_options){.forward_only = true, .num_threads = 1}, &one);
    for (size_t i = 0; i < COUNT_OF(num_threads); i++) {
        nsa_results_create(p, &many);
        nsa_run(p, &(nsa_run_options){.forward_only = true, .num_threads = num_threads[i]}, &many);
        char how[32];
        snprintf(how, sizeof how, "with %d threads", num_threads[i]);
        nsa_check_same_bits(p, NSA_OUT, &many, &one, how);
        nsa_results_free(&many);
    }
    nsa_results_free(&one);
    nsa_problem_free(p);
}

/* How many rows and heads are worked on together depends on the threads: how a row is summed must not. */
static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    nsa_host_only();
    const nsa_case cases[] = {
        {.name = "tiles of 256",
         .seqlen = 1700,
         .block = 64,
         .window = 300,
         .query_tile = 256,
         .gate = NSA_GATE_WEIGHTS},
        {.name = "a query each",
         .seqlen = 700,
         .block = 16,
         .window = 70,
         .query_tile = 1,
         .gate = NSA_GATE_TENSOR},
        {.name = "tiles of 40", .batch = 2, .seqlen = 500, .block = 16, .window = 128, .query_tile = 40},
        {.name = "packed",
         .packed = true,
         .batch = 3,
         .lens = {613, 1, 390},
         .block = 32,
         .window = 150,
         .query_tile = 128},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        nsa_case c = cases[i];
        c.num_heads = 8, c.num_kv_heads = 2;
        expect_same_bits(&c, i % 2 ? SAC_F32 : SAC_BF16);
        expect_same_bits(&c, i % 2 ? SAC_BF16 : SAC_F32);
    }
}

/* ---- the last heads ---- */

/* Fewer heads may want more of it: what is shared out among threads, or CTAs, is then cut into more parts. */
static void the_last_heads_find_enough_workspace_too(void **state) {
    (void)state;
    nsa_host_only();
    static const struct {
        int64_t tokens, kv_heads, group, dim, dim_v;
    } calls[] = {
        {1971, 23, 8, 64, 192}, {10916, 35, 2, 64, 192}, {2287, 11, 9, 16, 256}, {2048, 8, 4, 64, 64}};
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        const int64_t n = calls[i].tokens, hkv = calls[i].kv_heads, h = hkv * calls[i].group;
        const DLTensor *q = SACCADE_TENSOR(NULL, SACCADE_BF16, 1, n, h, calls[i].dim);
        const DLTensor *k = SACCADE_TENSOR(NULL, SACCADE_BF16, 1, n, hkv, calls[i].dim);
        const DLTensor *v = SACCADE_TENSOR(NULL, SACCADE_BF16, 1, n, hkv, calls[i].dim_v);
        const saccade_nsa_tensors t = {.q = q, .k = k, .v = v};
        const saccade_nsa_params params = {.deterministic = i % 2 == 0};
        const sac_nsa_inputs in = {.t = &t,
                                   .grads = &(saccade_nsa_grads){0},
                                   .params = &params,
                                   .purpose = SAC_NSA_FOR_BACKWARD,
                                   .shapes_only = true};
        saccade_context *ctx;
        sac_nsa_call c;
        assert_int_equal(saccade_context_create(&ctx, &(saccade_context_params){.num_threads = 4}),
                         SACCADE_OK);
        assert_int_equal(sac_nsa_prepare(ctx, &in, &c), SACCADE_OK);
        const size_t bytes = sac_nsa_workspace(ctx, &c);
        for (int32_t head = 0; head < hkv; head += sac_nsa_heads_at_once(&c)) {
            const sac_nsa_call part = sac_nsa_part(&c, head);
            const size_t needed = sac_nsa_divide(ctx, &part, NULL).bytes;
            if (needed > bytes)
                fail_msg("call %zu: heads from %d on need %zu bytes of %zu", i, head, needed, bytes);
        }
        saccade_context_destroy(ctx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_number_of_heads_at_once_gives_the_same),
                                       cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
                                       cmocka_unit_test(the_last_heads_find_enough_workspace_too)};
    return nsa_suite(tests, COUNT_OF(tests));
}
