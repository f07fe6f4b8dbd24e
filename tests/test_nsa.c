/* test_nsa.c - native sparse attention forward, against its definition in fp64. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/cmocka_all.h"
#include "support/nsa_product.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

static void every_option_meets_every_other(void **state) {
    (void)state;
    for (int i = 0; i < NSA_PRODUCT_SIZE; i++) {
        if (!test_takes_case((size_t)i)) continue;
        char name[256];
        nsa_case c = nsa_product(i, name, sizeof name);
        nsa_verify(&c, i % 2 ? SAC_BF16 : SAC_F32, false);
    }
}

static void fp16_and_unequal_head_dims(void **state) {
    (void)state;
    nsa_case c = {.name = "fp16 24/40",
                  .seqlen = 150,
                  .num_heads = 4,
                  .num_kv_heads = 2,
                  .head_dim = 24,
                  .head_dim_v = 40};
    nsa_verify(&c, SAC_F16, false);
    c.head_dim = 40, c.head_dim_v = 8, c.weights = true;
    nsa_verify(&c, SAC_F16, false);
}

static void any_strides_give_the_same_bits(void **state) {
    (void)state;
    nsa_results first, got;
    for (test_layout layout = LAYOUT_ROW_MAJOR; layout <= LAYOUT_MIXED; layout++) {
        if (layout == LAYOUT_ONE_HEAD) continue;
        /* A GPU's choice of backend may depend on the alignment of rows. */
        if (layout == LAYOUT_ODD && nsa_here()->device != &test_host && !nsa_here()->backend) continue;
        nsa_case c = {.name = "strides",
                      .batch = 2,
                      .seqlen = 70,
                      .num_heads = 4,
                      .num_kv_heads = 2,
                      .gate = NSA_GATE_TENSOR,
                      .layout = layout};
        nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
        nsa_results_create(p, &got);
        nsa_run(p, &(nsa_run_options){.forward_only = true}, &got);
        if (layout == LAYOUT_ROW_MAJOR) first = got;
        char how[32];
        snprintf(how, sizeof how, "in layout %d", layout);
        for (nsa_operand operand = NSA_OUT; operand < NSA_SCORES; operand++)
            nsa_check_same_bits(p, operand, &got, &first, how);
        if (layout) nsa_results_free(&got);
        nsa_problem_free(p);
    }
    nsa_results_free(&first);
}

static void broadcast_heads_are_read_as_they_are(void **state) {
    (void)state;
    nsa_case c = {.name = "stride 0", .seqlen = 70, .num_heads = 4, .num_kv_heads = 2};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    const int64_t row = (int64_t)p->c.num_kv_heads * p->c.head_dim;
    for (int64_t i = 0; i < p->rows; i++)
        for (int d = 0; d < p->c.head_dim; d++)
            p->values[NSA_K][i * row + p->c.head_dim + d] = p->values[NSA_K][i * row + d];
    nsa_results whole, broadcast;
    nsa_results_create(p, &whole);
    nsa_results_create(p, &broadcast);
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &whole);
    nsa_session *s = nsa_session_create(p, 0);
    s->tensor[NSA_K].strides[2] = 0;
    assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params), SACCADE_OK);
    test_tensor_read(&s->tensor[NSA_OUT], "out", broadcast.values[NSA_OUT]);
    nsa_check_same_bits(p, NSA_OUT, &broadcast, &whole, "with stride 0");
    nsa_session_free(s);
    nsa_results_free(&whole);
    nsa_results_free(&broadcast);
    nsa_problem_free(p);
}

static void nothing_saved_gives_the_same_out(void **state) {
    (void)state;
    nsa_case c = {.name = "out only",
                  .packed = true,
                  .batch = 3,
                  .lens = {65, 0, 127},
                  .num_heads = 2,
                  .num_kv_heads = 1};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_results saved, alone;
    nsa_results_create(p, &saved);
    nsa_results_create(p, &alone);
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &saved);
    nsa_run(p, &(nsa_run_options){.forward_only = true, .out_only = true, .num_threads = 1}, &alone);
    nsa_check_same_bits(p, NSA_OUT, &alone, &saved, "alone, with one thread");
    nsa_results_free(&saved);
    nsa_results_free(&alone);
    nsa_problem_free(p);
}

static void defaults_are_those_of_the_header(void **state) {
    (void)state;
    nsa_case c = {.name = "defaults",
                  .seqlen = 700,
                  .num_heads = 2,
                  .num_kv_heads = 1,
                  .block = 64,
                  .top_k = 16,
                  .window = 512,
                  .query_tile = 256};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_session *s = nsa_session_create(p, 0);
    nsa_results named, implied;
    nsa_results_create(p, &named);
    nsa_results_create(p, &implied);
    nsa_run(p, &(nsa_run_options){.forward_only = true}, &named);
    assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, NULL), SACCADE_OK);
    test_tensor_read(&s->tensor[NSA_OUT], "out", implied.values[NSA_OUT]);
    nsa_check_same_bits(p, NSA_OUT, &implied, &named, "by default");
    nsa_session_free(s);
    nsa_results_free(&named);
    nsa_results_free(&implied);
    nsa_problem_free(p);
}

static void short_and_empty_sequences(void **state) {
    (void)state;
    const nsa_case cases[] = {
        {.name = "no tokens"},
        {.name = "only empty sequences", .packed = true, .batch = 3},
        {.name = "one token", .seqlen = 1, .num_heads = 2, .num_kv_heads = 1},
        {.name = "shorter than a block", .seqlen = 7, .num_heads = 2, .weights = true},
        {.name = "shorter than the tile of queries",
         .seqlen = 3,
         .num_heads = 18,
         .num_kv_heads = 2,
         .query_tile = 40,
         .select_per = SACCADE_NSA_PER_GROUP},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) nsa_verify(&cases[i], SAC_F32, false);
}

static void activations_of_a_trained_model(void **state) {
    (void)state;
    nsa_case c = nsa_case_of_sample(32, false);
    c.name = "sample, per tile", c.seqlen = 700, c.top_k = 6, c.window = 64, c.query_tile = 64;
    nsa_verify(&c, SAC_BF16, false);
    c.name = "sample, per query", c.query_tile = 1, c.initial_blocks = 1, c.local_blocks = 2;
    nsa_verify(&c, SAC_BF16, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        long_test(every_option_meets_every_other),
        cmocka_unit_test(fp16_and_unequal_head_dims),
        cmocka_unit_test(any_strides_give_the_same_bits),
        cmocka_unit_test(broadcast_heads_are_read_as_they_are),
        cmocka_unit_test(nothing_saved_gives_the_same_out),
        cmocka_unit_test(defaults_are_those_of_the_header),
        cmocka_unit_test(short_and_empty_sequences),
        cmocka_unit_test(activations_of_a_trained_model),
    };
    return nsa_suite(tests, COUNT_OF(tests));
}
