/* test_nsa_stage_grads.c - the backward stages of native sparse attention by themselves, on any numbers, against a few
 * lines of fp64. */
#include <math.h>
#include <stdlib.h>

#include "api/attention_check.h"
#include "api/nsa_check.h"
#include "base/tensor_check.h"
#include "reference/number.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"
#include "support/random.h"

/* A tensor of random numbers, where the stage reads it and as the test does. */
typedef struct operand {
    test_tensor tensor;
    test_shape shape;
    double *values;
} operand;

typedef struct bench {
    nsa_problem *p;
    nsa_session *s;
    sac_nsa_call call;
    sac_nsa_job job;
    const sac_nsa_stages *stages;
    void *scratch;
    size_t scratch_bytes;
    test_tensor cu_cmp, cu_tiles;
} bench;

static void make_operand(operand *o, const nsa_problem *p, nsa_operand like, uint64_t seed) {
    o->shape = nsa_problem_shape(p, like);
    test_random random = {p->c.seed * 97 + seed};
    const int64_t count = test_shape_size(&o->shape);
    o->values = calloc((size_t)count + 1, sizeof(double));
    assert_non_null(o->values);
    for (int64_t e = 0; e < count; e++) o->values[e] = sac_number_round(random_normal(&random), p->dtype);
    test_tensor_make(&o->tensor, nsa_here()->device, test_dtype(p->dtype), &o->shape, p->c.layout);
    test_tensor_write(&o->tensor, o->values);
}

static void free_operand(operand *o) {
    test_tensor_free(&o->tensor);
    free(o->values);
}

static sac_view view(operand *o) { return sac_view_of(&o->tensor.tensor); }

static int32_t *make_offsets(test_tensor *t, int32_t batch) {
    test_shape shape = {1, {batch + 1}};
    test_tensor_make(t, nsa_here()->device, SACCADE_I32, &shape, LAYOUT_ROW_MAJOR);
    return (int32_t *)((char *)t->tensor.data + t->tensor.byte_offset);
}

static void set_up(bench *b, const nsa_case *c, sac_dtype dtype) {
    *b = (bench){.p = nsa_problem_create(c, dtype)};
    b->s = nsa_session_create(b->p, 0);
    const sac_nsa_inputs in = {
        .t = &b->s->t, .grads = &b->s->grads, .params = &b->s->params, .purpose = SAC_NSA_FOR_STAGE};
    if (sac_nsa_prepare(b->s->ctx, &in, &b->call) != SACCADE_OK)
        fail_msg("%s: %s", c->name, saccade_last_error());
    b->stages = sac_nsa_stages_on(b->call.whole.device);
    b->job = (sac_nsa_job){.ctx = b->s->ctx, .device = b->call.whole.device, .args = b->call.args};
    b->scratch_bytes = b->stages->scratch_bytes(&b->job, true);
    b->scratch = nsa_workspace_create(b->scratch_bytes);
    if (!c->packed) return;
    int32_t *cu_cmp = make_offsets(&b->cu_cmp, c->batch), *cu_tiles = make_offsets(&b->cu_tiles, c->batch);
    b->job.args.cu_cmp = cu_cmp;
    b->job.args.cu_tiles = cu_tiles;
    assert_int_equal(b->stages->offsets(&b->job, cu_cmp, cu_tiles), SACCADE_OK);
}

static void tear_down(bench *b) {
    nsa_workspace_free(b->p->c.name, b->scratch, b->scratch_bytes);
    if (b->p->c.packed) {
        test_tensor_free(&b->cu_cmp);
        test_tensor_free(&b->cu_tiles);
    }
    nsa_session_free(b->s);
    nsa_problem_free(b->p);
}

/* The error that rounding to the result's dtype explains, or that of an fp32 sum. */
static void expect(const bench *b, test_tensor *got, const char *name, const double *want, int64_t count) {
    const double unit = got->tensor.dtype.bits == 32          ? 1e-5
                        : got->tensor.dtype.code == kDLBfloat ? 0x1p-7
                                                              : 0x1p-10;
    double *values = calloc((size_t)count + 1, sizeof *values), largest = 0;
    assert_non_null(values);
    test_tensor_read(got, name, values);
    for (int64_t e = 0; e < count; e++) largest = fmax(largest, fabs(want[e]));
    for (int64_t e = 0; e < count; e++)
        if (!(fabs(values[e] - want[e]) <= unit * fmax(fabs(want[e]), 0.1 * largest)))
            fail_msg("%s, seed %llu: element %lld of %s is %.9g, expected %.9g", b->p->c.name,
                     (unsigned long long)b->p->c.seed, (long long)e, name, values[e], want[e]);
    free(values);
}

