/* test_reference.c - the fp64 reference against what can be worked out by hand, and its gradients against finite
 * differences. What it says is what every other backend is held against. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/row.h"
#include "support/attention_run.h"
#include "support/cmocka_all.h"
#include "support/random.h"

static void run_reference(const problem *p, results *r, bool forward_only) {
    results_create(p, r);
    if (attention_run(p, "reference", SAC_F64, &(run_options){.forward_only = forward_only, .num_threads = 1},
                      r) != SACCADE_OK)
        fail_msg("%s: %s", p->c.name, saccade_last_error());
}

static void assert_near(const char *what, double got, double expected, double tolerance) {
    if (!(fabs(got - expected) <= tolerance))
        fail_msg("%s: %.15g, expected %.15g within %g", what, got, expected, tolerance);
}

/* ---- which keys are seen ---- */

/* Rows of head 0, sequence after sequence: 'x' where query sees key. */
typedef struct drawn_mask {
    attention_case c;
    const char *rows[16];
} drawn_mask;

#define LETTERS .head_dim = 8

static const drawn_mask drawn_masks[] = {
    {{.name = "full", .seqlen_q = 2, .seqlen_k = 3, LETTERS}, {"xxx", "xxx"}},
    {{.name = "causal top_left, more keys",
      .seqlen_q = 3,
      .seqlen_k = 5,
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      LETTERS},
     {"x....", "xx...", "xxx.."}},
    {{.name = "causal top_left, more queries",
      .seqlen_q = 4,
      .seqlen_k = 2,
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      LETTERS},
     {"x.", "xx", "xx", "xx"}},
    {{.name = "causal bottom_right, more keys",
      .seqlen_q = 3,
      .seqlen_k = 5,
      .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
      LETTERS},
     {"xxx..", "xxxx.", "xxxxx"}},
    {{.name = "causal bottom_right, more queries",
      .seqlen_q = 4,
      .seqlen_k = 2,
      .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
      LETTERS},
     {"..", "..", "x.", "xx"}},
    {{.name = "window (1, 0)", .seqlen_q = 4, .seqlen_k = 4, .window = {true, 1, 0}, LETTERS},
     {"x...", "xx..", ".xx.", "..xx"}},
    {{.name = "window (0, 2)", .seqlen_q = 3, .seqlen_k = 5, .window = {true, 0, 2}, LETTERS},
     {"xxx..", ".xxx.", "..xxx"}},
    {{.name = "window (-1, 1)", .seqlen_q = 3, .seqlen_k = 4, .window = {true, -1, 1}, LETTERS},
     {"xx..", "xxx.", "xxxx"}},
    {{.name = "window (1, -1)", .seqlen_q = 4, .seqlen_k = 3, .window = {true, 1, -1}, LETTERS},
     {"xxx", "xxx", ".xx", "..x"}},
    {{.name = "window (1, 0) bottom_right",
      .seqlen_q = 2,
      .seqlen_k = 4,
      .window = {true, 1, 0, SACCADE_BOTTOM_RIGHT},
      LETTERS},
     {".xx.", "..xx"}},
    {{.name = "window top_left and causal bottom_right",
      .seqlen_q = 3,
      .seqlen_k = 4,
      .window = {true, 0, 2},
      .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
      LETTERS},
     {"xx..", ".xx.", "..xx"}},
    {{.name = "window bottom_right that causal top_left excludes",
      .seqlen_q = 2,
      .seqlen_k = 4,
      .window = {true, 0, 0, SACCADE_BOTTOM_RIGHT},
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      LETTERS},
     {"....", "...."}},
    {{.name = "bottom_right counts used rows",
      .batch = 2,
      .seqlen_q = 3,
      .seqlen_k = 4,
      .lengths = LENGTHS_USED,
      .lens_q = {2, 3},
      .lens_k = {3, 1},
      .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
      LETTERS},
     {"xx..", "xxx.", "....", "....", "....", "x..."}},
    {{.name = "packed, an empty sequence between",
      .batch = 3,
      .lengths = LENGTHS_PACKED,
      .lens_q = {2, 0, 1},
      .lens_k = {2, 3, 3},
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      LETTERS},
     {"x..", "xx.", "x.."}},
    {{.name = "packed, padding between",
      .batch = 2,
      .lengths = LENGTHS_PACKED_PADDED,
      .lens_q = {1, 1},
      .lens_k = {2, 1},
      LETTERS},
     {"xx", "..", "..", "..", "..", "..", "x.", "..", "..", "..", "..", "..", "..", "..", "..", ".."}},
    {{.name = "mask_mod", .seqlen_q = 3, .seqlen_k = 5, .mask_mod = &test_dilated, LETTERS},
     {"x..x.", ".x..x", "..x.."}},
    {{.name = "mask_mod and causal",
      .seqlen_q = 4,
      .seqlen_k = 4,
      .mask_mod = &test_dilated,
      .causal = SACCADE_CAUSAL_TOP_LEFT,
      LETTERS},
     {"x...", ".x..", "..x.", "x..x"}},
    {{.name = "block mask, causal", .seqlen_q = 5, .seqlen_k = 4, .blocks = {BLOCKS_CAUSAL, 2, 3}, LETTERS},
     {"x...", "xx..", "xxx.", "xxxx", "xxxx"}},
    {{.name = "block mask, Eagle3 with diagonals",
      .seqlen_q = 4,
      .seqlen_k = 12,
      .blocks = {BLOCKS_EAGLE3, 2, 2},
      LETTERS},
     {"x...x...x...", "xx...x...x..", "xxx...x...x.", "xxxx...x...x"}},
    {{.name = "block mask and window",
      .seqlen_q = 4,
      .seqlen_k = 4,
      .blocks = {BLOCKS_CAUSAL, 2, 2},
      .window = {true, 1, 1},
      LETTERS},
     {"x...", "xx..", ".xx.", "..xx"}},
};

