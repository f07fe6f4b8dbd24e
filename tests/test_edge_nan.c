/* test_edge_nan.c - infinities and NaN among the inputs: they reach all that they have a part in, and nothing else. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/attention_suite.h"

static const sac_dtype dtypes[] = {SAC_F32, SAC_BF16, SAC_F16};

/* Which inputs are poisoned, a bit for each: one of them, or two. */
static const unsigned inputs[] = {1u << Q,    1u << K,           1u << V,
                                  1u << DOUT, 1u << K | 1u << V, 1u << Q | 1u << DOUT};
enum { SINGLE_INPUTS = 4, ALL_INPUTS = 6 };

/* And where: in one query and one key, both of head 0. */
typedef struct place {
    int32_t query, key;
} place;
typedef struct poison {
    unsigned inputs;
    place at;
} poison;

static bool is_poisoned(poison of, test_operand operand, int32_t head, int32_t row) {
    const bool of_query = operand == Q || operand == DOUT;
    return of.inputs >> operand & 1 && head == 0 && row == (of_query ? of.at.query : of.at.key);
}

/* The row of an operand that is poisoned if it is; one batch, head 0. */
static double *row_of(problem *p, test_operand operand, place at, size_t *bytes) {
    const test_shape shape = problem_shape(p, operand);
    const int64_t dim = shape.extent[shape.ndim - 1], heads = shape.extent[shape.ndim - 2];
    const bool of_query = operand == Q || operand == DOUT;
    *bytes = (size_t)dim * sizeof(double);
    return p->values[operand] + (of_query ? at.query : at.key) * heads * dim;
}

/* The rows' own numbers, while they are poisoned. */
typedef double kept_rows[DOUT + 1][TEST_MAX_DIM];

static void put(problem *p, poison of, kept_rows kept) {
    for (test_operand operand = Q; operand <= DOUT; operand++) {
        size_t bytes;
        double *row = row_of(p, operand, of.at, &bytes);
        memcpy(kept[operand], row, bytes);
        for (size_t d = 0; of.inputs >> operand & 1 && d < bytes / sizeof *row; d++)
            row[d] = d % 2 ? NAN : INFINITY;
    }
}

static void take_away(problem *p, poison of, kept_rows kept) {
    for (test_operand operand = Q; operand <= DOUT; operand++) {
        size_t bytes;
        double *row = row_of(p, operand, of.at, &bytes);
        memcpy(row, kept[operand], bytes);
    }
}

/* What a query has of them, by the definitions: a score that it sees is in its lse, and so in its probabilities for all
 * keys; a value is in its out, and so in delta and its dS for all keys. */
typedef struct query_state {
    bool p, out, ds;
} query_state;

static query_state state_of(const problem *p, poison of, int32_t h, int32_t i) {
    const int32_t kv_head = h / (p->c.num_heads / p->c.num_kv_heads);
    query_state s = {0};
    for (int32_t j = 0; j < p->c.seqlen_k; j++) {
        if (!problem_visible(p, 0, h, i, j)) continue;
        s.p = s.p || is_poisoned(of, Q, h, i) || is_poisoned(of, K, kv_head, j);
        s.out = s.out || s.p || is_poisoned(of, V, kv_head, j);
        s.ds = s.ds || s.out || is_poisoned(of, DOUT, h, i);
    }
    return s;
}

/* What becomes of the results' rows; row i of head h at [h * seqlen + i]. */
typedef struct expectation {
    query_state *query;
    bool *dk, *dv;
} expectation;

static expectation expect(const problem *p, poison of) {
    const attention_case *c = &p->c;
    const int32_t group = c->num_heads / c->num_kv_heads;
    expectation e = {calloc((size_t)(c->num_heads * c->seqlen_q), sizeof *e.query),
                     calloc((size_t)(c->num_kv_heads * c->seqlen_k), sizeof *e.dk),
                     calloc((size_t)(c->num_kv_heads * c->seqlen_k), sizeof *e.dv)};
    assert_true(e.query && e.dk && e.dv);
    for (int32_t h = 0; h < c->num_heads; h++)
        for (int32_t i = 0; i < c->seqlen_q; i++) {
            const query_state s = e.query[h * c->seqlen_q + i] = state_of(p, of, h, i);
            for (int32_t j = 0; j < c->seqlen_k && s.ds; j++) {
                if (!problem_visible(p, 0, h, i, j)) continue;
                e.dk[h / group * c->seqlen_k + j] = true;
                if (s.p || is_poisoned(of, DOUT, h, i)) e.dv[h / group * c->seqlen_k + j] = true;
            }
        }
    return e;
}