static double *zeros(int64_t count) {
    double *values = calloc((size_t)count + 1, sizeof *values);
    assert_non_null(values);
    return values;
}

static double dot(const double *a, const double *b, int32_t n) {
    double sum = 0;
    for (int32_t d = 0; d < n; d++) sum += a[d] * b[d];
    return sum;
}

static double gate_value(const nsa_problem *p, int64_t row, int32_t h, int32_t c) {
    const int32_t dim = p->c.head_dim, heads = p->c.num_heads;
    if (p->c.gate == NSA_GATE_TENSOR) return p->values[NSA_GATES][(row * heads + h) * 3 + c];
    if (p->c.gate != NSA_GATE_WEIGHTS) return 1.0 / 3;
    const double *q = p->values[NSA_Q] + (row * heads + h) * dim,
                 *w = p->values[NSA_W_GATE] + (h * 3 + c) * dim;
    return 1 / (1 + exp(-dot(q, w, dim)));
}

/* ---- the three stages ---- */

static void check_gate_backward(bench *b, sac_nsa_branch branch) {
    const nsa_problem *p = b->p;
    const int32_t heads = p->c.num_heads, dim = p->c.head_dim_v;
    operand dout, out, got;
    make_operand(&dout, p, NSA_OUT, 1);
    make_operand(&out, p, NSA_OUT, 2);
    make_operand(&got, p, NSA_OUT, 3);
    test_shape shape = {3, {p->rows, heads, 3}};
    test_tensor dgates;
    test_tensor_make(&dgates, nsa_here()->device, SACCADE_F32, &shape, LAYOUT_ROW_MAJOR);
    double *want = zeros(p->rows * heads * dim), *want_dgates = zeros(p->rows * heads * 3);
    test_tensor_write(&dgates, want_dgates);
    for (int64_t i = 0; i < p->rows * heads; i++) {
        const double gate = gate_value(p, i / heads, (int32_t)(i % heads), (int32_t)branch);
        for (int32_t d = 0; d < dim; d++) want[i * dim + d] = gate * dout.values[i * dim + d];
        want_dgates[i * 3 + branch] = dot(dout.values + i * dim, out.values + i * dim, dim) *
                                      (p->c.gate == NSA_GATE_WEIGHTS ? gate * (1 - gate) : 1);
    }
    const sac_nsa_gate_grads grads = {.branch = branch,
                                      .dout = view(&dout),
                                      .branch_out = view(&out),
                                      .branch_dout = view(&got),
                                      .dgates = {sac_tensor_data(&dgates.tensor), (int64_t)heads * 3}};
    assert_int_equal(b->stages->gate_backward(&b->job, &grads), SACCADE_OK);
    expect(b, &got.tensor, "branch_dout", want, p->rows * heads * dim);
    expect(b, &dgates, "dgates", want_dgates, p->rows * heads * 3);
    test_tensor_free(&dgates);
    free_operand(&dout), free_operand(&out), free_operand(&got);
    free(want), free(want_dgates);
}

static void make_rows(test_tensor *t, const nsa_problem *p, const double *values) {
    test_shape shape = {2, {p->c.num_heads, p->rows}};
    test_tensor_make(t, nsa_here()->device, SACCADE_F32, &shape, LAYOUT_ROW_MAJOR);
    test_tensor_write(t, values);
}

/* The same where the gate goes into the lse. */
static void check_folded_gate(bench *b, sac_nsa_branch branch) {
    const nsa_problem *p = b->p;
    const int32_t heads = p->c.num_heads, dim = p->c.head_dim_v;
    const int64_t count = p->rows * heads;
    operand dout, out;
    make_operand(&dout, p, NSA_OUT, 1);
    make_operand(&out, p, NSA_OUT, 2);
    test_random random = {p->c.seed};
    double *lse = zeros(count), *want_lse = zeros(count), *want_delta = zeros(count);
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = i % p->rows, at = row * heads + i / p->rows;
        lse[i] = (float)random_normal(&random);
        want_lse[i] = lse[i] - log(gate_value(p, row, (int32_t)(i / p->rows), (int32_t)branch));
        want_delta[i] = dot(dout.values + at * dim, out.values + at * dim, dim);
    }
    test_tensor lse_rows, gated_lse, delta;
    make_rows(&lse_rows, p, lse), make_rows(&gated_lse, p, lse), make_rows(&delta, p, lse);
    const sac_nsa_gate_grads grads = {.branch = branch,
                                      .dout = view(&dout),
                                      .branch_out = view(&out),
                                      .lse = {.data = sac_tensor_data(&lse_rows.tensor),
                                              .batch_stride = p->c.packed ? 0 : p->c.seqlen,
                                              .head_stride = p->rows,
                                              .row_stride = 1},
                                      .gated_lse = sac_tensor_data(&gated_lse.tensor),
                                      .delta = sac_tensor_data(&delta.tensor)};
    assert_int_equal(b->stages->gate_backward(&b->job, &grads), SACCADE_OK);
    expect(b, &gated_lse, "gated_lse", want_lse, count);
    expect(b, &delta, "delta", want_delta, count);
    test_tensor_free(&lse_rows), test_tensor_free(&gated_lse), test_tensor_free(&delta);
    free_operand(&dout), free_operand(&out);
    free(lse), free(want_lse), free(want_delta);
}

