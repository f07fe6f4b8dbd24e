/* compress.c - keys and values of a whole block as their mean, and the way back. */
#include <string.h>

#include "nsa/rows.h"
#include "nsa/stages.h"

enum { MOST_DIMS = 256 };

void sac_nsa_offsets(const sac_nsa_args *args, int32_t *cu_cmp, int32_t *cu_tiles) {
    if (!args->len.cu_seqlens) return;
    cu_cmp[0] = cu_tiles[0] = 0;
    for (int32_t b = 0; b < args->batch; b++) {
        int32_t len = sac_length_of(&args->len, b);
        cu_cmp[b + 1] = cu_cmp[b] + len / args->block;
        cu_tiles[b + 1] = cu_tiles[b] + sac_ceil_div(len, args->query_tile);
    }
}

/* One side of the compression: keys, or values. */
typedef struct side {
    const sac_view *tokens, *means;
    const void *w;
    int32_t dim;
} side;

static void block_mean(const sac_nsa_args *args, const side *s, int32_t b, int64_t first_row, int32_t h,
                       float *mean) {
    float row[MOST_DIMS];
    memset(mean, 0, (size_t)s->dim * sizeof *mean);
    for (int32_t i = 0; i < args->block; i++) {
        sac_row_load(row, s->tokens->data, sac_view_offset(s->tokens, b, first_row + i, h), s->dim,
                     args->dtype);
        sac_row_add(mean, 1, row, s->dim);
    }
    for (int32_t d = 0; d < s->dim; d++) mean[d] /= (float)args->block;
}

/* result = row w[h] */
static void times_w(const sac_nsa_args *args, const side *s, int32_t h, const float *row, float *result) {
    float w_row[MOST_DIMS];
    memset(result, 0, (size_t)s->dim * sizeof *result);
    for (int32_t i = 0; i < s->dim; i++) {
        sac_row_load(w_row, s->w, ((int64_t)h * s->dim + i) * s->dim, s->dim, args->dtype);
        sac_row_add(result, row[i], w_row, s->dim);
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
    float mean[MOST_DIMS], mapped[MOST_DIMS];
    place p = place_of(args, b, j);
    block_mean(args, s, b, p.token, h, mean);
    if (s->w) times_w(args, s, h, mean, mapped);
    sac_row_store(s->means->data, sac_view_offset(s->means, b, p.compressed, h), s->w ? mapped : mean, s->dim,
                  args->dtype);
}

void sac_nsa_compress(const sac_nsa_args *args, int32_t num_threads) {
    const side keys = {&args->k, &args->k_cmp, args->w_k, args->head_dim};
    const side values = {&args->v, &args->v_cmp, args->w_v, args->head_dim_v};
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t count = sac_length_of(&args->len, b) / args->block;
#pragma omp parallel for num_threads(num_threads) schedule(static)
        for (int32_t j = 0; j < count; j++)
            for (int32_t h = 0; h < args->num_kv_heads; h++) {
                compress_row(args, &keys, b, j, h);
                compress_row(args, &values, b, j, h);
            }
    }
}

/* ---- backward ---- */

/* The gradient of a mean is shared out evenly over its block's rows of sum (rows, Hkv, dim). */
static void spread(const sac_nsa_args *args, const side *s, int64_t first_row, int32_t h, const float *dmean,
                   float *sum) {
    for (int32_t i = 0; i < args->block; i++)
        sac_row_add(sum + ((first_row + i) * args->num_kv_heads + h) * s->dim, 1 / (float)args->block, dmean,
                    s->dim);
}

static void compress_row_backward(const sac_nsa_args *args, const side *s, const sac_view *grad, int32_t b,
                                  int32_t j, int32_t h, float *sum, float *dw) {
    float dmapped[MOST_DIMS], mean[MOST_DIMS], dmean[MOST_DIMS], w_row[MOST_DIMS];
    place p = place_of(args, b, j);
    /* Rows of a sum are numbered through all sequences. */
    int64_t sum_row = p.token + (args->len.cu_seqlens ? 0 : (int64_t)b * args->len.seqlen);
    sac_row_load(dmapped, grad->data, sac_view_offset(grad, b, p.compressed, h), s->dim, args->dtype);
    if (!s->w) {
        spread(args, s, sum_row, h, dmapped, sum);
        return;
    }
    if (dw) block_mean(args, s, b, p.token, h, mean);
    for (int32_t i = 0; i < s->dim; i++) {
        sac_row_load(w_row, s->w, ((int64_t)h * s->dim + i) * s->dim, s->dim, args->dtype);
        dmean[i] = sac_row_dot(w_row, dmapped, s->dim);
        if (dw) sac_row_add(dw + ((int64_t)h * s->dim + i) * s->dim, mean[i], dmapped, s->dim);
    }
    spread(args, s, sum_row, h, dmean, sum);
}

void sac_nsa_compress_backward(const sac_nsa_args *args, const sac_nsa_compress_grads *grads,
                               int32_t num_threads) {
    const side keys = {&args->k, NULL, args->w_k, args->head_dim};
    const side values = {&args->v, NULL, args->w_v, args->head_dim_v};
    /* A thread takes whole heads, so that nobody else adds to its rows or its w. */
#pragma omp parallel for num_threads(num_threads) schedule(dynamic)
    for (int32_t h = 0; h < args->num_kv_heads; h++)
        for (int32_t b = 0; b < args->batch; b++)
            for (int32_t j = 0; j < sac_length_of(&args->len, b) / args->block; j++) {
                compress_row_backward(args, &keys, &grads->dk_cmp, b, j, h, grads->dk_sum, grads->dw_k);
                compress_row_backward(args, &values, &grads->dv_cmp, b, j, h, grads->dv_sum, grads->dw_v);
            }
}
