/* test_nsa_backward.c - gradients of native sparse attention, the selection held fast, against the definition; and the
 * definition's own gradients against finite differences. */
#include <math.h>
#include <stdlib.h>

#include "support/cmocka_all.h"
#include "support/nsa_product.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

static void every_option_meets_every_other(void **state) {
    (void)state;
    for (int i = 1; i < NSA_PRODUCT_SIZE; i += 2) {
        if (!test_takes_case((size_t)i)) continue;
        char name[256];
        nsa_case c = nsa_product(i, name, sizeof name);
        nsa_verify(&c, i % 4 == 1 ? SAC_F32 : SAC_BF16, true);
    }
}

static void short_and_empty_sequences_have_gradients_too(void **state) {
    (void)state;
    const nsa_case cases[] = {
        {.name = "no tokens", .weights = true},
        {.name = "only empty sequences",
         .packed = true,
         .batch = 3,
         .weights = true,
         .gate = NSA_GATE_WEIGHTS},
        {.name = "one token", .seqlen = 1, .num_heads = 2, .num_kv_heads = 1, .gate = NSA_GATE_WEIGHTS},
        {.name = "shorter than a block",
         .seqlen = 7,
         .num_heads = 2,
         .weights = true,
         .gate = NSA_GATE_TENSOR},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) nsa_verify(&cases[i], SAC_F32, true);
}

static void fp16_and_unequal_head_dims(void **state) {
    (void)state;
    nsa_case c = {.name = "fp16 24/40",
                  .seqlen = 130,
                  .num_heads = 4,
                  .num_kv_heads = 2,
                  .head_dim = 24,
                  .head_dim_v = 40,
                  .weights = true,
                  .gate = NSA_GATE_WEIGHTS};
    nsa_verify(&c, SAC_F16, true);
}

static void a_negative_scale_turns_scores_round(void **state) {
    (void)state;
    static const int32_t query_tiles[] = {1, 16};
    for (size_t i = 0; i < COUNT_OF(query_tiles); i++) {
        const nsa_case c = {.name = "negative scale",
                            .seqlen = 300,
                            .num_heads = 16,
                            .num_kv_heads = 1,
                            .head_dim = 64,
                            .query_tile = query_tiles[i],
                            .scale = -0.2f,
                            .gate = NSA_GATE_WEIGHTS};
        nsa_verify(&c, SAC_BF16, true);
    }
}

/* A GPU fills tiles of 64 rows with the queries and heads that share a choice, and gathers them in groups of 4: few of
 * these make whole ones. */
static void groups_and_tiles_that_divide_nothing(void **state) {
    (void)state;
#define GROUP(heads, tile, dim, ...)                                                                         \
    {                                                                                                        \
        .name = "group of " #heads ", tiles of " #tile ", head_dim " #dim ", " #__VA_ARGS__,                 \
        .num_heads = 2 * (heads), .num_kv_heads = 2, .head_dim = dim, .query_tile = tile,                    \
        .select_per = SACCADE_NSA_PER_GROUP, .gate = NSA_GATE_TENSOR, __VA_ARGS__                            \
    }
    const nsa_case cases[] = {
        GROUP(3, 1, 64, .seed = 1),
        GROUP(5, 1, 128, .seed = 2),
        GROUP(6, 1, 64, .head_dim_v = 128),
        GROUP(7, 1, 96, .seed = 4),
        GROUP(12, 1, 40, .seed = 5),
        GROUP(33, 1, 16, .seed = 6),
        GROUP(65, 1, 16, .seqlen = 70),
        GROUP(3, 5, 64, .score = SACCADE_NSA_PROBABILITIES),
        GROUP(5, 2, 128, .block = 20),
        GROUP(1, 1, 64, .seed = 7),
        GROUP(1, 20, 64, .seed = 8),
        GROUP(1, 24, 128, .head_dim_v = 64),
        GROUP(3, 1, 192, .head_dim_v = 128),
        GROUP(7, 1, 64, .packed = true, .batch = 4, .lens = {50, 0, 9, 83}),
        GROUP(3, 7, 128, .packed = true, .batch = 4, .lens = {50, 0, 9, 83}),
        GROUP(6, 1, 64, .block = 1, .compressed_top_k = 1, .top_k = 7, .seqlen = 300),
    };
#undef GROUP
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        nsa_case c = cases[i];
        if (!c.seqlen) c.seqlen = 141;
        if (test_takes_case(i)) nsa_verify(&c, i % 3 ? SAC_BF16 : SAC_F16, true);
    }
}

