/* compress.c - keys and values of a whole block as their mean, and the way back. */
#include <string.h>

#include "base/context.h"
#include "nsa/host.h"
#include "nsa/rows.h"

saccade_status sac_nsa_host_offsets(const sac_nsa_job *job, int32_t *cu_cmp, int32_t *cu_tiles) {
    const sac_nsa_args *args = &job->args;
    cu_cmp[0] = cu_tiles[0] = 0;
    for (int32_t b = 0; b < args->batch; b++) {
        int32_t len = sac_length_of(&args->len, b);
        cu_cmp[b + 1] = cu_cmp[b] + len / args->block;
        cu_tiles[b + 1] = cu_tiles[b] + sac_ceil_div(len, args->query_tile);
    }
    return SACCADE_OK;
}

/* One side of the compression: keys, or values. */
typedef struct side {
    const sac_view *tokens, *means;
    const void *w;
    int32_t dim;
} side;

static void block_mean(const sac_nsa_args *args, const side *s, int32_t b, int64_t first_row, int32_t h,
                       float *mean) {
    memset(mean, 0, (size_t)s->dim * sizeof *mean);
    sac_row_add_rows(mean, s->tokens->data, sac_view_offset(s->tokens, b, first_row, h),
                     s->tokens->row_stride, args->block, s->dim, args->dtype);
    for (int32_t d = 0; d < s->dim; d++) mean[d] /= (float)args->block;
}

/* result = row w[h] */
static void times_w(const sac_nsa_args *args, const side *s, int32_t h, const float *row, float *result) {
    memset(result, 0, (size_t)s->dim * sizeof *result);
    for (int32_t i = 0; i < s->dim; i++) {
        sac_row_add_from(result, row[i], s->w, ((int64_t)h * s->dim + i) * s->dim, s->dim, args->dtype);
    }
}

/* Where compressed row j of sequence b lies, and the first of its tokens. */
typedef struct place {
    int64_t compressed, token;
} place;
static place place_of(const sac_nsa_args *args, int32_t b, int32_t j) {
    place p = {j, (int64_t)j * args->block};
    if (args->cu_cmp) p.compressed += args->cu_cmp[b];
    if (args->len.cu_seqlens) p.token += args->len.cu_seqlens[b];
    return p;
}

static void compress_row(const sac_nsa_args *args, const side *s, int32_t b, int32_t j, int32_t h) {
    float mean[SAC_NSA_MOST_DIMS], mapped[SAC_NSA_MOST_DIMS];
    place p = place_of(args, b, j);
    block_mean(args, s, b, p.token, h, mean);
    if (s->w) times_w(args, s, h, mean, mapped);
    sac_row_store(s->means->data, sac_view_offset(s->means, b, p.compressed, h), s->w ? mapped : mean, s->dim,
                  args->dtype);
}

saccade_status sac_nsa_host_compress(const sac_nsa_job *job, void *scratch) {
    const sac_nsa_args *args = &job->args;
    const side keys = {&args->k, &args->k_cmp, args->w_k, args->head_dim};
    const side values = {&args->v, &args->v_cmp, args->w_v, args->head_dim_v};
    (void)scratch;
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t count = sac_length_of(&args->len, b) / args->block;
        const int64_t elements =
            (int64_t)count * args->block * args->num_kv_heads * (args->head_dim + args->head_dim_v);
#pragma omp parallel for num_threads(sac_nsa_threads(job, elements)) schedule(static)
        for (int32_t j = 0; j < count; j++)
            for (int32_t h = 0; h < args->num_kv_heads; h++) {
                compress_row(args, &keys, b, j, h);
                compress_row(args, &values, b, j, h);
            }
    }
    return SACCADE_OK;
}

/* ---- backward ---- */

