/* plain.c - attention in the input dtype, as one writes it first: scores, softmax, product, and back.
 * Sums are fp32, as hardware sums; whatever a straightforward program would store is rounded to the dtype. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/cmocka_all.h"
#include "support/problem.h"

/* One row of one head. Only visible keys have scores. */
typedef struct plain_row {
    const problem *p;
    results *r;
    int32_t b, h, i, kv_head, keys;
    bool *visible;
    float *capped; /* what the score_mod gets */
    float *scaled, *score, *probability, *grad;
    float lse; /* of the stored scores */
} plain_row;

static float rounded(const problem *p, float x) {
    float stored = p->dtype == SAC_F32 ? x : (float)sac_number_round(x, p->dtype);
    return isinf(stored) ? x : stored; /* a program whose fp16 overflows is no measure */
}

static const double *q_side(const plain_row *row, const double *values, int32_t dim) {
    return values + ((row->p->first_q[row->b] + row->i) * row->p->c.num_heads + row->h) * dim;
}

static const double *k_side(const plain_row *row, const double *values, int32_t j, int32_t dim) {
    return values + ((row->p->first_k[row->b] + j) * row->p->c.num_kv_heads + row->kv_head) * dim;
}

static float dot(const double *a, const double *b, int32_t n) {
    float sum = 0;
    for (int32_t d = 0; d < n; d++) sum += (float)a[d] * (float)b[d];
    return sum;
}

static float alibi_of(const plain_row *row, int32_t j) {
    const problem *p = row->p;
    if (p->c.alibi == ALIBI_NONE) return 0;
    int64_t slope = row->h + (p->c.alibi == ALIBI_PER_BATCH ? (int64_t)row->b * p->c.num_heads : 0);
    int32_t distance = abs(row->i + p->len_k[row->b] - p->len_q[row->b] - j);
    return (float)p->values[ALIBI][slope] * (float)distance;
}

/* The chain from q.k to what softmax sees; `stored` rounds every step, as a program with tensors in between. */
static float score_of(plain_row *row, int32_t j, float product, bool stored) {
    const problem *p = row->p;
    const attention_case *c = &p->c;
    float scaled = attention_case_scale(c) * product;
    if (stored) row->scaled[j] = scaled = rounded(p, scaled);
    float x = scaled;
    if (c->softcap > 0) x = c->softcap * tanhf(x / c->softcap);
    if (stored) x = rounded(p, x);
    x -= alibi_of(row, j);
    if (stored) row->capped[j] = x = rounded(p, x);
    if (c->score_mod) c->score_mod->native->score_row(&x, 1, row->b, row->h, row->i, j, &p->score_aux);
    return stored ? rounded(p, x) : x;
}

/* Maximum and sum of exponentials over what the row sees, the sink included unless nothing is visible. */
static void reduce(const plain_row *row, const float *score, float *max, float *sum) {
    *max = -INFINITY;
    *sum = 0;
    for (int32_t j = 0; j < row->keys; j++)
        if (row->visible[j]) *max = fmaxf(*max, score[j]);
    if (*max == -INFINITY) return;
    float sink = row->p->c.sink ? (float)row->p->values[SINK][row->h] : -INFINITY;
    *max = fmaxf(*max, sink);
    for (int32_t j = 0; j < row->keys; j++)
        if (row->visible[j]) *sum += expf(score[j] - *max);
    *sum += expf(sink - *max);
}

/* Scores and probabilities. False when the row sees nothing. */
static bool softmax(plain_row *row) {
    const problem *p = row->p;
    const double *q = q_side(row, p->values[Q], p->c.head_dim);
    float max, sum;
    for (int32_t j = 0; j < row->keys; j++) {
        row->visible[j] = problem_visible(p, row->b, row->h, row->i, j);
        if (!row->visible[j]) continue;
        float product = dot(q, k_side(row, p->values[K], j, p->c.head_dim), p->c.head_dim);
        row->grad[j] = score_of(row, j, product, false);
        row->score[j] = score_of(row, j, product, true);
    }
    reduce(row, row->grad, &max, &sum);
    row->r->values[LSE][problem_lse_index(p, row->b, row->h, row->i)] = max + logf(sum);
    reduce(row, row->score, &max, &sum);
    row->lse = max + logf(sum);
    for (int32_t j = 0; j < row->keys; j++)
        if (row->visible[j]) row->probability[j] = rounded(p, expf(row->score[j] - max) / sum);
    return max != -INFINITY;
}