static void check_query_grads(bench *b) {
    const nsa_problem *p = b->p;
    const int32_t heads = p->c.num_heads, dim = p->c.head_dim;
    const bool weights = p->c.gate == NSA_GATE_WEIGHTS;
    operand dq[3];
    for (int c = 0; c < 3; c++) make_operand(&dq[c], p, NSA_DQ, 4 + (uint64_t)c);
    test_shape shape = {3, {p->rows, heads, 3}};
    test_random random = {p->c.seed};
    test_tensor dgates;
    test_tensor_make(&dgates, nsa_here()->device, SACCADE_F32, &shape, LAYOUT_ROW_MAJOR);
    double *dlogit = zeros(p->rows * heads * 3), *want = zeros(p->rows * heads * dim),
           *want_dw = zeros(heads * 3 * dim);
    for (int64_t e = 0; e < p->rows * heads * 3; e++) dlogit[e] = (float)random_normal(&random);
    test_tensor_write(&dgates, dlogit);
    for (int64_t i = 0; i < p->rows * heads; i++)
        for (int32_t d = 0; d < dim; d++)
            for (int c = 0; c < 3; c++) {
                const int64_t w = (i % heads * 3 + c) * dim + d;
                want[i * dim + d] += dq[c].values[i * dim + d];
                if (!weights) continue;
                want[i * dim + d] += dlogit[i * 3 + c] * p->values[NSA_W_GATE][w];
                want_dw[w] += dlogit[i * 3 + c] * p->values[NSA_Q][i * dim + d];
            }
    const sac_nsa_query_grads grads = {.branch_dq = {view(&dq[0]), view(&dq[1]), view(&dq[2])},
                                       .dgates = {sac_tensor_data(&dgates.tensor), (int64_t)heads * 3},
                                       .dq = b->call.whole.args.dq,
                                       .dw_gate = b->call.dw_gate};
    assert_int_equal(b->stages->query_grads(&b->job, &grads, b->scratch), SACCADE_OK);
    expect(b, &b->s->tensor[NSA_DQ], "dq", want, p->rows * heads * dim);
    if (weights) expect(b, &b->s->tensor[NSA_DW_GATE], "dw_gate", want_dw, (int64_t)heads * 3 * dim);
    test_tensor_free(&dgates);
    for (int c = 0; c < 3; c++) free_operand(&dq[c]);
    free(dlogit), free(want), free(want_dw);
}

/* Keys, or values: what the test knows of one side. */
typedef struct side {
    int32_t dim;
    const double *tokens, *w; /* w NULL: no weights */
    operand grad[SAC_NSA_NUM_BRANCHES];
    double *sum, *dw;
} side;

static void make_side(side *s, const nsa_problem *p, bool keys) {
    const nsa_operand tokens = keys ? NSA_K : NSA_V, means = keys ? NSA_K_CMP : NSA_V_CMP;
    *s = (side){.dim = keys ? p->c.head_dim : p->c.head_dim_v,
                .tokens = p->values[tokens],
                .w = p->values[keys ? NSA_W_K : NSA_W_V]};
    for (int c = 0; c < SAC_NSA_NUM_BRANCHES; c++)
        make_operand(&s->grad[c], p, c == SAC_NSA_CMP ? means : tokens, 7 + (uint64_t)c);
    s->sum = zeros(p->rows * p->c.num_kv_heads * s->dim);
    s->dw = zeros((int64_t)p->c.num_kv_heads * s->dim * s->dim);
    for (int64_t e = 0; e < p->rows * p->c.num_kv_heads * s->dim; e++)
        s->sum[e] = s->grad[SAC_NSA_SLC].values[e] + s->grad[SAC_NSA_WIN].values[e];
}

