/* plain_formula.c - forward and backward by the textbook, row by row, so that no matrix of scores is kept. */
#include "plain_formula.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "band.h"
#include "command.h"
#include "dtype.h"
#include "progress.h"

/* One sequence and one key/value head, with what its query heads share. All matrices are fp32 copies. */
typedef struct slice {
    const workload *work;
    const results *r;
    saccade_context *ctx; /* of this slice: contexts serve one thread at a time */
    input_shape shape;
    int64_t b, kv_head, rows, keys;       /* lengths of this sequence */
    int64_t first_q, first_k;             /* its first token */
    float *k, *v, *k_columns, *v_columns; /* (keys, D), (keys, Dv), and transposed */
    float *dk, *dv, *dk_head, *dv_head;   /* (keys, D), (keys, Dv): of the group, of one head */
    saccade_status status;
    char error[512];
} slice;

/* One query of one head. Arrays are (keys). */
typedef struct query_row {
    slice *s;
    int64_t h, i;
    int64_t begin, end; /* every visible key lies within */
    uint8_t *visible;
    float *exact, *capped, *into_mod, *score, *p, *dp;
    float *q, *dq, *out, *dout;
} query_row;

static float rounded(const query_row *row, float x) { return dtype_round(row->s->work->q->dtype, x); }

/* ---- places in tensors ---- */

static int64_t length_of(const DLTensor *cu, const DLTensor *used, int64_t b, int64_t whole) {
    if (used) return ((const int32_t *)used->data)[b];
    return cu ? ((const int32_t *)cu->data)[b + 1] - ((const int32_t *)cu->data)[b] : whole;
}

static int64_t first_of(const DLTensor *cu, int64_t b, int64_t whole) {
    return cu ? ((const int32_t *)cu->data)[b] : b * whole;
}

static size_t row_place(int64_t token, int64_t heads, int64_t head, int64_t dim) {
    return (size_t)((token * heads + head) * dim);
}

static void load_row(const DLTensor *t, int64_t token, int64_t heads, int64_t head, int64_t dim, float *to) {
    size_t at = row_place(token, heads, head, dim) * dtype_bytes(t->dtype);
    dtype_load(t->dtype, (const char *)t->data + at, (size_t)dim, to);
}

static void store_row(DLTensor *t, int64_t token, int64_t heads, int64_t head, int64_t dim,
                      const float *from) {
    size_t at = row_place(token, heads, head, dim) * dtype_bytes(t->dtype);
    dtype_store(t->dtype, from, (size_t)dim, (char *)t->data + at);
}

static void store_lse(const query_row *row, float lse) {
    const slice *s = row->s;
    DLTensor *t = s->r->tensor[LSE];
    int64_t n = t->shape[t->ndim - 1], token = t->ndim == 3 ? row->i : s->first_q + row->i;
    int64_t plane = (t->ndim == 3 ? s->b * s->shape.num_heads : 0) + row->h;
    ((float *)t->data)[plane * n + token] = lse;
}

/* ---- visibility ---- */

/* FULL blocks and those not listed need no look at each pair. */
static saccade_status apply_block_mask(query_row *row) {
    const saccade_block_mask *mask = row->s->work->block_mask;
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    int32_t b = info.shape.batch > 1 ? (int32_t)row->s->b : 0,
            h = info.shape.num_heads > 1 ? (int32_t)row->h : 0;
    int32_t kv_block = info.shape.kv_block, q_block = (int32_t)row->i / info.shape.q_block;
    for (int64_t j = row->begin; j < row->end;) {
        int32_t block = (int32_t)(j / kv_block);
        int32_t kind = saccade_block_mask_kind(mask, b, h, q_block, block);
        int64_t end = smaller(row->end, ((int64_t)block + 1) * kv_block);
        for (; j < end; j++) {
            bool visible = kind == SACCADE_FULL;
            saccade_status status = SACCADE_OK;
            if (kind == SACCADE_PARTIAL || kind == SACCADE_DIAGONAL)
                status = saccade_block_mask_visible(row->s->ctx, mask, b, h, (int32_t)row->i, (int32_t)j,
                                                    &visible);
            if (status != SACCADE_OK) return status;
            row->visible[j] = visible;
        }
    }
    return SACCADE_OK;
}

static saccade_modifier_row modifier_row(const query_row *row) {
    return (saccade_modifier_row){.b = (int32_t)row->s->b,
                                  .h = (int32_t)row->h,
                                  .q_idx = (int32_t)row->i,
                                  .kv_idx = (int32_t)row->begin,
                                  .n = (int32_t)(row->end - row->begin)};
}