/* Between the passes only out and the fp32 lse are kept, as coarse as they are. */
static void probabilities_from_lse(plain_row *row) {
    for (int32_t j = 0; j < row->keys; j++)
        if (row->visible[j]) row->probability[j] = rounded(row->p, expf(row->score[j] - row->lse));
}

/* to[d] = sum over visible keys of weight[j] values[j][d], d < dim <= TEST_MAX_DIM. */
static void weighted_sum(const plain_row *row, const float *weight, const double *values, int32_t dim,
                         float *to) {
    memset(to, 0, (size_t)dim * sizeof(float));
    for (int32_t j = 0; j < row->keys; j++) {
        if (!row->visible[j]) continue;
        const double *value = k_side(row, values, j, dim);
        for (int32_t d = 0; d < dim; d++) to[d] += weight[j] * (float)value[d];
    }
}

static void forward_row(plain_row *row, bool sees) {
    const problem *p = row->p;
    int32_t dim = p->c.head_dim_v;
    double *out = row->r->values[OUT] + (q_side(row, p->values[DOUT], dim) - p->values[DOUT]);
    float sum[TEST_MAX_DIM];
    if (!sees) return;
    weighted_sum(row, row->probability, p->values[V], dim, sum);
    for (int32_t d = 0; d < dim; d++) out[d] = rounded(p, sum[d]);
}

static void raise(double *at, double x) {
    if (x > *at) *at = x;
}

/* dL/d scaled score into row->grad, and the row's part of dsink and daux. */
static void score_grad(plain_row *row, const saccade_aux *aux) {
    const problem *p = row->p;
    int32_t dim = p->c.head_dim_v;
    const double *dout = q_side(row, p->values[DOUT], dim);
    float dlse = 0, delta = dot(dout, row->r->values[OUT] + (dout - p->values[DOUT]), dim), steepest = 0;
    if (p->c.lse_grad) dlse = (float)p->values[DLSE][problem_lse_index(p, row->b, row->h, row->i)];
    for (int32_t j = 0; j < row->keys; j++) {
        if (!row->visible[j]) continue;
        row->grad[j] = rounded(p, dot(dout, k_side(row, p->values[V], j, dim), dim));
        const float steepness = row->probability[j] * (fabsf(row->grad[j]) + fabsf(delta) + fabsf(dlse));
        steepest = fmaxf(steepest, steepness);
        row->r->steepness_squared += (double)steepness * steepness;
    }
    for (int32_t j = 0; j < row->keys; j++) {
        if (!row->visible[j]) continue;
        float grad = rounded(p, row->probability[j] * (row->grad[j] - delta + dlse));
        if (p->c.score_mod) {
            p->c.score_mod->grad->row(&grad, &row->capped[j], 1, row->b, row->h, row->i, j, aux);
            grad = rounded(p, grad);
        }
        if (p->c.softcap > 0) {
            float t = tanhf(row->scaled[j] / p->c.softcap);
            grad = rounded(p, grad * (1 - t * t));
        }
        row->grad[j] = grad;
    }
    if (p->c.sink)
        row->r->values[DSINK][row->h] += expf((float)p->values[SINK][row->h] - row->lse) * (dlse - delta);
    raise(&row->r->steepest, steepest);
}

