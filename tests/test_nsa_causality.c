/* test_nsa_causality.c - what an output may depend on, found by changing everything else; and offsets beyond 2^31. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "support/cmocka_all.h"
#include "support/nsa_product.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"
#include "support/random.h"

static const nsa_operand of_tokens[] = {NSA_Q, NSA_K, NSA_V, NSA_GATES, NSA_DOUT};

/* Elements a token has in an operand. */
static int64_t token_size(const nsa_problem *p, nsa_operand operand) {
    test_shape shape = nsa_problem_shape(p, operand);
    return p->rows ? test_shape_size(&shape) / p->rows : 0;
}

/* Gives the tokens after t of every sequence other values: `value`, or where that is 0 random ones. */
static void change_future(nsa_problem *p, nsa_operand operand, int32_t t, double value) {
    const int64_t size = token_size(p, operand);
    test_random random = {99 + (uint64_t)t};
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int64_t e = (p->first[b] + t + 1) * size; e < (p->first[b] + p->len[b]) * size; e++)
            p->values[operand][e] = value != 0 ? value : nearbyint(4 * random_normal(&random));
}

static void expect_same(const nsa_problem *p, nsa_operand operand, int64_t at, int64_t count,
                        const nsa_results *before, const nsa_results *after, const char *what, int32_t t,
                        int32_t i) {
    for (int64_t e = at; e < at + count; e++)
        if (memcmp(&before->values[operand][e], &after->values[operand][e], sizeof(double)))
            fail_msg("%s: %s after %d moves %s of query %d from %.9g to %.9g", p->c.name, what, t,
                     nsa_operand_name(operand), i, before->values[operand][e], after->values[operand][e]);
}

/* out and the three lse of the queries up to the last that may not have moved, bit for bit. */
static void expect_past(const nsa_problem *p, int32_t t, int32_t end, const nsa_results *before,
                        const nsa_results *after, const char *what) {
    const int64_t size = token_size(p, NSA_OUT);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t i = 0; i < end && i < p->len[b]; i++) {
            expect_same(p, NSA_OUT, (p->first[b] + i) * size, size, before, after, what, t, i);
            for (int32_t h = 0; h < p->c.num_heads; h++)
                for (nsa_operand lse = NSA_LSE_CMP; lse <= NSA_LSE_WIN; lse++)
                    expect_same(p, lse, nsa_lse_index(p, b, h, i), 1, before, after, what, t, i);
        }
}

typedef struct perturbation {
    bool q_and_k; /* what chooses; v and gates are changed in any case */
    double value;
    const char *what;
} perturbation;

static void perturb(const nsa_case *c, sac_dtype dtype, int32_t t, int32_t end, const perturbation *how) {
    nsa_problem *p = nsa_problem_create(c, dtype);
    nsa_results before, after;
    nsa_results_create(p, &before);
    nsa_results_create(p, &after);
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &before);
    for (size_t n = how->q_and_k ? 0 : 2; n < 4; n++)
        if (p->values[of_tokens[n]]) change_future(p, of_tokens[n], t, how->value);
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &after);
    expect_past(p, t, end, &before, &after, how->what);
    nsa_results_free(&before);
    nsa_results_free(&after);
    nsa_problem_free(p);
}

static const perturbation everything = {true, 0, "everything"}, nans = {true, NAN, "NaN"},
                          values_alone = {false, 0, "v and gates"};

/* Dense, and packed with one sequence that ends before t. */
static nsa_case case_of(int i, int32_t query_tile) {
    nsa_case c = {.name = i % 2 ? "packed" : "dense",
                  .packed = i % 2,
                  .batch = 2,
                  .seqlen = 150,
                  .lens = {150, 40},
                  .num_heads = 4,
                  .num_kv_heads = 2,
                  .query_tile = query_tile,
                  .weights = i % 3 == 0,
                  .score = i % 4 < 2 ? SACCADE_NSA_LOGITS : SACCADE_NSA_PROBABILITIES,
                  .gate = (nsa_gate_form)(i % 3),
                  .initial_blocks = i % 2,
                  .local_blocks = i / 2 % 3,
                  .seed = (uint64_t)i};
    return c;
}

static const int32_t times[] = {0, 6, 7, 8, 31, 62, 100, 148};

