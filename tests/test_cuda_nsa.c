/* test_cuda_nsa.c - native sparse attention as a guest on a GPU: captured in a graph, forward and backward, and on
 * one with a small cache. The other tests of native sparse attention run there too. Skips without a GPU. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"
#include "support/cuda_graph.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

static void skip_on_host(void) {
    if (nsa_here()->device != &test_host) return;
    skip_because("about a GPU");
}

static void run_both(void *data) {
    nsa_session *s = data;
    if (saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params) != SACCADE_OK ||
        saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params) != SACCADE_OK)
        fail_msg("%s: %s", s->p->c.name, saccade_last_error());
}

/* A workspace of the size that both passes need. */
static size_t give_workspace(nsa_session *s) {
    size_t forward = 0, backward = 0;
    assert_int_equal(saccade_nsa_workspace(s->ctx, &s->t, NULL, &s->params, &forward), SACCADE_OK);
    assert_int_equal(saccade_nsa_workspace(s->ctx, &s->t, &s->grads, &s->params, &backward), SACCADE_OK);
    s->params.workspace_bytes = forward > backward ? forward : backward;
    s->params.workspace = nsa_workspace_create(s->params.workspace_bytes);
    return s->params.workspace_bytes;
}

/* Does it have rows that are nobody's, how many depending on the lengths? They stay what they were. */
static bool has_spare_rows(nsa_operand operand) {
    return operand == NSA_K_CMP || operand == NSA_V_CMP || operand == NSA_INDICES;
}

static void expect_same_bits(const nsa_problem *p, const nsa_results *got, const nsa_results *want,
                             int replay, bool spare_rows) {
    char how[32];
    snprintf(how, sizeof how, "in replay %d", replay);
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++)
        if (operand != NSA_SCORES && (spare_rows || !has_spare_rows(operand)))
            nsa_check_same_bits(p, operand, got, want, how);
}

static void capture(const nsa_case *c) {
    nsa_problem *p = nsa_problem_create(c, SAC_BF16);
    nsa_results want, got;
    nsa_results_create(p, &want);
    nsa_results_create(p, &got);
    nsa_session *direct = nsa_session_create(p, 0), *s = nsa_session_create(p, 0);
    direct->params.deterministic = s->params.deterministic = true;
    run_both(direct);
    nsa_session_read(direct, &want);
    const size_t bytes = give_workspace(s);
    test_graph *graph = test_graph_capture(s->ctx, run_both, s);
    for (int replay = 0; replay < 3; replay++) {
        test_graph_replay(graph);
        nsa_session_read(s, &got);
        expect_same_bits(p, &got, &want, replay, true);
    }
    test_graph_free(graph);
    nsa_workspace_free(c->name, s->params.workspace, bytes);
    nsa_session_free(s);
    nsa_session_free(direct);
    nsa_results_free(&want);
    nsa_results_free(&got);
    nsa_problem_free(p);
}

static nsa_case packed(const char *name, int32_t query_tile, nsa_gate_form gate) {
    return (nsa_case){.name = name,
                      .packed = true,
                      .batch = 3,
                      .lens = {130, 0, 65},
                      .num_heads = 4,
                      .num_kv_heads = 2,
                      .head_dim = 64,
                      .query_tile = query_tile,
                      .gate = gate};
}

static void both_passes_replay_from_a_graph(void **state) {
    (void)state;
    skip_on_host();
    const nsa_case cases[] = {
        {.name = "weights",
         .batch = 2,
         .seqlen = 300,
         .num_heads = 4,
         .num_kv_heads = 2,
         .head_dim = 64,
         .weights = true,
         .gate = NSA_GATE_WEIGHTS},
        packed("packed, per query", 1, NSA_GATE_TENSOR),
        {.name = "sparse compressed branch",
         .seqlen = 300,
         .num_heads = 2,
         .head_dim = 64,
         .block = 1,
         .compressed_top_k = 1},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) capture(&cases[i]);
}

/* What a direct call gives where the longest sequence may have `bound` tokens. */
static void run_bounded(const nsa_problem *p, int32_t bound, nsa_results *r) {
    nsa_results_create(p, r);
    nsa_session *s = nsa_session_create(p, 0);
    s->params.deterministic = true;
    s->params.max_seqlen = bound;
    run_both(s);
    nsa_session_read(s, r);
    nsa_session_free(s);
}

static void replay_other_lengths(nsa_case c, const int32_t lens[3]) {
    enum { BOUND = 160 };
    nsa_results want[2], got;
    nsa_problem *p[2] = {nsa_problem_create(&c, SAC_BF16), NULL};
    memcpy(c.lens, lens, 3 * sizeof *lens);
    p[1] = nsa_problem_create(&c, SAC_BF16); /* as many tokens, and the same ones */
    nsa_results_create(p[0], &got);
    for (int i = 0; i < 2; i++) run_bounded(p[i], BOUND, &want[i]);
    nsa_session *s = nsa_session_create(p[0], 0);
    s->params.deterministic = true;
    s->params.max_seqlen = BOUND;
    const size_t bytes = give_workspace(s);
    test_graph *graph = test_graph_capture(s->ctx, run_both, s);
    for (int replay = 0; replay < 4; replay++) {
        test_tensor_write(&s->tensor[NSA_CU_SEQLENS], p[replay % 2]->values[NSA_CU_SEQLENS]);
        test_graph_replay(graph);
        nsa_session_read(s, &got);
        expect_same_bits(p[replay % 2], &got, &want[replay % 2], replay, false);
    }
    test_graph_free(graph);
    nsa_workspace_free(c.name, s->params.workspace, bytes);
    nsa_session_free(s);
    nsa_results_free(&got);
    for (int i = 0; i < 2; i++) {
        nsa_results_free(&want[i]);
        nsa_problem_free(p[i]);
    }
}