static void add_row(plain_row *row, float *dk, float *dv) {
    const problem *p = row->p;
    int32_t dim = p->c.head_dim, dim_v = p->c.head_dim_v;
    const double *q = q_side(row, p->values[Q], dim), *dout = q_side(row, p->values[DOUT], dim_v);
    double *dq = row->r->values[DQ] + (q - p->values[Q]);
    float scale = attention_case_scale(&p->c), sum[TEST_MAX_DIM];
    weighted_sum(row, row->grad, p->values[K], dim, sum);
    for (int32_t d = 0; d < dim; d++) dq[d] = rounded(p, scale * sum[d]);
    for (int32_t j = 0; j < row->keys; j++) {
        if (!row->visible[j]) continue;
        for (int32_t d = 0; d < dim; d++) dk[(int64_t)j * dim + d] += scale * row->grad[j] * (float)q[d];
        for (int32_t d = 0; d < dim_v; d++)
            dv[(int64_t)j * dim_v + d] += row->probability[j] * (float)dout[d];
    }
}

/* Each head's dk and dv are stored in the dtype, then summed over the group. */
static void add_head(const plain_row *row, double *sum, const float *head, int32_t dim) {
    const problem *p = row->p;
    for (int32_t j = 0; j < row->keys; j++) {
        double *at = sum + ((p->first_k[row->b] + j) * p->c.num_kv_heads + row->kv_head) * dim;
        for (int32_t d = 0; d < dim; d++)
            at[d] = rounded(p, (float)at[d] + rounded(p, head[(int64_t)j * dim + d]));
    }
}

static void compute_head(plain_row *row, const saccade_aux *aux, bool forward_only) {
    const problem *p = row->p;
    int32_t dim = p->c.head_dim, dim_v = p->c.head_dim_v;
    float *dk = calloc((size_t)row->keys * (size_t)dim + 1, sizeof(float));
    float *dv = calloc((size_t)row->keys * (size_t)dim_v + 1, sizeof(float));
    assert_true(dk && dv);
    for (row->i = 0; row->i < p->len_q[row->b]; row->i++) {
        bool sees = softmax(row);
        forward_row(row, sees);
        if (!sees || forward_only) continue;
        probabilities_from_lse(row);
        score_grad(row, aux);
        add_row(row, dk, dv);
    }
    add_head(row, row->r->values[DK], dk, dim);
    add_head(row, row->r->values[DV], dv, dim_v);
    free(dk);
    free(dv);
}

/* What no row writes: nothing seen gives 0, and lse -inf. */
static void clear(const problem *p, results *r) {
    for (test_operand operand = OUT; operand < NUM_OPERANDS; operand++) {
        test_shape shape = problem_shape(p, operand);
        for (int64_t e = 0; e < test_shape_size(&shape); e++)
            r->values[operand][e] = operand == LSE ? -INFINITY : 0;
    }
}

void plain_formula(const problem *p, bool forward_only, results *r) {
    size_t keys = (size_t)p->c.seqlen_k + 1;
    float *floats = malloc(5 * keys * sizeof(float));
    plain_row row = {.p = p, .r = r, .visible = malloc(keys * sizeof(bool))};
    saccade_aux aux = p->score_aux;
    float *daux[TEST_MAX_SLOTS] = {0};
    assert_true(floats && row.visible);
    row.capped = floats;
    row.scaled = floats + keys;
    row.probability = floats + 2 * keys;
    row.grad = floats + 3 * keys;
    row.score = floats + 4 * keys;
    clear(p, r);
    r->steepest = r->steepness_squared = 0;
    for (int slot = 0; slot < TEST_MAX_SLOTS; slot++) {
        test_shape shape = problem_shape(p, DAUX + slot);
        aux.tensor[slot].grad = daux[slot] = calloc((size_t)test_shape_size(&shape) + 1, sizeof(float));
    }
    for (row.b = 0; row.b < p->c.batch; row.b++)
        for (row.h = 0; row.h < p->c.num_heads; row.h++) {
            row.keys = p->len_k[row.b];
            row.kv_head = row.h / (p->c.num_heads / p->c.num_kv_heads);
            compute_head(&row, &aux, forward_only);
        }
    for (int slot = 0; slot < TEST_MAX_SLOTS; slot++) {
        test_shape shape = problem_shape(p, DAUX + slot);
        for (int64_t e = 0; e < test_shape_size(&shape); e++) r->values[DAUX + slot][e] = daux[slot][e];
        free(daux[slot]);
    }
    free(floats);
    free(row.visible);
}
