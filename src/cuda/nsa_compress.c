/* nsa_compress.c - launches of what has to do with block means: offsets, compression, and the gradients of keys and
 * values. */
#include "cuda/attn_portable.h"
#include "cuda/kernels/nsa_work.h"
#include "cuda/nsa.h"

enum {
    THREADS = 256,
    OFFSET_THREADS = 256,
    WEIGHT_THREADS = 128,
    OUTER_PARTS = 16 /* with 8 heads of 128 dimensions four CTAs an SM */
};

saccade_status sac_nsa_cuda_offsets(const sac_nsa_job *job, int32_t *cu_cmp, int32_t *cu_tiles) {
    const sac_kernel_spec spec = {
        .source = "cuda/kernels/nsa_offsets.cu", .entry = "nsa_offsets", .threads = OFFSET_THREADS};
    return sac_nsa_cuda_launch(job, &spec, 1, (void *[]){(void *)&job->args, &cu_cmp, &cu_tiles});
}

/* ---- keys, or values ---- */

typedef struct side {
    sac_view tokens, compressed;
    const void *w;
    int32_t dim;
    float *fp32; /* (cmp_rows, Hkv, dim) in the scratch */
} side;

typedef struct sides {
    side keys, values;
    size_t bytes;
} sides;

/* The two sides, with room in the scratch for rows of those that have weights. */
static sides sides_of(const sac_nsa_job *job, void *scratch) {
    const sac_nsa_args *args = &job->args;
    const size_t rows = (size_t)args->cmp_rows * (size_t)args->num_kv_heads;
    sides s = {.keys = {args->k, args->k_cmp, args->w_k, args->head_dim, NULL},
               .values = {args->v, args->v_cmp, args->w_v, args->head_dim_v, NULL}};
    if (args->w_k) s.keys.fp32 = sac_carve(scratch, &s.bytes, rows * (size_t)args->head_dim * sizeof(float));
    if (args->w_v)
        s.values.fp32 = sac_carve(scratch, &s.bytes, rows * (size_t)args->head_dim_v * sizeof(float));
    return s;
}

static saccade_status launch_means(const sac_nsa_job *job, const side *keys, const side *values) {
    const sac_nsa_args *args = &job->args;
    const sac_nsa_means key_means = {keys->tokens, keys->compressed, keys->fp32, keys->dim, 0};
    const sac_nsa_means value_means = {values->tokens, values->compressed, values->fp32, values->dim, 0};
    const sac_kernel_spec spec = sac_nsa_cuda_spec(
        args, "cuda/kernels/nsa_compress.cu", "nsa_compress", THREADS,
        SAC_NSA_VIEWS(&keys->tokens, &keys->compressed, &values->tokens, &values->compressed));
    const int64_t rows_a_cta = THREADS / sac_nsa_cuda_row_lanes(args);
    const int64_t ctas = (args->cmp_rows * args->num_kv_heads + rows_a_cta - 1) / rows_a_cta;
    return sac_nsa_cuda_launch(job, &spec, 2 * ctas,
                               (void *[]){(void *)args, (void *)&key_means, (void *)&value_means});
}

/* Through the weights of a side, where it has some; or back. */
static saccade_status launch_weights(const sac_nsa_job *job, const side *s, bool transposed) {
    const sac_nsa_args *args = &job->args;
    const sac_nsa_weights work = {s->w, s->fp32, s->compressed, s->dim, transposed};
    if (!s->w) return SACCADE_OK;
    const sac_kernel_spec spec = sac_nsa_cuda_spec(args, "cuda/kernels/nsa_weights.cu", "nsa_weights",
                                                   WEIGHT_THREADS, SAC_NSA_VIEWS(&s->compressed));
    const int64_t groups = (args->cmp_rows + SAC_NSA_WEIGHT_ROWS - 1) / SAC_NSA_WEIGHT_ROWS;
    return sac_nsa_cuda_launch(job, &spec, groups * args->num_kv_heads,
                               (void *[]){(void *)args, (void *)&work});
}

size_t sac_nsa_cuda_compress_scratch(const sac_nsa_job *job) { return sides_of(job, NULL).bytes; }

saccade_status sac_nsa_cuda_compress(const sac_nsa_job *job, void *scratch) {
    const sides s = sides_of(job, scratch);
    saccade_status status = launch_means(job, &s.keys, &s.values);
    if (status == SACCADE_OK) status = launch_weights(job, &s.keys, false);
    if (status == SACCADE_OK) status = launch_weights(job, &s.values, false);
    return status;
}

/* ---- backward ---- */

static size_t part_bytes(const sac_nsa_args *args, int32_t dim) {
    return (size_t)OUTER_PARTS * (size_t)args->num_kv_heads * (size_t)dim * (size_t)dim * sizeof(float);
}