/* With q = 0 every score is 0, and with v_j = 2^j the product out * exp(lse) spells the visible keys in binary. */
static void spell(const drawn_mask *mask) {
    problem *p = problem_create(&mask->c, SAC_F64);
    const attention_case *c = &p->c;
    for (int32_t b = 0; b < c->batch; b++) {
        for (int64_t e = 0; e < (int64_t)p->len_q[b] * c->head_dim; e++)
            p->values[Q][p->first_q[b] * c->head_dim + e] = 0;
        for (int32_t j = 0; j < p->len_k[b]; j++)
            for (int32_t d = 0; d < c->head_dim; d++)
                p->values[V][(p->first_k[b] + j) * c->head_dim + d] = ldexp(1, j);
    }
    results r;
    run_reference(p, &r, true);
    for (int64_t row = 0; row < p->rows_q; row++) {
        assert_non_null(mask->rows[row]);
        double expected = 0, count = 0;
        for (int j = 0; mask->rows[row][j]; j++) {
            expected += mask->rows[row][j] == 'x' ? ldexp(1, j) : 0;
            count += mask->rows[row][j] == 'x';
        }
        double lse = r.values[LSE][row], out = r.values[OUT][row * c->head_dim];
        if (count == 0 ? lse != -INFINITY || out != 0 : fabs(out * count - expected) > 1e-9)
            fail_msg("%s: row %d is %s, but lse is %g and out %g", c->name, (int)row, mask->rows[row], lse,
                     out);
        if (count) assert_near(c->name, lse, log(count), 1e-6);
    }
    results_free(&r);
    problem_free(p);
}

static void every_mask_shows_the_keys_drawn_here(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(drawn_masks); i++) spell(&drawn_masks[i]);
}

/* Reached through native sparse attention only: key j is the mean of tokens 3j .. 3j+2. */
static void compressed_keys_are_seen_when_complete_or_when_started(void **state) {
    (void)state;
    static const char *const complete[] = {"..", "..", "x.", "x.", "x.", "xx"};
    static const char *const started[] = {"x.", "x.", "x.", "xx", "xx", "xx"};
    for (int rule = 0; rule < 2; rule++) {
        sac_attention_call call = {
            .args = {
                .batch = 1,
                .group = 1,
                .len_q = {.seqlen = 6},
                .len_k = {.seqlen = 2},
                .band = {.window_left = -1, .window_right = -1, .compress = 3, .compress_started = rule}}};
        sac_reference_head head = sac_reference_head_of(&call, 0, 0);
        for (int32_t i = 0; i < 6; i++) {
            uint8_t visible[2];
            sac_reference_visible(&head, i, visible);
            for (int j = 0; j < 2; j++)
                assert_int_equal(visible[j], (rule ? started : complete)[i][j] == 'x');
        }
    }
}