/* A GPU's copies of tiles need aligned rows, and who goes back from dout itself must ask. */
static void rows_of_dout_begin_anywhere(void **state) {
    (void)state;
    const nsa_case cases[] = {
        {.name = "dout unaligned, per tile"},
        {.name = "dout unaligned, per query", .query_tile = 1},
        {.name = "dout unaligned, w_gate", .gate = NSA_GATE_WEIGHTS},
        {.name = "dout unaligned, packed", .batch = 2, .packed = true, .lens = {560, 77}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        nsa_case c = cases[i];
        c.seqlen = 600; /* more compressed keys than a backward that makes its own delta has */
        c.num_heads = 4, c.num_kv_heads = 2;
        c.dout_unaligned = true;
        nsa_verify(&c, SAC_BF16, true);
    }
}

/* Where a backend may take the queries of a compressed key in parts. */
static void few_compressed_keys_are_seen_by_many_queries(void **state) {
    (void)state;
    nsa_case c = {.name = "few compressed keys",
                  .seqlen = 1700,
                  .num_heads = 4,
                  .num_kv_heads = 2,
                  .block = 64,
                  .window = 64,
                  .query_tile = 64,
                  .weights = true};
    nsa_verify(&c, SAC_BF16, true);
    c.name = "few compressed keys, packed", c.packed = true, c.batch = 3, c.weights = false;
    c.lens[0] = 40, c.lens[1] = 1560, c.lens[2] = 100;
    nsa_verify(&c, SAC_BF16, true);
}

/* A head's weights of the window's gate hold a NaN: what that branch would give is NaN, not nothing. */
static void gates_that_are_nan_give_no_finite_gradients(void **state) {
    enum { WINDOW = 2 }; /* of the three gates */
    (void)state;
    const nsa_case c = {
        .name = "a gate is NaN", .seqlen = 100, .num_heads = 4, .num_kv_heads = 2, .gate = NSA_GATE_WEIGHTS};
    nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
    nsa_results got;
    nsa_results_create(p, &got);
    p->values[NSA_W_GATE][WINDOW * (int64_t)p->c.head_dim] = NAN;
    nsa_run(p, &(nsa_run_options){0}, &got);
    static const nsa_operand grads[] = {NSA_DK, NSA_DV};
    for (size_t n = 0; n < COUNT_OF(grads); n++) {
        const test_shape shape = nsa_problem_shape(p, grads[n]);
        const int64_t of_a_head = shape.extent[3];
        for (int64_t e = 0; e < test_shape_size(&shape); e++) {
            const bool first_group = e / of_a_head % p->c.num_kv_heads == 0;
            const double value = got.values[grads[n]][e];
            if (first_group == !isfinite(value)) continue;
            fail_msg("%s: element %lld of %s is %g", p->c.name, (long long)e, nsa_operand_name(grads[n]),
                     value);
        }
    }
    nsa_results_free(&got);
    nsa_problem_free(p);
}

static void activations_of_a_trained_model(void **state) {
    (void)state;
    nsa_case c = nsa_case_of_sample(32, false);
    c.name = "sample, per query", c.seqlen = 400, c.top_k = 4, c.window = 64, c.query_tile = 1;
    c.gate = NSA_GATE_WEIGHTS;
    nsa_verify(&c, SAC_BF16, true);
}

/* ---- finite differences ---- */

static double loss(const nsa_problem *p, const nsa_choice *choice, nsa_results *r) {
    double sum = 0;
    nsa_truth(p, NSA_EXACT, choice, false, r);
    test_shape shape = nsa_problem_shape(p, NSA_OUT);
    for (int64_t e = 0; e < test_shape_size(&shape); e++)
        sum += r->values[NSA_OUT][e] * p->values[NSA_DOUT][e];
    return sum;
}

static void hold_to_differences(const nsa_problem *p, const nsa_choice *choice, nsa_operand input,
                                nsa_operand grad, const nsa_results *exact, nsa_results *scratch) {
    const double step = 1e-5;
    test_shape shape = nsa_problem_shape(p, input);
    for (int64_t e = 0; shape.ndim && e < test_shape_size(&shape); e++) {
        double *at = &p->values[input][e], value = *at;
        *at = value + step;
        double above = loss(p, choice, scratch);
        *at = value - step;
        double slope = (above - loss(p, choice, scratch)) / (2 * step), found = exact->values[grad][e];
        *at = value;
        if (!(fabs(slope - found) <= 1e-7 * (1 + fabs(slope))))
            fail_msg("%s: element %lld of %s is %.12g, the difference quotient %.12g", p->c.name,
                     (long long)e, nsa_operand_name(grad), found, slope);
    }
}

static void the_definition_agrees_with_finite_differences(void **state) {
    (void)state;
    static const nsa_case cases[] = {
        {.name = "per tile, weights",
         .seqlen = 13,
         .num_heads = 2,
         .num_kv_heads = 1,
         .head_dim = 4,
         .head_dim_v = 3,
         .block = 3,
         .top_k = 2,
         .window = 4,
         .query_tile = 5,
         .weights = true,
         .gate = NSA_GATE_WEIGHTS},
        {.name = "packed, per query, started",
         .packed = true,
         .batch = 3,
         .lens = {7, 0, 6},
         .num_heads = 2,
         .head_dim = 3,
         .block = 2,
         .top_k = 2,
         .window = 3,
         .query_tile = 1,
         .visibility = SACCADE_NSA_STARTED,
         .gate = NSA_GATE_TENSOR},
        {.name = "uniform gates",
         .batch = 2,
         .seqlen = 6,
         .head_dim = 4,
         .block = 2,
         .top_k = 1,
         .window = 1,
         .query_tile = 2},
    };
    static const nsa_operand pairs[][2] = {
        {NSA_Q, NSA_DQ},     {NSA_K, NSA_DK},           {NSA_V, NSA_DV},        {NSA_W_K, NSA_DW_K},
        {NSA_W_V, NSA_DW_V}, {NSA_W_GATE, NSA_DW_GATE}, {NSA_GATES, NSA_DGATES}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        nsa_problem *p = nsa_problem_create(&cases[i], SAC_F64);
        nsa_results exact, scratch;
        nsa_results_create(p, &exact);
        nsa_results_create(p, &scratch);
        nsa_truth_compress(p, NSA_EXACT, &exact);
        nsa_truth_scores(p, exact.values[NSA_K_CMP], exact.values[NSA_SCORES]);
        nsa_truth_select(p, exact.values[NSA_SCORES], exact.values[NSA_INDICES]);
        nsa_choice choice = {.indices = exact.values[NSA_INDICES]};
        nsa_truth(p, NSA_EXACT, &choice, true, &exact);
        for (size_t n = 0; n < COUNT_OF(pairs); n++)
            hold_to_differences(p, &choice, pairs[n][0], pairs[n][1], &exact, &scratch);
        nsa_results_free(&exact);
        nsa_results_free(&scratch);
        nsa_problem_free(p);
    }
}

/* ---- what is asked for ---- */

static void each_gradient_may_be_wanted_alone(void **state) {
    (void)state;
    nsa_case c = {.name = "alone",
                  .seqlen = 70,
                  .num_heads = 4,
                  .num_kv_heads = 2,
                  .weights = true,
                  .gate = NSA_GATE_WEIGHTS};
    nsa_problem *p = nsa_problem_create(&c, SAC_F32);
    nsa_results all, one;
    nsa_results_create(p, &all);
    nsa_results_create(p, &one);
    nsa_run(p, &(nsa_run_options){0}, &all);
    for (nsa_operand wanted = NSA_DQ; wanted <= NSA_DW_GATE; wanted++) {
        nsa_session *s = nsa_session_create(p, 0);
        DLTensor **slots[] = {&s->grads.dq,   &s->grads.dk,   &s->grads.dv,
                              &s->grads.dw_k, &s->grads.dw_v, &s->grads.dw_gate};
        for (int n = 0; n < 6; n++)
            if (NSA_DQ + n != (int)wanted) *slots[n] = NULL;
        assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params),
                         SACCADE_OK);
        if (saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params) != SACCADE_OK)
            fail_msg("%s alone: %s", nsa_operand_name(wanted), saccade_last_error());
        test_tensor_read(&s->tensor[wanted], nsa_operand_name(wanted), one.values[wanted]);
        test_shape shape = nsa_problem_shape(p, wanted);
        for (int64_t e = 0; e < test_shape_size(&shape); e++)
            if (!(fabs(one.values[wanted][e] - all.values[wanted][e]) <= 1e-5))
                fail_msg("element %lld of %s is %g alone, %g with all", (long long)e,
                         nsa_operand_name(wanted), one.values[wanted][e], all.values[wanted][e]);
        nsa_session_free(s);
    }
    nsa_results_free(&all);
    nsa_results_free(&one);
    nsa_problem_free(p);
}