/* Fails unless all elements of a row are finite, or none is, as expected. */
static void check_row(const problem *p, poison of, const results *r, test_operand operand, int32_t head,
                      int32_t row, bool poisoned) {
    const test_shape shape = problem_shape(p, operand);
    const int64_t dim = shape.extent[shape.ndim - 1], heads = shape.extent[shape.ndim - 2];
    for (int64_t d = 0; d < dim; d++) {
        const double x = r->values[operand][(row * heads + head) * dim + d];
        if (isfinite(x) == poisoned)
            fail_msg("%s, dtype %d, seed %" PRIu64
                     ", head dims %d/%d, deterministic %d, poisoned inputs %#x at query %d, key %d: "
                     "%s of row %d, head %d is %g at %d, but has %s part in what is not finite",
                     p->c.name, p->dtype, p->c.seed, p->c.head_dim, p->c.head_dim_v, p->c.deterministic,
                     of.inputs, of.at.query, of.at.key, test_operand_name(operand), row, head, x, (int)d,
                     poisoned ? "a" : "no");
    }
}

static void check_results(const problem *p, poison of, const results *r) {
    const attention_case *c = &p->c;
    const expectation e = expect(p, of);
    for (int32_t h = 0; h < c->num_heads; h++)
        for (int32_t i = 0; i < c->seqlen_q; i++) {
            const query_state s = e.query[h * c->seqlen_q + i];
            check_row(p, of, r, OUT, h, i, s.out);
            check_row(p, of, r, DQ, h, i, s.ds);
        }
    for (int32_t h = 0; h < c->num_kv_heads; h++)
        for (int32_t j = 0; j < c->seqlen_k; j++) {
            check_row(p, of, r, DK, h, j, e.dk[h * c->seqlen_k + j]);
            check_row(p, of, r, DV, h, j, e.dv[h * c->seqlen_k + j]);
        }
    free(e.query);
    free(e.dk);
    free(e.dv);
}

static void check_poison(const char *backend, problem *p, poison of) {
    kept_rows kept;
    results r;
    put(p, of, kept);
    attention_results(p, backend, &(run_options){.num_threads = 1}, &r);
    if (test_device_computes(test_device_of(backend))) check_results(p, of, &r);
    results_free(&r);
    take_away(p, of, kept);
}

/* On a GPU also deterministic, but for gradients of aux tensors, which are summed by atomics. */
static void check_place(const char *backend, const attention_case *c, sac_dtype dtype, size_t num_inputs,
                        place at) {
    const bool on_host = test_device_of(backend) == &test_host;
    if (!backend_takes(backend, dtype, true)) return;
    problem *p = problem_create(c, dtype);
    if (!test_device_computes(test_device_of(backend))) num_inputs = 1; /* kernels are the same for all */
    for (int deterministic = 0; deterministic < (c->score_mod || on_host ? 1 : 2); deterministic++)
        for (size_t i = 0; i < num_inputs; i++) {
            p->c.deterministic = deterministic;
            check_poison(backend, p, (poison){inputs[i], at});
        }
    problem_free(p);
}

static void check_case(const char *backend, const attention_case *declared, sac_dtype dtype,
                       size_t num_inputs) {
    check_place(backend, declared, dtype, num_inputs, (place){.query = 90, .key = 100});
}

/* ---- masks ---- */

static const attention_case bands[] = {
    {.name = "no mask", .seqlen_q = 150, .seqlen_k = 130, .num_heads = 2},
    {.name = "causal top_left",
     .seqlen_q = 200,
     .num_heads = 2,
     .num_kv_heads = 1,
     .causal = SACCADE_CAUSAL_TOP_LEFT},
    {.name = "causal bottom_right",
     .seqlen_q = 150,
     .seqlen_k = 200,
     .num_heads = 2,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "causal packed",
     .lengths = LENGTHS_PACKED,
     .lens_q = {150},
     .lens_k = {200},
     .num_heads = 4,
     .num_kv_heads = 2,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "window", .seqlen_q = 200, .num_heads = 2, .window = {true, 37, 0}, .sink = true},
    {.name = "window (-1, 3)", .seqlen_q = 200, .window = {true, -1, 3}},
};