/* ---- what becomes of a score ---- */

/* One query and two keys of scores a and b: q = (a', b'), k = unit vectors, v = (1, 0 ...) and (0, 1 ...). */
static problem *two_keys(const attention_case *c, double a, double b) {
    problem *p = problem_create(c, SAC_F64);
    for (int side = Q; side <= V; side++) {
        test_shape shape = problem_shape(p, side);
        memset(p->values[side], 0, (size_t)test_shape_size(&shape) * sizeof(double));
    }
    p->values[Q][0] = a;
    p->values[Q][1] = b;
    for (int j = 0; j < 2; j++)
        p->values[K][j * p->c.head_dim + j] = p->values[V][j * p->c.head_dim_v + j] = 1;
    return p;
}

#define TWO_KEYS .seqlen_q = 1, .seqlen_k = 2, .head_dim = 8, .scale = 0.5f

/* Expects out = softmax(a, b, maybe sink), lse = log of the sum. */
static void check_two_keys(const problem *p, double a, double b, double sink) {
    results r;
    run_reference(p, &r, true);
    double sum = exp(a) + exp(b) + exp(sink);
    assert_near(p->c.name, r.values[OUT][0], exp(a) / sum, 1e-12);
    assert_near(p->c.name, r.values[OUT][1], exp(b) / sum, 1e-12);
    assert_near(p->c.name, r.values[LSE][0], log(sum), 1e-6);
    results_free(&r);
}

static void two_keys_share_by_the_logistic_function(void **state) {
    (void)state;
    problem *p = two_keys(&(attention_case){.name = "scale", TWO_KEYS}, 1.5, -2);
    check_two_keys(p, 0.75, -1, -INFINITY);
    problem_free(p);
}

static void scale_defaults_to_one_over_the_root_of_head_dim(void **state) {
    (void)state;
    attention_case c = {.name = "default scale", TWO_KEYS};
    c.scale = 0;
    c.head_dim = 16;
    problem *p = two_keys(&c, 1.5, -2);
    check_two_keys(p, 1.5 / 4, -2.0 / 4, -INFINITY);
    problem_free(p);
}

static void softcap_bends_the_scaled_score(void **state) {
    (void)state;
    problem *p = two_keys(&(attention_case){.name = "softcap", TWO_KEYS, .softcap = 0.5f}, 1.5, -2);
    check_two_keys(p, 0.5 * tanh(1.5), 0.5 * tanh(-2), -INFINITY);
    problem_free(p);
}

/* The query of one stands at position Nk - Nq = 1: distances 1 and 0. */
static void alibi_takes_slope_times_distance_from_the_end(void **state) {
    (void)state;
    problem *p = two_keys(&(attention_case){.name = "alibi", TWO_KEYS, .alibi = ALIBI_PER_HEAD}, 1.5, -2);
    p->values[ALIBI][0] = 0.25;
    check_two_keys(p, 0.75 - 0.25, -1, -INFINITY);
    problem_free(p);
}

static void sink_joins_the_sum_and_has_no_value(void **state) {
    (void)state;
    problem *p = two_keys(&(attention_case){.name = "sink", TWO_KEYS, .sink = true}, 1.5, -2);
    p->values[SINK][0] = 0.5;
    check_two_keys(p, 0.75, -1, 0.5);
    p->values[SINK][0] = 800; /* beyond the range of exp */
    results r;
    run_reference(p, &r, true);
    assert_near("a huge sink takes all", r.values[OUT][0], 0, 0);
    assert_near("a huge sink takes all", r.values[LSE][0], 800, 0);
    results_free(&r);
    problem_free(p);
}