/* Adds what comes through the compressed row `row` of one head, whose tokens start at row `first`. */
static void add_mean(const nsa_problem *p, side *s, int64_t row, int64_t first, int32_t h) {
    const int32_t dim = s->dim, heads = p->c.num_kv_heads;
    const double *dmapped = s->grad[SAC_NSA_CMP].values + (row * heads + h) * dim;
    for (int32_t i = 0; i < dim; i++) {
        double mean = 0, share = s->w ? dot(s->w + ((int64_t)h * dim + i) * dim, dmapped, dim) : dmapped[i];
        for (int32_t n = 0; n < p->c.block; n++) {
            const int64_t at = ((first + n) * heads + h) * dim + i;
            mean += s->tokens[at] / p->c.block;
            s->sum[at] += share / p->c.block;
        }
        for (int32_t j = 0; j < dim; j++) s->dw[((int64_t)h * dim + i) * dim + j] += mean * dmapped[j];
    }
}

static void check_key_grads(bench *b) {
    const nsa_problem *p = b->p;
    side sides[2];
    make_side(&sides[0], p, true);
    make_side(&sides[1], p, false);
    const sac_attention_args *whole = &b->call.whole.args;
    sac_nsa_key_grads grads[2] = {{.sum = whole->dk, .dw = b->call.dw_k},
                                  {.sum = whole->dv, .dw = b->call.dw_v}};
    for (int n = 0; n < 2; n++) {
        for (int c = 0; c < SAC_NSA_NUM_BRANCHES; c++) grads[n].branch[c] = view(&sides[n].grad[c]);
        for (int32_t s = 0; s < p->c.batch; s++)
            for (int32_t j = 0; j < p->len_cmp[s]; j++)
                for (int32_t h = 0; h < p->c.num_kv_heads; h++)
                    add_mean(p, &sides[n], p->first_cmp[s] + j, p->first[s] + (int64_t)j * p->c.block, h);
    }
    assert_int_equal(b->stages->key_grads(&b->job, &grads[0], &grads[1], b->scratch), SACCADE_OK);
    for (int n = 0; n < 2; n++) {
        const int64_t dim = sides[n].dim, heads = p->c.num_kv_heads;
        expect(b, &b->s->tensor[n ? NSA_DV : NSA_DK], n ? "dv" : "dk", sides[n].sum, p->rows * heads * dim);
        if (sides[n].w)
            expect(b, &b->s->tensor[n ? NSA_DW_V : NSA_DW_K], n ? "dw_v" : "dw_k", sides[n].dw,
                   heads * dim * dim);
        for (int c = 0; c < SAC_NSA_NUM_BRANCHES; c++) free_operand(&sides[n].grad[c]);
        free(sides[n].sum), free(sides[n].dw);
    }
}

/* ---- tests ---- */

static const nsa_case cases[] = {
    {.name = "dense", .batch = 2, .seqlen = 150, .num_heads = 6, .num_kv_heads = 3},
    {.name = "packed",
     .packed = true,
     .batch = 4,
     .lens = {65, 0, 7, 130},
     .num_heads = 4,
     .num_kv_heads = 2,
     .head_dim = 24,
     .head_dim_v = 40},
    {.name = "aligned to nothing",
     .seqlen = 100,
     .num_heads = 2,
     .num_kv_heads = 1,
     .head_dim = 72,
     .head_dim_v = 8,
     .layout = LAYOUT_ODD},
    {.name = "one block, widest rows", .seqlen = 70, .block = 64, .num_heads = 3, .head_dim = 256},
    {.name = "fewer rows than a block", .seqlen = 5, .num_heads = 1},
};

static void for_each(void (*check)(bench *b)) {
    for (int i = 0; i < 3 * (int)COUNT_OF(cases); i++) {
        nsa_case c = cases[i / 3];
        c.gate = (nsa_gate_form)(i % 3);
        c.weights = i % 2;
        c.seed = (uint64_t)i;
        bench b;
        set_up(&b, &c, (sac_dtype)((i + i / 3) % 3));
        check(&b);
        tear_down(&b);
    }
}

static void check_all_branches(bench *b) {
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        check_gate_backward(b, branch);
        if (b->p->c.gate != NSA_GATE_TENSOR) check_folded_gate(b, branch);
    }
}

static void gate_passes_gradients_to_its_branches(void **state) {
    (void)state;
    for_each(check_all_branches);
}
static void queries_sum_three_branches_and_the_gate(void **state) {
    (void)state;
    for_each(check_query_grads);
}
static void keys_and_values_share_out_the_gradient_of_their_mean(void **state) {
    (void)state;
    for_each(check_key_grads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_passes_gradients_to_its_branches),
        cmocka_unit_test(queries_sum_three_branches_and_the_gate),
        cmocka_unit_test(keys_and_values_share_out_the_gradient_of_their_mean),
    };
    return nsa_suite(tests, COUNT_OF(tests));
}