/* An output that was set to zero in between leaves its gate without a gradient; had it been made again, it would
 * not. */
static void outputs_that_were_kept_are_not_made_again(void **state) {
    (void)state;
    for (int tile = 1; tile <= 16; tile += 15)
        for (int branch = 0; branch < 3; branch++) {
            nsa_case c = {.name = "kept outputs",
                          .seqlen = 70,
                          .num_heads = 4,
                          .num_kv_heads = 1,
                          .query_tile = tile,
                          .gate = NSA_GATE_TENSOR,
                          .keep_outputs = true};
            nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
            nsa_session *s = nsa_session_create(p, 0);
            nsa_results got;
            nsa_results_create(p, &got);
            const nsa_operand kept = NSA_OUT_CMP + (nsa_operand)branch;
            assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params),
                             SACCADE_OK);
            test_tensor_write(&s->tensor[kept], got.values[kept]);
            assert_int_equal(saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params), SACCADE_OK);
            test_tensor_read(&s->tensor[NSA_DGATES], "dgates", got.values[NSA_DGATES]);
            const int64_t last =
                3 * ((int64_t)p->rows * c.num_heads - 1); /* its row sees keys in all branches */
            for (int other = 0; other < 3 && test_device_computes(nsa_here()->device); other++)
                if ((got.values[NSA_DGATES][last + other] == 0) != (other == branch))
                    fail_msg("tile %d: with %s zero, gate %d has the gradient %g", tile,
                             nsa_operand_name(kept), other, got.values[NSA_DGATES][last + other]);
            nsa_results_free(&got);
            nsa_session_free(s);
            nsa_problem_free(p);
        }
}