/* Behind the rows of the two sides, for one of them after the other. */
size_t sac_nsa_cuda_key_grads_scratch(const sac_nsa_job *job) {
    const sac_nsa_args *args = &job->args;
    const size_t rows = sides_of(job, NULL).bytes;
    if (!args->w_k && !args->w_v) return rows;
    return rows + part_bytes(args, sac_max(args->head_dim, args->head_dim_v));
}

/* dw from the means, in fp32, and the gradients of the compressed rows. */
static saccade_status launch_dw(const sac_nsa_job *job, const side *s, const sac_nsa_key_grads *grads,
                                float *part) {
    const sac_nsa_args *args = &job->args;
    if (!grads->dw) return SACCADE_OK;
    const sac_nsa_outer work = {
        .a = s->fp32, .b = grads->branch[SAC_NSA_CMP], .part = part, .dim = s->dim, .parts = OUTER_PARTS};
    sac_kernel_spec spec =
        sac_nsa_cuda_spec(args, "cuda/kernels/nsa_outer.cu", "nsa_outer", THREADS, SAC_NSA_VIEWS(&work.b));
    const int64_t tiles = sac_ceil_div(s->dim, SAC_NSA_OUTER_TILE);
    SAC_TRY(sac_nsa_cuda_launch(job, &spec, OUTER_PARTS * args->num_kv_heads * tiles * tiles,
                                (void *[]){(void *)args, (void *)&work}));
    return sac_nsa_cuda_sum_parts(job, part, OUTER_PARTS, (int64_t)args->num_kv_heads * s->dim * s->dim,
                                  grads->dw);
}

static saccade_status launch_sum(const sac_nsa_job *job, const side *s, const sac_nsa_key_grads *grads) {
    if (!grads->sum.data || job->args.rows == 0) return SACCADE_OK;
    const sac_nsa_key_grads_work work = {.slc = grads->branch[SAC_NSA_SLC],
                                         .win = grads->branch[SAC_NSA_WIN],
                                         .sum = grads->sum,
                                         .share_view = grads->branch[SAC_NSA_CMP],
                                         .share_fp32 = s->fp32,
                                         .dim = s->dim};
    const sac_kernel_spec spec =
        sac_nsa_cuda_spec(&job->args, "cuda/kernels/nsa_key_grads.cu", "nsa_key_grads", THREADS,
                          SAC_NSA_VIEWS(&work.slc, &work.win, &work.sum, &work.share_view));
    return sac_nsa_cuda_launch(job, &spec, sac_nsa_cuda_walk_ctas(job, job->args.num_kv_heads, THREADS),
                               (void *[]){(void *)&job->args, (void *)&work});
}

/* Adds up the parts in which the gradients of compressed keys and values have come. */
static saccade_status launch_join(const sac_nsa_job *job, const sac_nsa_key_grads *keys,
                                  const sac_nsa_key_grads *values) {
    const sac_nsa_args *args = &job->args;
    if (keys->parts <= 1) return SACCADE_OK;
    const sac_view *dk = &keys->branch[SAC_NSA_CMP], *dv = &values->branch[SAC_NSA_CMP];
    const sac_nsa_join join_keys = {dk->data, keys->part_stride},
                       join_values = {dv->data, values->part_stride};
    const sac_kernel_spec spec =
        sac_nsa_cuda_spec(args, "cuda/kernels/nsa_join.cu", "nsa_join", THREADS, SAC_NSA_VIEWS(dk, dv));
    const int64_t a_cta = 8 * THREADS, key_ctas = (keys->part_stride + a_cta - 1) / a_cta;
    const int64_t value_ctas = (values->part_stride + a_cta - 1) / a_cta;
    return sac_nsa_cuda_launch(
        job, &spec, key_ctas + value_ctas,
        (void *[]){(void *)&join_keys, (void *)&join_values, (void *)&key_ctas, (void *)&keys->parts});
}

/* dw from the means, then their gradients in their place. */
static saccade_status launch_side(const sac_nsa_job *job, side s, const sac_nsa_key_grads *grads,
                                  float *part) {
    saccade_status status = launch_dw(job, &s, grads, part);
    s.compressed = grads->branch[SAC_NSA_CMP];
    if (status == SACCADE_OK) status = launch_weights(job, &s, true);
    if (status == SACCADE_OK) status = launch_sum(job, &s, grads);
    return status;
}

saccade_status sac_nsa_cuda_key_grads(const sac_nsa_job *job, const sac_nsa_key_grads *keys,
                                      const sac_nsa_key_grads *values, void *scratch) {
    sides s = sides_of(job, scratch);
    float *part = (float *)((char *)scratch + s.bytes);
    saccade_status status = launch_join(job, keys, values);
    s.keys.compressed.data = s.values.compressed.data =
        NULL; /* the means again, for dw, in the scratch alone */
    if (status == SACCADE_OK && (keys->dw || values->dw)) status = launch_means(job, &s.keys, &s.values);
    if (status == SACCADE_OK) status = launch_side(job, s.keys, keys, part);
    if (status == SACCADE_OK) status = launch_side(job, s.values, values, part);
    return status;
}