static const attention_case blocks_and_texts[] = {
    {.name = "causal by blocks", .seqlen_q = 200, .num_heads = 2, .blocks = {BLOCKS_CAUSAL, 64, 32}},
    {.name = "causal and blocks",
     .seqlen_q = 200,
     .causal = SACCADE_CAUSAL_TOP_LEFT,
     .mask_mod = &test_head_parity,
     .blocks = {BLOCKS_RANDOM, 64, 64}},
    {.name = "dilated blocks", .seqlen_q = 400, .num_heads = 2, .blocks = {BLOCKS_DILATED, 16, 16}},
    {.name = "causal and score_mod",
     .seqlen_q = 200,
     .causal = SACCADE_CAUSAL_TOP_LEFT,
     .score_mod = &test_relative_bias,
     .softcap = 3},
};

static void check_masks(void **state, const attention_case *masks, size_t count) {
    const char *backend = usable_backend(state);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < COUNT_OF(dtypes); d++) check_case(backend, &masks[i], dtypes[d], ALL_INPUTS);
}

static void nan_goes_where_a_band_lets_it(void **state) { check_masks(state, bands, COUNT_OF(bands)); }

static void nan_goes_where_blocks_and_texts_let_it(void **state) {
    check_masks(state, blocks_and_texts, COUNT_OF(blocks_and_texts));
}

/* Where dK and dV of a key tile are too many registers for one kernel, others take over. */
static const int32_t dims[][2] = {{64, 64}, {128, 128}, {192, 128}, {192, 192}, {256, 256}};

static void check_wide(void **state, const attention_case *mask) {
    const char *backend = usable_backend(state);
    for (size_t d = 1; d < COUNT_OF(dims); d++) {
        attention_case c = *mask;
        c.head_dim = dims[d][0];
        c.head_dim_v = dims[d][1];
        check_case(backend, &c, d % 2 ? SAC_BF16 : SAC_F16, ALL_INPUTS);
    }
}

static void nan_goes_where_a_band_lets_it_in_wide_heads_too(void **state) {
    static const size_t some[] = {0, 1, 4}; /* all pairs, causal, a window */
    for (size_t i = 0; i < COUNT_OF(some); i++) check_wide(state, &bands[some[i]]);
}

static void nan_goes_where_blocks_and_texts_let_it_in_wide_heads_too(void **state) {
    static const size_t some[] = {0, 3}; /* causal by blocks, a score_mod */
    for (size_t i = 0; i < COUNT_OF(some); i++) check_wide(state, &blocks_and_texts[some[i]]);
}

/* More tiles of keys than a GPU has processors: one of them takes some after another, and keeps nothing of the last. */
static void nan_of_one_head_stays_with_it(void **state) {
    const char *backend = usable_backend(state);
    for (int32_t dim = 64; dim <= 128; dim += 64) {
        const attention_case c = {.name = "many heads",
                                  .seqlen_q = 200,
                                  .num_heads = 140,
                                  .head_dim = dim,
                                  .causal = SACCADE_CAUSAL_TOP_LEFT};
        check_case(backend, &c, SAC_BF16, SINGLE_INPUTS);
        check_place(backend, &c, SAC_BF16, SINGLE_INPUTS, (place){.query = 160, .key = 150});
    }
}

/* Neighbouring tiles of keys may have their dq added up before it reaches memory: by then NaN is in its query's row and
 * in no other. The first and the last key of tiles of 128, in queries that kernels leave whole or cut. */