static saccade_status find_visible(query_row *row) {
    const workload *work = row->s->work;
    key_range band = visible_keys(&work->params, row->i, row->s->rows, row->s->keys);
    row->begin = band.begin;
    row->end = band.end;
    memset(row->visible + row->begin, 1, (size_t)(row->end - row->begin));
    if (work->block_mask) return apply_block_mask(row);
    if (!work->params.mask_mod.modifier) return SACCADE_OK;
    saccade_modifier_row place = modifier_row(row);
    return saccade_modifier_mask_row(row->s->ctx, &work->params.mask_mod, &place, row->visible + row->begin);
}

/* ---- forward ---- */

/* result[j] = sum over d of x[d] * columns[d][j]: products with all keys at once. */
static void dot_with_keys(const query_row *row, const float *x, const float *columns, int64_t dim,
                          float *restrict result) {
    int64_t keys = row->s->keys;
    for (int64_t j = row->begin; j < row->end; j++) result[j] = 0;
    for (int64_t d = 0; d < dim; d++) {
        const float *restrict column = columns + d * keys;
        for (int64_t j = row->begin; j < row->end; j++) result[j] += x[d] * column[j];
    }
}

static float alibi_slope(const query_row *row) {
    const DLTensor *slopes = row->s->work->params.alibi_slopes;
    if (!slopes) return 0;
    int64_t b = slopes->ndim == 2 ? row->s->b : 0;
    return ((const float *)slopes->data)[b * slopes->shape[slopes->ndim - 1] + row->h];
}

/* From q . k to what softmax sees, once with every step rounded and once, in `exact`, without. */
static saccade_status make_scores(query_row *row) {
    const saccade_attention_params *p = &row->s->work->params;
    float scale = p->has_scale ? p->scale : 1 / sqrtf((float)row->s->shape.head_dim),
          slope = alibi_slope(row);
    dot_with_keys(row, row->q, row->s->k_columns, row->s->shape.head_dim, row->exact);
    for (int64_t j = row->begin; j < row->end; j++) {
        float distance = fabsf((float)(row->i + row->s->keys - row->s->rows - j));
        float exact = scale * row->exact[j], stored = rounded(row, scale * rounded(row, row->exact[j]));
        if (p->softcap > 0) {
            exact = p->softcap * tanhf(exact / p->softcap);
            stored = rounded(row, p->softcap * tanhf(stored / p->softcap));
        }
        row->capped[j] = stored;
        row->exact[j] = exact - slope * distance;
        row->score[j] = row->into_mod[j] = rounded(row, stored - slope * distance);
    }
    if (!p->score_mod.modifier) return SACCADE_OK;
    saccade_modifier_row place = modifier_row(row);
    saccade_status status =
        saccade_modifier_score_row(row->s->ctx, &p->score_mod, &place, row->exact + row->begin);
    if (status == SACCADE_OK)
        status = saccade_modifier_score_row(row->s->ctx, &p->score_mod, &place, row->score + row->begin);
    for (int64_t j = row->begin; j < row->end; j++) row->score[j] = rounded(row, row->score[j]);
    return status;
}

static float sink_of(const query_row *row) {
    const DLTensor *sink = row->s->work->params.sink;
    return sink ? ((const float *)sink->data)[row->h] : -INFINITY;
}

/* log of the sum of exp over visible keys and the sink; -inf where no key is visible. */
static float lse_of(const query_row *row, const float *score) {
    float max = -INFINITY, sum = 0;
    for (int64_t j = row->begin; j < row->end; j++)
        if (row->visible[j]) max = fmaxf(max, score[j]);
    if (max == -INFINITY) return max;
    max = fmaxf(max, sink_of(row));
    for (int64_t j = row->begin; j < row->end; j++)
        if (row->visible[j]) sum += expf(score[j] - max);
    return max + logf(sum + expf(sink_of(row) - max));
}

/* Returns the probability of the sink. */
static float softmax(query_row *row) {
    float lse = lse_of(row, row->score);
    for (int64_t j = row->begin; j < row->end; j++)
        row->p[j] = row->visible[j] ? rounded(row, expf(row->score[j] - lse)) : 0;
    return lse == -INFINITY ? 0 : rounded(row, expf(sink_of(row) - lse));
}

/* sum += x times one row of a matrix. */
static void add_scaled(float *restrict sum, float x, const float *restrict values, int64_t dim) {
    for (int64_t d = 0; d < dim; d++) sum[d] += x * values[d];
}

static void forward_row(query_row *row) {
    int64_t dim = row->s->shape.head_dim_v;
    memset(row->out, 0, sizeof *row->out * (size_t)dim);
    for (int64_t j = row->begin; j < row->end; j++)
        if (row->visible[j]) add_scaled(row->out, row->p[j], row->s->v + j * dim, dim);
    store_row(row->s->r->tensor[OUT], row->s->first_q + row->i, row->s->shape.num_heads, row->h, dim,
              row->out);
    store_lse(row, lse_of(row, row->exact));
}