static void deterministic_gradients_are_the_same_bits(void **state) {
    (void)state;
    nsa_case c = {.name = "deterministic",
                  .packed = true,
                  .batch = 2,
                  .lens = {300, 65},
                  .num_heads = 4,
                  .num_kv_heads = 1,
                  .query_tile = 1,
                  .weights = true,
                  .gate = NSA_GATE_WEIGHTS};
    nsa_problem *p = nsa_problem_create(&c, SAC_BF16);
    nsa_results first, again;
    nsa_results_create(p, &first);
    nsa_results_create(p, &again);
    for (int run = 0; run < 3; run++) {
        nsa_session *s = nsa_session_create(p, 0);
        s->params.deterministic = true;
        assert_int_equal(saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params),
                         SACCADE_OK);
        assert_int_equal(saccade_nsa_backward(s->ctx, &s->t, &s->grads, &s->params), SACCADE_OK);
        nsa_session_read(s, run ? &again : &first);
        for (nsa_operand grad = NSA_DQ; run && grad < NSA_NUM_OPERANDS; grad++)
            nsa_check_same_bits(p, grad, &again, &first, "once more");
        nsa_session_free(s);
    }
    nsa_results_free(&again);
    nsa_results_free(&first);
    nsa_problem_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_definition_agrees_with_finite_differences),
        long_test(every_option_meets_every_other),
        cmocka_unit_test(short_and_empty_sequences_have_gradients_too),
        cmocka_unit_test(fp16_and_unequal_head_dims),
        cmocka_unit_test(a_negative_scale_turns_scores_round),
        long_test(groups_and_tiles_that_divide_nothing),
        cmocka_unit_test(rows_of_dout_begin_anywhere),
        cmocka_unit_test(few_compressed_keys_are_seen_by_many_queries),
        cmocka_unit_test(gates_that_are_nan_give_no_finite_gradients),
        cmocka_unit_test(activations_of_a_trained_model),
        cmocka_unit_test(each_gradient_may_be_wanted_alone),
        cmocka_unit_test(outputs_that_were_kept_are_not_made_again),
        cmocka_unit_test(deterministic_gradients_are_the_same_bits),
    };
    return nsa_suite(tests, COUNT_OF(tests));
}