static void nan_in_a_key_tile_reaches_nothing_by_its_neighbour(void **state) {
    static const place places[] = {{10, 127}, {199, 128}, {128, 256}, {63, 0}, {150, 384}};
    static const saccade_causal causal[] = {SACCADE_CAUSAL_NONE, SACCADE_CAUSAL_TOP_LEFT,
                                            SACCADE_CAUSAL_BOTTOM_RIGHT};
    const char *backend = usable_backend(state);
    for (size_t i = 0; i < COUNT_OF(places); i++)
        for (size_t m = 0; m < COUNT_OF(causal); m++) {
            const int32_t *dim = dims[(i + m) % 3];
            const attention_case c = {.name = "neighbours",
                                      .seqlen_q = i % 2 ? 200 : 300,
                                      .seqlen_k = 385,
                                      .num_heads = 2,
                                      .num_kv_heads = 1,
                                      .head_dim = dim[0],
                                      .head_dim_v = dim[1],
                                      .causal = causal[m]};
            check_place(backend, &c, i % 2 ? SAC_F16 : SAC_BF16, SINGLE_INPUTS, places[i]);
        }
}

/* ---- scores ---- */

static void check_scores(void **state, attention_case c) {
    const char *backend = usable_backend(state);
    c.seqlen_q = 200;
    c.num_heads = 2;
    c.num_kv_heads = 1;
    c.causal = SACCADE_CAUSAL_TOP_LEFT;
    for (size_t d = 0; d < COUNT_OF(dims); d++) {
        c.head_dim = dims[d][0];
        c.head_dim_v = dims[d][1];
        check_case(backend, &c, d % 2 ? SAC_F16 : SAC_BF16, SINGLE_INPUTS);
    }
}

static void nan_survives_a_negative_scale(void **state) {
    check_scores(state, (attention_case){.name = "negative scale", .scale = -0.2f});
}
static void nan_survives_a_scale_of_0(void **state) {
    check_scores(state, (attention_case){.name = "scale 0", .zero_scale = true});
}
static void nan_survives_a_tiny_scale(void **state) {
    check_scores(state, (attention_case){.name = "tiny scale", .scale = 1e-35f});
}
static void nan_survives_a_softcap(void **state) {
    check_scores(state, (attention_case){.name = "softcap", .softcap = 3});
}
static void nan_survives_a_softcap_of_a_negative_scale(void **state) {
    check_scores(state, (attention_case){.name = "softcap, negative scale", .softcap = 3, .scale = -0.2f});
}
static void nan_survives_alibi(void **state) {
    check_scores(state, (attention_case){.name = "alibi", .alibi = ALIBI_PER_HEAD});
}
static void nan_survives_alibi_and_a_softcap(void **state) {
    check_scores(state, (attention_case){.name = "alibi, softcap", .alibi = ALIBI_PER_HEAD, .softcap = 3});
}
static void nan_survives_a_score_mod_and_a_sink(void **state) {
    check_scores(state,
                 (attention_case){.name = "score_mod, sink", .score_mod = &test_smooth_cap, .sink = true});
}

int main(void) {
    static const suite_extra extras[] = {
        {"nan_goes_where_a_band_lets_it", nan_goes_where_a_band_lets_it},
        {"nan_goes_where_blocks_and_texts_let_it", nan_goes_where_blocks_and_texts_let_it},
        {"nan_goes_where_a_band_lets_it_in_wide_heads_too", nan_goes_where_a_band_lets_it_in_wide_heads_too},
        {"nan_goes_where_blocks_and_texts_let_it_in_wide_heads_too",
         nan_goes_where_blocks_and_texts_let_it_in_wide_heads_too},
        {"nan_of_one_head_stays_with_it", nan_of_one_head_stays_with_it},
        {"nan_in_a_key_tile_reaches_nothing_by_its_neighbour",
         nan_in_a_key_tile_reaches_nothing_by_its_neighbour},
        {"nan_survives_a_negative_scale", nan_survives_a_negative_scale},
        {"nan_survives_a_scale_of_0", nan_survives_a_scale_of_0},
        {"nan_survives_a_tiny_scale", nan_survives_a_tiny_scale},
        {"nan_survives_a_softcap", nan_survives_a_softcap},
        {"nan_survives_a_softcap_of_a_negative_scale", nan_survives_a_softcap_of_a_negative_scale},
        {"nan_survives_alibi", nan_survives_alibi},
        {"nan_survives_alibi_and_a_softcap", nan_survives_alibi_and_a_softcap},
        {"nan_survives_a_score_mod_and_a_sink", nan_survives_a_score_mod_and_a_sink},
    };
    return attention_suite("edge_nan", NULL, 0, extras, COUNT_OF(extras), false);
}