/* ---- backward ---- */

/* A head's sink is one for all batch entries, whose slices run side by side. */
static void add_dsink(const query_row *row, float sink_probability, float delta) {
    DLTensor *dsink = row->s->r->tensor[DSINK];
    if (!dsink) return;
    float *sum = (float *)dsink->data + row->h;
#pragma omp atomic
    *sum -= sink_probability * delta;
}

/* dp becomes the gradient of scale * q . k. */
static saccade_status score_gradients(query_row *row, float delta) {
    const saccade_attention_params *p = &row->s->work->params;
    saccade_status status = SACCADE_OK;
    for (int64_t j = row->begin; j < row->end; j++)
        row->dp[j] = row->visible[j] ? rounded(row, row->p[j] * (rounded(row, row->dp[j]) - delta)) : 0;
    if (p->score_mod.modifier) {
        saccade_modifier_row place = modifier_row(row);
        status = saccade_modifier_score_grad_row(row->s->ctx, &p->score_mod, &place, row->dp + row->begin,
                                                 row->into_mod + row->begin, &row->s->r->tensor[DAUX]);
    }
    for (int64_t j = row->begin; j < row->end; j++) {
        float slope = p->softcap > 0 ? 1 - row->capped[j] / p->softcap * (row->capped[j] / p->softcap) : 1;
        row->dp[j] = row->visible[j] ? rounded(row, row->dp[j] * slope) : 0;
    }
    return status;
}

static saccade_status backward_row(query_row *row, float sink_probability) {
    slice *s = row->s;
    int64_t dim = s->shape.head_dim, dim_v = s->shape.head_dim_v;
    const saccade_attention_params *p = &s->work->params;
    float scale = p->has_scale ? p->scale : 1 / sqrtf((float)dim), delta = 0;
    load_row(s->work->dout, s->first_q + row->i, s->shape.num_heads, row->h, dim_v, row->dout);
    dot_with_keys(row, row->dout, s->v_columns, dim_v, row->dp);
    for (int64_t j = row->begin; j < row->end; j++)
        if (row->visible[j]) delta += row->p[j] * rounded(row, row->dp[j]);
    delta = rounded(row, delta);
    add_dsink(row, sink_probability, delta);
    saccade_status status = score_gradients(row, delta);
    memset(row->dq, 0, sizeof *row->dq * (size_t)dim);
    for (int64_t j = row->begin; j < row->end; j++) {
        if (!row->visible[j]) continue;
        add_scaled(row->dq, scale * row->dp[j], s->k + j * dim, dim);
        add_scaled(s->dk_head + j * dim, scale * row->dp[j], row->q, dim);
        add_scaled(s->dv_head + j * dim_v, row->p[j], row->dout, dim_v);
    }
    store_row(s->r->tensor[DQ], s->first_q + row->i, s->shape.num_heads, row->h, dim, row->dq);
    return status;
}

/* A head's gradient is a tensor of its own before the group's are summed. */
static void add_head(const query_row *row, float *sum, float *head, int64_t count) {
    for (int64_t e = 0; e < count; e++) {
        sum[e] += rounded(row, head[e]);
        head[e] = 0;
    }
}

/* ---- slices ---- */

static query_row new_row(slice *s) {
    size_t keys = (size_t)s->keys, dim = (size_t)s->shape.head_dim, dim_v = (size_t)s->shape.head_dim_v;
    float *room = allocate(sizeof *room * (6 * keys + 2 * dim + 2 * dim_v));
    query_row row = {.s = s, .visible = allocate(keys), .exact = room};
    row.capped = row.exact + keys;
    row.into_mod = row.capped + keys;
    row.score = row.into_mod + keys;
    row.p = row.score + keys;
    row.dp = row.p + keys;
    row.q = row.dp + keys;
    row.dq = row.q + dim;
    row.out = row.dq + dim;
    row.dout = row.out + dim_v;
    return row;
}

static saccade_status compute_row(query_row *row) {
    slice *s = row->s;
    load_row(s->work->q, s->first_q + row->i, s->shape.num_heads, row->h, s->shape.head_dim, row->q);
    saccade_status status = find_visible(row);
    if (status == SACCADE_OK) status = make_scores(row);
    if (status != SACCADE_OK) return status;
    float sink_probability = softmax(row);
    forward_row(row);
    return s->work->backward ? backward_row(row, sink_probability) : SACCADE_OK;
}