static void score_mod_comes_after_softcap_and_alibi(void **state) {
    (void)state;
    attention_case c = {.name = "score_mod last", TWO_KEYS, .softcap = 0.5f, .alibi = ALIBI_PER_HEAD};
    c.score_mod = &test_smooth_cap;
    problem *p = two_keys(&c, 1.5, -2);
    p->values[ALIBI][0] = 0.25;
    results r;
    run_reference(p, &r, true);
    double a = 3 * tanh((0.5 * tanh(1.5) - 0.25) / 3), b = 3 * tanh(0.5 * tanh(-2) / 3);
    assert_near("out", r.values[OUT][0], exp(a) / (exp(a) + exp(b)), 1e-6); /* a score_mod is fp32 */
    results_free(&r);
    problem_free(p);
}

static void scores_far_below_and_above_zero_do_not_underflow_or_overflow(void **state) {
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        problem *p =
            two_keys(&(attention_case){.name = "far", TWO_KEYS}, sign * 1048576.0, sign * 1048576.0 - 2);
        results r;
        run_reference(p, &r, true);
        assert_near("out", r.values[OUT][0], 1 / (1 + exp(-1)), 1e-9);
        assert_near("lse", r.values[LSE][0], sign * 524288.0 + log(1 + exp(-1)), 0.04);
        results_free(&r);
        problem_free(p);
    }
}

/* dsink = exp(sink - lse) (dlse - delta), with delta = dout . out. */
static void sink_gradient_of_one_key_is_closed_form(void **state) {
    (void)state;
    attention_case c = {
        .name = "dsink", .seqlen_q = 1, .seqlen_k = 1, .head_dim = 8, .sink = true, .lse_grad = true};
    problem *p = problem_create(&c, SAC_F64);
    results r;
    run_reference(p, &r, false);
    double dot = 0, dout_v = 0, dlse = p->values[DLSE][0], sink = p->values[SINK][0];
    for (int d = 0; d < 8; d++) {
        dot += p->values[Q][d] * p->values[K][d] / sqrt(8);
        dout_v += p->values[DOUT][d] * p->values[V][d];
    }
    double key = exp(dot) / (exp(dot) + exp(sink));
    assert_near("dsink", r.values[DSINK][0], (1 - key) * (dlse - key * dout_v), 1e-6);
    for (int d = 0; d < 8; d++) {
        assert_near("dv", r.values[DV][d], key * p->values[DOUT][d], 1e-7);
        double dscore = key * (dout_v - key * dout_v + dlse);
        assert_near("dq", r.values[DQ][d], dscore * p->values[K][d] / sqrt(8), 1e-6);
    }
    results_free(&r);
    problem_free(p);
}

/* ---- finite differences ---- */