static void per_query_outputs_up_to_t_depend_on_nothing_after_t(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        for (size_t n = 0; n < COUNT_OF(times); n++) {
            if (!test_takes_case((size_t)i * COUNT_OF(times) + n)) continue;
            nsa_case c = case_of(i, 1);
            perturb(&c, n % 2 ? SAC_BF16 : SAC_F32, times[n], times[n] + 1, n % 3 ? &everything : &nans);
        }
}

static void whole_tiles_up_to_t_depend_on_nothing_after_t(void **state) {
    (void)state;
    static const int32_t tiles[] = {7, 16, 64};
    for (int i = 0; i < 12; i++)
        for (size_t n = 0; n < COUNT_OF(times); n++) {
            if (!test_takes_case((size_t)i * COUNT_OF(times) + n)) continue;
            nsa_case c = case_of(i, tiles[i % 3]);
            int32_t whole = (times[n] + 1) / c.query_tile * c.query_tile;
            perturb(&c, n % 2 ? SAC_BF16 : SAC_F32, times[n], whole, n % 3 ? &everything : &nans);
        }
}

static void within_a_tile_only_the_choice_looks_ahead(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        for (size_t n = 0; n < COUNT_OF(times); n++) {
            if (!test_takes_case((size_t)i * COUNT_OF(times) + n)) continue;
            nsa_case c = case_of(i, i % 2 ? 64 : 256);
            perturb(&c, SAC_F32, times[n], times[n] + 1, &values_alone);
        }
}

/* Started blocks do leak, which is why they are off by default; were they not to, this file would prove nothing. */
static void started_blocks_leak_at_most_their_own_future(void **state) {
    (void)state;
    nsa_case c = {
        .name = "started", .seqlen = 64, .visibility = SACCADE_NSA_STARTED, .query_tile = 1, .block = 8};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_results before, after;
    nsa_results_create(p, &before);
    nsa_results_create(p, &after);
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &before);
    change_future(p, NSA_V, 26, 0); /* tokens 27 on; block 3 is 24 to 31 */
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &after);
    const int64_t size = token_size(p, NSA_OUT);
    bool leaked = false;
    for (int64_t e = 24 * size; e < 27 * size; e++)
        leaked |= before.values[NSA_OUT][e] != after.values[NSA_OUT][e];
    assert_true(leaked);
    expect_past(p, 26, 24, &before, &after, "v");
    nsa_results_free(&before);
    nsa_results_free(&after);
    nsa_problem_free(p);
}

/* Only the queries up to t speak: what came after them gets no gradient, in none of the branches. */
static void no_gradient_reaches_keys_after_the_query(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++)
        for (size_t n = 0; n < COUNT_OF(times); n++) {
            if (!test_takes_case((size_t)i * COUNT_OF(times) + n)) continue;
            nsa_case c = case_of(i, i % 2 ? 1 : 64);
            nsa_problem *p = nsa_problem_create(&c, SAC_F32);
            nsa_results r;
            nsa_results_create(p, &r);
            const int64_t dout = token_size(p, NSA_DOUT);
            for (int32_t b = 0; b < p->c.batch; b++)
                for (int64_t e = (p->first[b] + times[n] + 1) * dout; e < (p->first[b] + p->len[b]) * dout;
                     e++)
                    p->values[NSA_DOUT][e] = 0;
            nsa_run(p, &(nsa_run_options){0}, &r);
            for (int32_t b = 0; b < p->c.batch; b++)
                for (nsa_operand grad = NSA_DQ; grad <= NSA_DV; grad++) {
                    const int64_t size = token_size(p, grad);
                    for (int64_t e = (p->first[b] + times[n] + 1) * size;
                         e < (p->first[b] + p->len[b]) * size; e++)
                        if (r.values[grad][e] != 0)
                            fail_msg("%s: no query after %d has a gradient, but %s of token %lld is %g",
                                     c.name, times[n], nsa_operand_name(grad),
                                     (long long)(e / size - p->first[b]), r.values[grad][e]);
                }
            nsa_results_free(&r);
            nsa_problem_free(p);
        }
}