static saccade_status compute_heads(slice *s, _Atomic int64_t *done) {
    saccade_status status = SACCADE_OK;
    query_row row = new_row(s);
    int64_t group = s->shape.num_heads / s->shape.num_kv_heads;
    for (int64_t g = 0; g < group && status == SACCADE_OK; g++) {
        row.h = s->kv_head * group + g;
        for (row.i = 0; row.i < s->rows && status == SACCADE_OK; row.i++) {
            status = compute_row(&row);
            progress_to(atomic_fetch_add(done, 1) + 1);
        }
        if (!s->work->backward) continue;
        add_head(&row, s->dk, s->dk_head, s->keys * s->shape.head_dim);
        add_head(&row, s->dv, s->dv_head, s->keys * s->shape.head_dim_v);
    }
    free(row.visible);
    free(row.exact);
    return status;
}

static void load_keys(const slice *s, const DLTensor *t, int64_t dim, float *rows, float *columns) {
    for (int64_t j = 0; j < s->keys; j++) {
        load_row(t, s->first_k + j, s->shape.num_kv_heads, s->kv_head, dim, rows + j * dim);
        for (int64_t d = 0; d < dim; d++) columns[d * s->keys + j] = rows[j * dim + d];
    }
}

static void compute_slice(slice *s, _Atomic int64_t *done) {
    const saccade_attention_params *p = &s->work->params;
    s->rows = length_of(p->cu_seqlens_q, p->seqused_q, s->b, s->shape.seqlen_q);
    s->keys = length_of(p->cu_seqlens_k, p->seqused_k, s->b, s->shape.seqlen_k);
    s->first_q = first_of(p->cu_seqlens_q, s->b, s->shape.seqlen_q);
    s->first_k = first_of(p->cu_seqlens_k, s->b, s->shape.seqlen_k);
    size_t size_k = (size_t)(s->keys * s->shape.head_dim), size_v = (size_t)(s->keys * s->shape.head_dim_v);
    float *room = allocate(sizeof *room * 4 * (size_k + size_v));
    float **parts[] = {&s->k, &s->k_columns, &s->dk, &s->dk_head, &s->v, &s->v_columns, &s->dv, &s->dv_head};
    for (int i = 0; i < 8; i++)
        *parts[i] = room + (i < 4 ? (size_t)i * size_k : 4 * size_k + (size_t)(i - 4) * size_v);
    load_keys(s, s->work->k, s->shape.head_dim, s->k, s->k_columns);
    load_keys(s, s->work->v, s->shape.head_dim_v, s->v, s->v_columns);
    s->status = saccade_context_create(&s->ctx, NULL);
    if (s->status == SACCADE_OK) s->status = compute_heads(s, done);
    if (s->status != SACCADE_OK) strncat(s->error, saccade_last_error(), sizeof s->error - 1);
    saccade_context_destroy(s->ctx);
    for (int64_t j = 0; j < s->keys && s->work->backward; j++) {
        store_row(s->r->tensor[DK], s->first_k + j, s->shape.num_kv_heads, s->kv_head, s->shape.head_dim,
                  s->dk + j * s->shape.head_dim);
        store_row(s->r->tensor[DV], s->first_k + j, s->shape.num_kv_heads, s->kv_head, s->shape.head_dim_v,
                  s->dv + j * s->shape.head_dim_v);
    }
    free(room);
}

/* Rows that no sequence uses keep what the library gives them: out 0, lse -inf. */
static void fill_unused(results *r) {
    float *lse = r->tensor[LSE]->data;
    size_t count = tensor_elements(r->tensor[LSE]);
    for (size_t i = 0; i < count; i++) lse[i] = -INFINITY;
}

int plain_formula(const workload *work, results *r) {
    input_shape shape = workload_shape(work);
    int64_t count = shape.batch * shape.num_kv_heads, rows = 0;
    slice *slices = allocate(sizeof *slices * (size_t)count);
    _Atomic int64_t done = 0;
    for (int64_t b = 0; b < shape.batch; b++)
        rows += length_of(work->params.cu_seqlens_q, work->params.seqused_q, b, shape.seqlen_q);
    fill_unused(r);
    progress_begin("plain formula", rows * shape.num_heads);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < count; i++) {
        slices[i] = (slice){.work = work,
                            .r = r,
                            .shape = shape,
                            .b = i / shape.num_kv_heads,
                            .kv_head = i % shape.num_kv_heads};
        compute_slice(&slices[i], &done);
    }
    progress_end();
    int code = EXIT_OK;
    for (int64_t i = 0; i < count && code == EXIT_OK; i++) {
        if (slices[i].status == SACCADE_OK) continue;
        complain("plain formula: %s", slices[i].error);
        code = EXIT_FAILED;
    }
    free(slices);
    return code;
}