static const attention_case differentiated[] = {
    {.name = "plain", .seqlen_q = 3, .seqlen_k = 5, .head_dim = 8},
    {.name = "group, D != Dv",
     .batch = 2,
     .seqlen_q = 3,
     .seqlen_k = 4,
     .num_heads = 4,
     .num_kv_heads = 2,
     .head_dim = 8,
     .head_dim_v = 16},
    {.name = "causal top_left",
     .seqlen_q = 4,
     .seqlen_k = 6,
     .head_dim = 8,
     .causal = SACCADE_CAUSAL_TOP_LEFT},
    {.name = "causal bottom_right with blind rows",
     .seqlen_q = 6,
     .seqlen_k = 4,
     .head_dim = 8,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "window", .seqlen_q = 6, .seqlen_k = 6, .head_dim = 8, .window = {true, 1, 1}},
    {.name = "softcap", .seqlen_q = 3, .seqlen_k = 5, .head_dim = 8, .softcap = 0.7f, .scale = 1},
    {.name = "alibi",
     .batch = 2,
     .seqlen_q = 3,
     .seqlen_k = 5,
     .num_heads = 2,
     .head_dim = 8,
     .alibi = ALIBI_PER_BATCH},
    {.name = "sink", .batch = 2, .seqlen_q = 3, .seqlen_k = 5, .num_heads = 2, .head_dim = 8, .sink = true},
    {.name = "sink and lse",
     .seqlen_q = 3,
     .seqlen_k = 5,
     .num_heads = 2,
     .head_dim = 8,
     .sink = true,
     .lse_grad = true},
    {.name = "lse",
     .seqlen_q = 6,
     .seqlen_k = 4,
     .head_dim = 8,
     .lse_grad = true,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "relative bias",
     .seqlen_q = 3,
     .seqlen_k = 5,
     .num_heads = 2,
     .head_dim = 8,
     .score_mod = &test_relative_bias},
    {.name = "temperature",
     .batch = 2,
     .seqlen_q = 3,
     .seqlen_k = 5,
     .num_heads = 2,
     .head_dim = 8,
     .score_mod = &test_temperature},
    {.name = "cap after cap",
     .seqlen_q = 3,
     .seqlen_k = 5,
     .head_dim = 8,
     .score_mod = &test_smooth_cap,
     .softcap = 2,
     .alibi = ALIBI_PER_HEAD},
    {.name = "mask_mod",
     .batch = 2,
     .seqlen_q = 6,
     .seqlen_k = 5,
     .num_heads = 2,
     .head_dim = 8,
     .mask_mod = &test_blind_rows},
    {.name = "blocks",
     .seqlen_q = 7,
     .seqlen_k = 6,
     .num_heads = 2,
     .head_dim = 8,
     .mask_mod = &test_head_parity,
     .blocks = {BLOCKS_RANDOM, 2, 3, .per_head = true}},
    {.name = "Eagle3", .seqlen_q = 4, .seqlen_k = 12, .head_dim = 8, .blocks = {BLOCKS_EAGLE3, 2, 2}},
    {.name = "packed and padded",
     .batch = 3,
     .lengths = LENGTHS_PACKED_PADDED,
     .lens_q = {3, 0, 2},
     .lens_k = {4, 2, 1},
     .num_heads = 2,
     .num_kv_heads = 1,
     .head_dim = 8,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "used",
     .batch = 2,
     .seqlen_q = 4,
     .seqlen_k = 5,
     .lengths = LENGTHS_USED,
     .lens_q = {3, 1},
     .lens_k = {5, 2},
     .head_dim = 8},
    {.name = "everything",
     .batch = 2,
     .lengths = LENGTHS_PACKED,
     .lens_q = {4, 3},
     .lens_k = {6, 2},
     .num_heads = 4,
     .num_kv_heads = 2,
     .head_dim = 16,
     .head_dim_v = 8,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
     .window = {true, 3, 3},
     .softcap = 3,
     .sink = true,
     .alibi = ALIBI_PER_BATCH,
     .score_mod = &test_temperature,
     .mask_mod = &test_head_parity,
     .lse_grad = true},
};

/* The loss whose gradients backward gives: out . dout + lse . dlse over what is seen. */
static double loss_of(const problem *p) {
    results r;
    run_reference(p, &r, true);
    test_shape out = problem_shape(p, OUT), lse = problem_shape(p, DLSE);
    double loss = 0;
    for (int64_t e = 0; e < test_shape_size(&out); e++)
        if (r.values[OUT][e] != 0) loss += r.values[OUT][e] * p->values[DOUT][e];
    for (int64_t e = 0; e < test_shape_size(&lse); e++)
        if (isfinite(r.values[LSE][e])) loss += r.values[LSE][e] * p->values[DLSE][e];
    results_free(&r);
    return loss;
}

/* A number that the loss depends on, kept as double or as float. */
typedef struct knob {
    double *f64;
    float *f32;
} knob;

static double turn(knob k, double by) {
    if (k.f64) return *k.f64 += by;
    *k.f32 += (float)by;
    return *k.f32;
}

/* Fourth-order central difference. lse and score_mods are fp32, so the step is not small. */
static double derivative(const problem *p, knob k) {
    static const double weights[] = {1, -8, 0, 8, -1};
    const double step = 1.0 / 32;
    double sum = 0, start = turn(k, 0);
    for (int i = -2; i <= 2; i++) {
        if (i == 0) continue;
        turn(k, i * step);
        sum += weights[i + 2] * loss_of(p);
        if (k.f64)
            *k.f64 = start;
        else
            *k.f32 = (float)start;
    }
    return sum / (12 * step);
}