static void first_queries_see_no_compressed_block(void **state) {
    (void)state;
    nsa_case c = {
        .name = "first queries", .seqlen = 40, .num_heads = 2, .num_kv_heads = 1, .gate = NSA_GATE_TENSOR};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_results r;
    nsa_results_create(p, &r);
    for (int64_t e = 0; e < p->rows * p->c.num_heads * 3; e++) p->values[NSA_GATES][e] = e % 3 == 0;
    nsa_run(p, &(nsa_run_options){0}, &r);
    const int64_t size = token_size(p, NSA_OUT);
    for (int32_t i = 0; i < 9; i++) {
        bool sees = i >= p->c.block - 1;
        for (int32_t h = 0; h < 2; h++) assert_true(sees == isfinite(r.values[NSA_LSE_CMP][h * 40 + i]));
        for (int64_t e = i * size; e < (i + 1) * size; e++) {
            if (sees != (r.values[NSA_OUT][e] != 0)) fail_msg("query %d: out is %g", i, r.values[NSA_OUT][e]);
            if (!sees && r.values[NSA_DQ][e] != 0) fail_msg("query %d: dq is %g", i, r.values[NSA_DQ][e]);
        }
    }
    nsa_results_free(&r);
    nsa_problem_free(p);
}

/* ---- offsets beyond 2^31 ---- */

/* The tensor's rows of tokens in memory of their own, so far apart that the last ones lie beyond 2^31 elements. */
static void *spread_out(test_tensor *t, int64_t stride, size_t bytes) {
    char *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    const int64_t row = t->strides[1] * (t->tensor.dtype.bits / 8);
    for (int64_t i = 0; i < t->shape[1]; i++)
        memcpy(memory + i * stride * (t->tensor.dtype.bits / 8), t->memory + t->tensor.byte_offset + i * row,
               (size_t)row);
    t->tensor.data = memory;
    t->tensor.byte_offset = 0;
    t->strides[1] = stride;
    return memory;
}

static void rows_beyond_two_to_the_31_elements(void **state) {
    (void)state;
    nsa_host_only();
    static const nsa_operand operands[] = {NSA_Q, NSA_K, NSA_V, NSA_OUT, NSA_DOUT, NSA_DQ, NSA_DK, NSA_DV};
    nsa_case c = {.name = "far apart", .seqlen = 65, .num_heads = 2, .num_kv_heads = 1};
    nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
    nsa_results near;
    nsa_results_create(p, &near);
    nsa_run(p, &(nsa_run_options){0}, &near);
    const int64_t stride = ((int64_t)1 << 31) / 50 / 64 * 64; /* row 51 lies beyond */
    const size_t bytes = (size_t)(stride * p->rows * 2);
    void *memory[COUNT_OF(operands)];
    nsa_session *s = nsa_session_create(p, 0);
    for (size_t n = 0; n < COUNT_OF(operands); n++) {
        memory[n] = spread_out(&s->tensor[operands[n]], stride, bytes);
        if (!memory[n]) {
            skip_because("no address space for %zu bytes", bytes);
        }
    }
    assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params), SACCADE_OK);
    assert_int_equal(saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params), SACCADE_OK);
    for (size_t n = 3; n < COUNT_OF(operands); n++) {
        const int64_t size = token_size(p, operands[n]);
        for (int64_t e = 0; operands[n] != NSA_DOUT && e < p->rows * size; e++) {
            const uint16_t *at = (const uint16_t *)memory[n] + e / size * stride + e % size;
            uint32_t bits = (uint32_t)*at << 16;
            float value;
            memcpy(&value, &bits, sizeof value);
            if (value != near.values[operands[n]][e])
                fail_msg("element %lld of %s is %g, close together %g", (long long)e,
                         nsa_operand_name(operands[n]), value, near.values[operands[n]][e]);
        }
    }
    nsa_session_free(s);
    for (size_t n = 0; n < COUNT_OF(operands); n++) munmap(memory[n], bytes);
    nsa_results_free(&near);
    nsa_problem_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        long_test(per_query_outputs_up_to_t_depend_on_nothing_after_t),
        long_test(whole_tiles_up_to_t_depend_on_nothing_after_t),
        long_test(within_a_tile_only_the_choice_looks_ahead),
        cmocka_unit_test(started_blocks_leak_at_most_their_own_future),
        long_test(no_gradient_reaches_keys_after_the_query),
        cmocka_unit_test(first_queries_see_no_compressed_block),
        cmocka_unit_test(rows_beyond_two_to_the_31_elements),
    };
    return nsa_suite(tests, COUNT_OF(tests));
}
