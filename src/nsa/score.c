/* score.c - how well each compressed block fits a tile of queries. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/context.h"
#include "nsa/host.h"
#include "nsa/rows.h"

/* The queries of one tile and the compressed keys they are held against. */
typedef struct tile_rows {
    int64_t first_query, first_key; /* rows of q and k_cmp */
    int32_t num_queries, candidates;
} tile_rows;

static tile_rows rows_of(const sac_nsa_args *args, int32_t b, int32_t tile) {
    int32_t len = sac_length_of(&args->len, b), begin = tile * args->query_tile;
    int32_t end = sac_min(begin + args->query_tile, len);
    return (tile_rows){.first_query = begin + (int64_t)(args->len.cu_seqlens ? args->len.cu_seqlens[b] : 0),
                       .first_key = args->cu_cmp ? args->cu_cmp[b] : 0,
                       .num_queries = end - begin,
                       .candidates = sac_nsa_candidates(args, end - 1, len)};
}

int64_t sac_nsa_score_floats(const sac_nsa_args *args) { return args->max_cmp + (int64_t)args->head_dim; }

static void dots(const sac_nsa_args *args, const tile_rows *rows, int32_t b, int32_t kv_head, const float *q,
                 float factor, float *scores) {
    sac_row_dots(scores, factor, q, args->k_cmp.data,
                 sac_view_offset(&args->k_cmp, b, rows->first_key, kv_head), args->k_cmp.row_stride,
                 rows->candidates, args->head_dim, args->dtype);
}

/* The mean over queries of scale * q . k is scale * (mean of q) . k, and the sum over heads goes the same way: one
 * product a block, whatever the tile's size. */
static void score_logits(const sac_nsa_args *args, const tile_rows *rows, int32_t b, int32_t list,
                         float *scores, float *scratch) {
    float *sum = scratch;
    memset(sum, 0, (size_t)args->head_dim * sizeof *sum);
    for (int32_t h = list * args->heads_per_list; h < (list + 1) * args->heads_per_list; h++)
        sac_row_add_rows(sum, args->q.data, sac_view_offset(&args->q, b, rows->first_query, h),
                         args->q.row_stride, rows->num_queries, args->head_dim, args->dtype);
    dots(args, rows, b, list * args->heads_per_list / args->group, sum,
         args->scale / (float)rows->num_queries, scores);
}

/* logits become their softmax, times `factor`. A row that sees NaN stays NaN: then nothing wins. */
static void softmax(float *logits, int32_t n, float factor) {
    float top = -INFINITY, sum = 0;
    for (int32_t j = 0; j < n; j++) top = fmaxf(top, logits[j]);
    if (top == -INFINITY) top = 0;
    for (int32_t j = 0; j < n; j++) sum += logits[j] = expf(logits[j] - top);
    for (int32_t j = 0; j < n; j++) logits[j] *= factor / sum;
}

static void score_probabilities(const sac_nsa_args *args, const tile_rows *rows, int32_t b, int32_t list,
                                float *scores, float *scratch) {
    float *query = scratch, *logits = scratch + args->head_dim;
    memset(scores, 0, (size_t)rows->candidates * sizeof *scores);
    for (int32_t h = list * args->heads_per_list; h < (list + 1) * args->heads_per_list; h++)
        for (int32_t i = 0; i < rows->num_queries; i++) {
            sac_row_load(query, args->q.data, sac_view_offset(&args->q, b, rows->first_query + i, h),
                         args->head_dim, args->dtype);
            dots(args, rows, b, h / args->group, query, args->scale, logits);
            softmax(logits, rows->candidates, 1 / (float)rows->num_queries);
            sac_row_add(scores, 1, logits, rows->candidates);
        }
}

int32_t sac_nsa_score_tile(const sac_nsa_args *args, int32_t b, int32_t list, int32_t tile, float *scores,
                           float *scratch) {
    tile_rows rows = rows_of(args, b, tile);
    if (args->score == SAC_NSA_LOGITS)
        score_logits(args, &rows, b, list, scores, scratch);
    else
        score_probabilities(args, &rows, b, list, scores, scratch);
    for (int32_t j = rows.candidates; j < args->max_cmp; j++) scores[j] = -INFINITY;
    return rows.candidates;
}

saccade_status sac_nsa_host_score(const sac_nsa_job *job, float *scores, void *scratch) {
    const sac_nsa_args *args = &job->args;
    const int64_t each = args->max_cmp + sac_nsa_score_floats(args);
    const bool packed = args->len.cu_seqlens != NULL;
    const int64_t tiles = packed ? args->tiles : args->max_tiles;
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t count = sac_ceil_div(sac_length_of(&args->len, b), args->query_tile);
        const int64_t first = packed ? args->cu_tiles[b] : b * args->num_lists * tiles;
#pragma omp parallel for num_threads(sac_nsa_threads(job, args->rows * args->num_heads * args->head_dim))    \
    schedule(dynamic)
        for (int64_t i = 0; i < (int64_t)count * args->num_lists; i++) {
            const int32_t list = (int32_t)(i % args->num_lists), tile = (int32_t)(i / args->num_lists);
            sac_nsa_score_tile(args, b, list, tile, scores + (first + list * tiles + tile) * args->max_cmp,
                               (float *)scratch + omp_get_thread_num() * each);
        }
    }
    return SACCADE_OK;
}