/* What each token of a block gets from its compressed row's gradient: through w, and shared out evenly. Adds to dw. */
static void mean_backward(const sac_nsa_args *args, const side *s, const sac_nsa_key_grads *grads, int32_t b,
                          int32_t j, int32_t h, float *share) {
    float dmapped[SAC_NSA_MOST_DIMS], mean[SAC_NSA_MOST_DIMS], w_row[SAC_NSA_MOST_DIMS];
    const place p = place_of(args, b, j);
    const sac_view *grad = &grads->branch[SAC_NSA_CMP];
    sac_row_load(dmapped, grad->data, sac_view_offset(grad, b, p.compressed, h), s->dim, args->dtype);
    if (grads->dw) block_mean(args, s, b, p.token, h, mean);
    for (int32_t i = 0; i < s->dim; i++) {
        const int64_t w = ((int64_t)h * s->dim + i) * s->dim;
        if (s->w) sac_row_load(w_row, s->w, w, s->dim, args->dtype);
        share[i] = (s->w ? sac_row_dot(w_row, dmapped, s->dim) : dmapped[i]) / (float)args->block;
        if (grads->dw) sac_row_add(grads->dw + w, mean[i], dmapped, s->dim);
    }
}

/* One token's row: its share of the block's mean (NULL: its block has none), and what the other branches give. */
static void sum_row(const sac_nsa_args *args, const side *s, const sac_nsa_key_grads *grads, int32_t b,
                    int64_t token, int32_t h, const float *share) {
    float sum[SAC_NSA_MOST_DIMS] = {0};
    if (share) memcpy(sum, share, (size_t)s->dim * sizeof *sum);
    for (int branch = SAC_NSA_SLC; branch <= SAC_NSA_WIN; branch++) {
        const sac_view *grad = &grads->branch[branch];
        sac_row_add_from(sum, 1, grad->data, sac_view_offset(grad, b, token, h), s->dim, args->dtype);
    }
    sac_row_store(grads->sum.data, sac_view_offset(&grads->sum, b, token, h), sum, s->dim, args->dtype);
}

static void side_grads(const sac_nsa_args *args, const side *s, const sac_nsa_key_grads *grads, int32_t b,
                       int32_t h) {
    const int32_t len = sac_length_of(&args->len, b);
    for (int32_t j = 0; j < sac_ceil_div(len, args->block); j++) {
        float share[SAC_NSA_MOST_DIMS];
        const bool whole = j < len / args->block;
        const int64_t first = place_of(args, b, j).token;
        if (whole) mean_backward(args, s, grads, b, j, h, share);
        for (int32_t i = 0; grads->sum.data && i < sac_min(args->block, len - j * args->block); i++)
            sum_row(args, s, grads, b, first + i, h, whole ? share : NULL);
    }
}

/* Of rows behind the last sequence. */
static void clear_unused(const sac_nsa_args *args, const side *s, const sac_nsa_key_grads *grads, int32_t h) {
    const float zeros[SAC_NSA_MOST_DIMS] = {0};
    for (int64_t row = sac_nsa_used_rows(args); grads->sum.data && row < args->rows; row++)
        sac_row_store(grads->sum.data, sac_view_offset(&grads->sum, 0, row, h), zeros, s->dim, args->dtype);
}

static void clear_dw(const sac_nsa_args *args, const side *s, const sac_nsa_key_grads *grads) {
    if (grads->dw)
        memset(grads->dw, 0, (size_t)args->num_kv_heads * (size_t)s->dim * (size_t)s->dim * sizeof(float));
}

saccade_status sac_nsa_host_key_grads(const sac_nsa_job *job, const sac_nsa_key_grads *keys,
                                      const sac_nsa_key_grads *values, void *scratch) {
    const sac_nsa_args *args = &job->args;
    const side key_side = {&args->k, NULL, args->w_k, args->head_dim};
    const side value_side = {&args->v, NULL, args->w_v, args->head_dim_v};
    (void)scratch;
    clear_dw(args, &key_side, keys);
    clear_dw(args, &value_side, values);
    /* A thread takes whole heads, so that nobody else adds to its w. */
    const int64_t elements = args->rows * args->num_kv_heads * args->head_dim;
#pragma omp parallel for num_threads(sac_nsa_threads(job, elements)) schedule(dynamic)
    for (int32_t h = 0; h < args->num_kv_heads; h++) {
        for (int32_t b = 0; b < args->batch; b++) {
            side_grads(args, &key_side, keys, b, h);
            side_grads(args, &value_side, values, b, h);
        }
        clear_unused(args, &key_side, keys, h);
        clear_unused(args, &value_side, values, h);
    }
    return SACCADE_OK;
}
