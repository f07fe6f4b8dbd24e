/* test_nsa_stages.c - compress, score, select and gate by themselves; ties, NaN, and fewer candidates than places. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/nsa_product.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

/* A problem, what the library made of it, and what is right. */
typedef struct bench {
    nsa_problem *p;
    nsa_results got, exact, plain;
} bench;

static bench set_up(const nsa_case *c, sac_dtype dtype) {
    bench s = {.p = nsa_problem_create(c, dtype)};
    nsa_results_create(s.p, &s.got);
    nsa_results_create(s.p, &s.exact);
    nsa_results_create(s.p, &s.plain);
    return s;
}

static void tear_down(bench *s) {
    nsa_results_free(&s->got);
    nsa_results_free(&s->exact);
    nsa_results_free(&s->plain);
    nsa_problem_free(s->p);
}

static void means_of_whole_blocks(void **state) {
    (void)state;
    for (int i = 0; i < NSA_PRODUCT_SIZE; i++) {
        if (!test_takes_case((size_t)i)) continue;
        char name[256];
        nsa_case c = nsa_product(i, name, sizeof name);
        bench s = set_up(&c, i % 3 == 0 ? SAC_F32 : i % 3 == 1 ? SAC_BF16 : SAC_F16);
        nsa_run_stage(s.p, NSA_COMPRESS, NULL, &s.got);
        nsa_truth_compress(s.p, NSA_EXACT, &s.exact);
        nsa_truth_compress(s.p, NSA_PLAIN, &s.plain);
        nsa_check(s.p, NSA_K_CMP, s.got.values[NSA_K_CMP], &s.exact, &s.plain);
        nsa_check(s.p, NSA_V_CMP, s.got.values[NSA_V_CMP], &s.exact, &s.plain);
        tear_down(&s);
    }
}

static void score_and_select(bench *s) {
    nsa_run_stage(s->p, NSA_COMPRESS, NULL, &s->got);
    nsa_run_stage(s->p, NSA_SCORE_BLOCKS, NULL, &s->got);
    nsa_run_stage(s->p, NSA_SELECT, NULL, &s->got);
}

static void scores_by_both_rules_and_what_they_choose(void **state) {
    (void)state;
    for (int i = 0; i < NSA_PRODUCT_SIZE; i++) {
        if (!test_takes_case((size_t)i)) continue;
        char name[256];
        nsa_case c = nsa_product(i, name, sizeof name);
        bench s = set_up(&c, i % 2 ? SAC_F32 : SAC_BF16);
        score_and_select(&s);
        nsa_truth_scores(s.p, s.got.values[NSA_K_CMP], s.exact.values[NSA_SCORES]);
        nsa_check_scores(s.p, s.got.values[NSA_SCORES], s.exact.values[NSA_SCORES]);
        nsa_check_selection(s.p, s.got.values[NSA_SCORES], s.got.values[NSA_INDICES]);
        tear_down(&s);
    }
}

/* ---- what a list looks like ---- */

/* The blocks of one list of the only sequence's only head. */
static void expect_blocks(const nsa_case *c, int32_t tile, const double *expected) {
    bench s = set_up(c, SAC_F32);
    score_and_select(&s);
    nsa_check_selection(s.p, s.got.values[NSA_SCORES], s.got.values[NSA_INDICES]);
    const double *got = s.got.values[NSA_INDICES] + tile * s.p->c.top_k;
    for (int32_t n = 0; n < s.p->c.top_k; n++)
        if (got[n] != expected[n])
            fail_msg("%s: place %d of tile %d has block %g, expected %g", c->name, n, tile, got[n],
                     expected[n]);
    tear_down(&s);
}

static void lower_index_wins_a_tie(void **state) {
    (void)state;
    /* Tile 3 ends with token 63, which completes block 7; tile 2 with 47, in block 5. */
    nsa_case c = {.name = "ties", .seqlen = 64, .inputs = NSA_EQUAL_KEYS};
    expect_blocks(&c, 3, (double[]){0, 1, 2, 3});
    c.local_blocks = 2;
    expect_blocks(&c, 3, (double[]){0, 1, 6, 7});
    c.initial_blocks = 1;
    expect_blocks(&c, 2, (double[]){0, 1, 4, 5});
    c.score = SACCADE_NSA_PROBABILITIES, c.local_blocks = c.initial_blocks = 0;
    expect_blocks(&c, 1, (double[]){0, 1, 2, 3});
    /* The last of 62 tokens lies in a block that never completes: it needs no score. */
    c.seqlen = 62;
    expect_blocks(&c, 3, (double[]){0, 1, 2, 7});
    c.visibility = SACCADE_NSA_STARTED;
    expect_blocks(&c, 3, (double[]){0, 1, 2, 7});
}

static void fewer_candidates_give_fewer_blocks(void **state) {
    (void)state;
    nsa_case c = {.name = "few", .seqlen = 64, .top_k = 16};
    expect_blocks(&c, 0, (double[]){0, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1});
    expect_blocks(&c, 3, (double[]){0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1});
    c.initial_blocks = 3, c.local_blocks = 4;
    expect_blocks(&c, 0, (double[]){0, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1});
    c.seqlen = 3, c.top_k = 2, c.initial_blocks = 1, c.local_blocks = 1;
    expect_blocks(&c, 0, (double[]){0, -1});
}