static void replay_serves_the_lengths_that_the_tensor_then_holds(void **state) {
    (void)state;
    skip_on_host();
    const int32_t then[] = {7, 40, 148};
    nsa_case per_tile = packed("per tile", 16, NSA_GATE_WEIGHTS);
    per_tile.weights = true;
    replay_other_lengths(per_tile, then);
    replay_other_lengths(packed("per query", 1, NSA_GATE_WEIGHTS), then);
}

/* Results where the GPU seems to have an L2 of so many bytes; 0: its own. */
static void run_with_cache(const nsa_problem *p, int64_t l2_bytes, nsa_results *r) {
    nsa_results_create(p, r);
    nsa_session *s = nsa_session_create(p, 0);
    sac_cuda_device *gpu = (sac_cuda_device *)sac_cuda_facts_of(s->ctx, (DLDevice){kDLCUDA, 0})->device;
    if (l2_bytes) gpu->l2_bytes = l2_bytes;
    run_both(s);
    nsa_session_read(s, r);
    nsa_session_free(s);
}

static void expect_close(const nsa_problem *p, const nsa_results *got, const nsa_results *want,
                         const char *how) {
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++) {
        test_shape shape = nsa_problem_shape(p, operand);
        for (int64_t e = 0; shape.ndim && e < test_shape_size(&shape); e++) {
            const double a = got->values[operand][e], b = want->values[operand][e];
            if (!(a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= 0x1p-6 * fmax(fabs(b), 0.1)))
                fail_msg("%s: element %lld of %s is %.9g %s, else %.9g", p->c.name, (long long)e,
                         nsa_operand_name(operand), a, how, b);
        }
    }
}

/* What the L2 does not hold is worked on in parts: the order of sums changes, and nothing else. */
static void a_small_cache_changes_no_more_than_the_order_of_sums(void **state) {
    (void)state;
    skip_on_host();
    const nsa_case cases[] = {
        {.name = "per query", .batch = 2, .seqlen = 333, .num_heads = 16, .head_dim = 128, .block = 16},
        {.name = "per query, packed",
         .packed = true,
         .batch = 3,
         .lens = {130, 0, 65},
         .num_heads = 32,
         .block = 32},
        {.name = "per query, blocks of 20", .seqlen = 250, .num_heads = 16, .block = 20, .head_dim_v = 40},
        {.name = "groups of 4", .seqlen = 333, .num_heads = 8, .num_kv_heads = 2, .block = 16},
        {.name = "groups of 6, packed",
         .packed = true,
         .batch = 3,
         .lens = {130, 0, 265},
         .num_heads = 6,
         .num_kv_heads = 1,
         .block = 16},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        nsa_case c = cases[i];
        if (!c.num_kv_heads) c.num_kv_heads = c.num_heads / 16;
        c.query_tile = 1;
        nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
        nsa_results small, own;
        run_with_cache(p, 1 << 16, &small);
        run_with_cache(p, 0, &own);
        expect_close(p, &small, &own, "in a small cache");
        nsa_results_free(&own);
        nsa_results_free(&small);
        nsa_problem_free(p);
    }
}

/* Where compressed keys have too few tiles for the GPU, each tile is cut by its queries, and whoever comes last stores
 * the sum of its parts. Among so many tiles that is the first part's turn here and the second's there, and seldom in
 * two calls alike. */
static void a_tile_cut_by_its_queries_is_stored_whichever_part_comes_last(void **state) {
    (void)state;
    skip_on_host();
    const nsa_case c = {.name = "128 key tiles", .seqlen = 300, .num_heads = 128, .head_dim = 72};
    const nsa_run_options options = {.num_threads = 1};
    nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
    nsa_results first, again;
    nsa_results_create(p, &first);
    nsa_results_create(p, &again);
    nsa_run(p, &options, &first);
    for (int run = 0; run < 3; run++) {
        nsa_run(p, &options, &again);
        expect_close(p, &again, &first, "called again");
    }
    nsa_results_free(&again);
    nsa_results_free(&first);
    nsa_problem_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_passes_replay_from_a_graph),
        cmocka_unit_test(replay_serves_the_lengths_that_the_tensor_then_holds),
        cmocka_unit_test(a_small_cache_changes_no_more_than_the_order_of_sums),
        cmocka_unit_test(a_tile_cut_by_its_queries_is_stored_whichever_part_comes_last)};
    return nsa_suite(tests, COUNT_OF(tests));
}