/* The input that a gradient belongs to. */
static knob knob_of(const problem *p, test_operand gradient, int64_t e) {
    static const test_operand inputs[] = {[DQ] = Q, [DK] = K, [DV] = V, [DSINK] = SINK};
    if (gradient >= DAUX) return (knob){.f32 = (float *)p->score_aux.tensor[gradient - DAUX].data + e};
    return (knob){.f64 = &p->values[inputs[gradient]][e]};
}

static void check_gradients(const attention_case *c) {
    problem *p = problem_create(c, SAC_F64);
    test_random random = {7};
    results r;
    run_reference(p, &r, false);
    for (test_operand gradient = DQ; gradient < NUM_OPERANDS; gradient++) {
        test_shape shape = problem_shape(p, gradient);
        int64_t size = test_shape_size(&shape);
        for (int sample = 0; size && sample < 16; sample++) {
            int64_t e = random_below(&random, (int32_t)size);
            knob k = knob_of(p, gradient, e);
            double got = r.values[gradient][e], value = turn(k, 0);
            double expected = isnan(value) ? 0 : derivative(p, k); /* rows that nobody uses are NaN */
            if (!(fabs(got - expected) <= 3e-5 * (1 + fabs(expected))))
                fail_msg("%s: %s[%d] is %.9g, finite differences say %.9g", c->name,
                         test_operand_name(gradient), (int)e, got, expected);
        }
    }
    results_free(&r);
    problem_free(p);
}

static void gradients_agree_with_finite_differences(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(differentiated); i++) check_gradients(&differentiated[i]);
}

/* ---- stored formats ---- */

static void every_half_and_bfloat_survives_reading_and_writing(void **state) {
    (void)state;
    static const sac_dtype formats[] = {SAC_F16, SAC_BF16};
    for (size_t f = 0; f < COUNT_OF(formats); f++)
        for (uint32_t bits = 0; bits < 65536; bits++) {
            uint16_t stored = (uint16_t)bits, again;
            double x;
            sac_number_read(&x, &stored, formats[f], 0, 1);
            sac_number_write(&again, formats[f], 0, &x, 1);
            if (!isnan(x) && again != stored)
                fail_msg("%04x reads as %.9g, which writes as %04x", stored, x, again);
            if (isnan(x)) {
                sac_number_read(&x, &again, formats[f], 0, 1);
                assert_true(isnan(x));
            }
        }
}

static void numbers_round_to_nearest_with_ties_to_even(void **state) {
    (void)state;
    assert_true(sac_number_round(1 + 0x1p-9, SAC_BF16) == 1 + 0x0p0);
    assert_true(sac_number_round(1 + 0x1p-8, SAC_BF16) == 1);          /* tie: even is below */
    assert_true(sac_number_round(1 + 0x3p-8, SAC_BF16) == 1 + 0x1p-6); /* tie: even is above */
    assert_true(sac_number_round(1 + 0x1.0001p-8, SAC_BF16) == 1 + 0x1p-7);
    assert_true(sac_number_round(65519, SAC_F16) == 65504);
    assert_true(sac_number_round(65520, SAC_F16) == INFINITY);
    assert_true(sac_number_round(0x1.8p-25, SAC_F16) == 0x1p-24); /* subnormal */
    assert_true(sac_number_round(-0x1p-25, SAC_F16) == 0);        /* tie: even is 0 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mask_shows_the_keys_drawn_here),
        cmocka_unit_test(compressed_keys_are_seen_when_complete_or_when_started),
        cmocka_unit_test(two_keys_share_by_the_logistic_function),
        cmocka_unit_test(scale_defaults_to_one_over_the_root_of_head_dim),
        cmocka_unit_test(softcap_bends_the_scaled_score),
        cmocka_unit_test(alibi_takes_slope_times_distance_from_the_end),
        cmocka_unit_test(sink_joins_the_sum_and_has_no_value),
        cmocka_unit_test(score_mod_comes_after_softcap_and_alibi),
        cmocka_unit_test(scores_far_below_and_above_zero_do_not_underflow_or_overflow),
        cmocka_unit_test(sink_gradient_of_one_key_is_closed_form),
        cmocka_unit_test(gradients_agree_with_finite_differences),
        cmocka_unit_test(every_half_and_bfloat_survives_reading_and_writing),
        cmocka_unit_test(numbers_round_to_nearest_with_ties_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