/* Blocks 2, 6 and 9 hold tokens 20, 49 and 78, whose keys are NaN. */
static void nan_never_wins(void **state) {
    (void)state;
    nsa_case c = {.name = "NaN", .seqlen = 80, .top_k = 10, .inputs = NSA_NAN_KEYS, .query_tile = 80};
    expect_blocks(&c, 0, (double[]){0, 1, 3, 4, 5, 7, 8, -1, -1, -1});
    /* A softmax over a NaN is NaN, so nothing wins; what is forced needs no score. */
    c.score = SACCADE_NSA_PROBABILITIES, c.initial_blocks = 1, c.local_blocks = 1;
    expect_blocks(&c, 0, (double[]){0, 9, -1, -1, -1, -1, -1, -1, -1, -1});
}

/* Eight blocks whose every key has this score, for queries of ones; what 64 of them choose. */
static void expect_choice(const double score[8], int32_t top_k, const double *expected) {
    nsa_case c = {.name = "scored blocks", .seqlen = 64, .query_tile = 64, .head_dim = 8, .top_k = top_k};
    bench s = set_up(&c, SAC_F32);
    for (int64_t e = 0; e < s.p->rows * 8; e++) {
        s.p->values[NSA_Q][e] = 1;
        s.p->values[NSA_K][e] = score[e / 64];
    }
    score_and_select(&s);
    nsa_check_selection(s.p, s.got.values[NSA_SCORES], s.got.values[NSA_INDICES]);
    for (int n = 0; n < top_k; n++)
        if (s.got.values[NSA_INDICES][n] != expected[n])
            fail_msg("place %d has block %g, expected %g", n, s.got.values[NSA_INDICES][n], expected[n]);
    tear_down(&s);
}

static void minus_infinity_never_wins(void **state) {
    (void)state;
    expect_choice((double[]){1, 1, 1, -INFINITY, 1, -INFINITY, 1, 1}, 8,
                  (double[]){0, 1, 2, 4, 6, 7, -1, -1});
}

static void better_block_displaces_the_last_of_a_tie(void **state) {
    (void)state;
    expect_choice((double[]){1, 1, 1, 1, 1, 1, 2, 1}, 4, (double[]){0, 1, 2, 6});
    expect_choice((double[]){1, 2, 1, 2, 1, 3, 2, 2}, 4, (double[]){1, 3, 5, 6});
    expect_choice((double[]){-1, -2, -3, -3, -3, -2, -2, -4}, 3, (double[]){0, 1, 5});
}

static void choice_on_activations_of_a_trained_model(void **state) {
    (void)state;
    for (int per_query = 0; per_query < 2; per_query++) {
        nsa_case c = nsa_case_of_sample(64, per_query);
        bench s = set_up(&c, SAC_BF16);
        score_and_select(&s);
        nsa_truth_scores(s.p, s.got.values[NSA_K_CMP], s.exact.values[NSA_SCORES]);
        nsa_check_scores(s.p, s.got.values[NSA_SCORES], s.exact.values[NSA_SCORES]);
        nsa_check_selection(s.p, s.got.values[NSA_SCORES], s.got.values[NSA_INDICES]);
        nsa_check_choice(s.p, s.exact.values[NSA_SCORES], s.got.values[NSA_INDICES]);
        tear_down(&s);
    }
}

/* ---- gate ---- */

static void gates_of_all_three_forms(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        nsa_case c = {.name = "gate",
                      .batch = 2,
                      .seqlen = 65,
                      .packed = i % 2,
                      .lens = {40, 0},
                      .num_heads = 4,
                      .num_kv_heads = 2,
                      .head_dim_v = 24,
                      .gate = (nsa_gate_form)(i / 4),
                      .layout = LAYOUT_MIXED,
                      .seed = (uint64_t)i};
        bench s = set_up(&c, i / 2 % 2 ? SAC_F32 : SAC_BF16);
        const int64_t count = s.p->rows * s.p->c.num_heads * s.p->c.head_dim_v;
        double *branch_out[3];
        for (int branch = 0; branch < 3; branch++) { /* any numbers of the dtype will do */
            branch_out[branch] = calloc((size_t)count, sizeof(double));
            assert_non_null(branch_out[branch]);
            for (int64_t e = 0; e < count; e++)
                branch_out[branch][e] = s.p->values[NSA_DOUT][(e + branch * 7) % count];
        }
        nsa_run_stage(s.p, NSA_GATE, branch_out, &s.got);
        nsa_truth_gate(s.p, NSA_EXACT, branch_out, s.exact.values[NSA_OUT]);
        nsa_truth_gate(s.p, NSA_PLAIN, branch_out, s.plain.values[NSA_OUT]);
        nsa_check(s.p, NSA_OUT, s.got.values[NSA_OUT], &s.exact, &s.plain);
        for (int branch = 0; branch < 3; branch++) free(branch_out[branch]);
        tear_down(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        long_test(means_of_whole_blocks),
        long_test(scores_by_both_rules_and_what_they_choose),
        cmocka_unit_test(lower_index_wins_a_tie),
        cmocka_unit_test(fewer_candidates_give_fewer_blocks),
        cmocka_unit_test(nan_never_wins),
        cmocka_unit_test(minus_infinity_never_wins),
        cmocka_unit_test(better_block_displaces_the_last_of_a_tie),
        cmocka_unit_test(choice_on_activations_of_a_trained_model),
        cmocka_unit_test(gates_of_all_three_forms),
    };
    return nsa_suite(tests, COUNT_OF(tests));
}
