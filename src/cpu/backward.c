/* backward.c - the backward pass.
 *
 * A unit of work is a share of the query tiles of one key head: it runs them one after the other and adds what they
 * give to dk and dv to sums of its own, in fp32. There are just enough shares that all threads have work; the shares'
 * sums are then added in order. So nothing is atomic, and the result depends on the number of shares only.
 */
#include <string.h>

#include "base/arena.h"
#include "cpu/cpu.h"
#include "cpu/parallel.h"
#include "cpu/plan.h"

enum { MAX_SHARES = 64, BUNDLES_PER_SHARE = 8, DETERMINISTIC_THREADS = 8, REDUCED_ROWS = 64 };

/* Memory that may be spent on more shares, and on more copies of the aux gradients. */
static const size_t max_sum_bytes = (size_t)1 << 30, max_aux_bytes = (size_t)1 << 26;

typedef struct backward_work {
    const sac_attention_call *call;
    sac_cpu_plan plan;
    int32_t shares;
    int64_t units;
    int64_t strands; /* units that are the same modulo it run one after the other and share aux gradients */
    float *dk, *dv;  /* (shares, num_kv_heads, total_k, padded head_dim); (.., head_dim_v) */
    float *dsink;    /* (units, group): of the unit's own query heads */
    float *aux;      /* (strands, aux_size) */
    size_t aux_size;
    char *scratch;
    size_t scratch_bytes;
} backward_work;

static size_t sum_floats(const sac_attention_call *call, int32_t dim) {
    return (size_t)call->args.num_kv_heads * (size_t)call->total_k * (size_t)sac_cpu_padded(dim);
}

static int64_t num_key_heads(const sac_attention_args *args) {
    return (int64_t)args->batch * args->num_kv_heads;
}

/* Shares per key head: until every thread has as much to do, or so many units that it does not matter. What is asked
 * to be deterministic does not depend on the machine. */
static int32_t num_shares(const saccade_context *ctx, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    const int64_t threads = args->deterministic ? DETERMINISTIC_THREADS : ctx->num_threads;
    const int64_t heads = num_key_heads(args);
    const int64_t tiles = (int64_t)sac_ceil_div(args->len_q.seqlen, SAC_CPU_Q_TILE) * args->group;
    const size_t bytes =
        sizeof(float) * (sum_floats(call, args->head_dim) + sum_floats(call, args->head_dim_v));
    int32_t shares = 1;
    while (heads > 0 && heads * shares < 4 * threads && heads * shares % threads != 0 &&
           shares < MAX_SHARES && shares < tiles && bytes * (size_t)(shares + 1) <= max_sum_bytes)
        shares++;
    return shares;
}

/* Elements of the aux tensors: of all, or of those whose gradients are wanted. */
static size_t aux_floats(const sac_attention_call *call, bool wanted_only) {
    size_t size = 0;
    for (int i = 0; call->score_mod && i < SACCADE_MAX_AUX; i++) {
        const saccade_aux_slot *slot = &call->args.score_aux.tensor[i];
        if (slot->grad || !wanted_only) size += (size_t)slot->count;
    }
    return size;
}

/* Room for a copy of the aux gradients per unit, as long as that is not much; at least one copy. */
static size_t aux_room(const sac_attention_call *call, int64_t units) {
    const size_t one = sizeof(float) * aux_floats(call, false), all = one * (size_t)units;
    return all <= max_aux_bytes ? all : one > max_aux_bytes ? one : max_aux_bytes;
}

/* Lays out the workspace from `base` on (NULL: only measures) and returns its bytes. */
static size_t lay_out(const saccade_context *ctx, const sac_attention_call *call, void *base,
                      backward_work *work) {
    const sac_attention_args *args = &call->args;
    sac_arena a = {base, 0};
    *work = (backward_work){.call = call, .shares = num_shares(ctx, call)};
    work->units = num_key_heads(args) * work->shares;
    work->plan = sac_cpu_plan_make(ctx, call, true, work->shares > 1 ? BUNDLES_PER_SHARE * work->units : 1);
    /* The shares may be fewer than when the size was asked for without knowing the lengths, and bundles larger. */
    const int most_tiles = sac_cpu_plan_make(ctx, call, true, 1).together;
    work->scratch_bytes = work->plan.kernels->scratch_bytes(args, true, most_tiles);
    work->scratch = sac_take(&a, (size_t)ctx->num_threads, work->scratch_bytes);
    work->dk = sac_take(&a, sum_floats(call, args->head_dim) * (size_t)work->shares, sizeof(float));
    work->dv = sac_take(&a, sum_floats(call, args->head_dim_v) * (size_t)work->shares, sizeof(float));
    work->dsink = sac_take(&a, (size_t)work->units * (size_t)args->group, sizeof(float));
    work->aux = sac_take(&a, aux_room(call, work->units), 1);
    work->aux_size = aux_floats(call, true);
    work->strands = work->units;
    if (work->aux_size) {
        const size_t copies = aux_room(call, work->units) / (sizeof(float) * work->aux_size);
        if ((size_t)work->strands > copies) work->strands = (int64_t)copies;
    }
    return a.used;
}

size_t sac_cpu_backward_workspace(saccade_context *ctx, const sac_attention_call *call) {
    backward_work measured;
    return lay_out(ctx, call, NULL, &measured);
}

/* Row j of sequence b in one share's sums for a key head. */
static float *sum_row(const backward_work *work, float *sums, int32_t dim, int32_t share, int32_t b,
                      int32_t kv_head, int64_t j) {
    const sac_attention_args *args = &work->call->args;
    const int64_t first =
        args->len_k.cu_seqlens ? args->len_k.cu_seqlens[b] : (int64_t)b * args->len_k.seqlen;
    const int64_t row = ((int64_t)share * args->num_kv_heads + kv_head) * work->call->total_k + first + j;
    return sums + row * sac_cpu_padded(dim);
}

/* The aux of the score_mod with the strand's own gradients. */
static saccade_aux strand_aux(const backward_work *work, int64_t strand) {
    saccade_aux aux = work->call->args.score_aux;
    float *grad = work->aux + (size_t)strand * work->aux_size;
    for (int i = 0; i < SACCADE_MAX_AUX; i++) {
        if (!aux.tensor[i].grad) continue;
        aux.tensor[i].grad = grad;
        grad += aux.tensor[i].count;
    }
    return aux;
}

static void run_unit(const backward_work *work, int64_t unit, const saccade_aux *aux, void *scratch) {
    const sac_attention_args *args = &work->call->args;
    const int32_t share = (int32_t)(unit % work->shares),
                  kv_head = (int32_t)(unit / work->shares % args->num_kv_heads);
    const int32_t b = (int32_t)(unit / work->shares / args->num_kv_heads);
    const sac_sequence seq = sac_sequence_of(args, b);
    const sac_cpu_sums sums = {
        .dk = sum_row(work, work->dk, args->head_dim, share, b, kv_head, 0),
        .dv = sum_row(work, work->dv, args->head_dim_v, share, b, kv_head, 0),
        .dsink = args->dsink ? work->dsink + unit * args->group : NULL,
        .aux = aux,
    };
    memset(sums.dk, 0, sizeof(float) * (size_t)seq.k_len * (size_t)sac_cpu_padded(args->head_dim));
    memset(sums.dv, 0, sizeof(float) * (size_t)seq.k_len * (size_t)sac_cpu_padded(args->head_dim_v));
    if (sums.dsink) memset(sums.dsink, 0, sizeof(float) * (size_t)args->group);

    const int32_t head_bundles = args->group / work->plan.bundle_heads;
    const int64_t bundles = (int64_t)sac_cpu_row_bundles(&work->plan, args, b) * head_bundles;
    for (int64_t i = share; i < bundles; i += work->shares) {
        const int32_t h = kv_head * args->group + (int32_t)(i % head_bundles) * work->plan.bundle_heads;
        const sac_cpu_bundle rows = sac_cpu_bundle_of(&work->plan, args, b, h, (int32_t)(i / head_bundles));
        work->plan.kernels->backward(work->call, &rows, &sums, scratch);
    }
}

static void run_strand(void *data, int64_t strand, int thread) {
    const backward_work *work = data;
    const saccade_aux aux = strand_aux(work, strand);
    if (work->aux_size)
        memset(work->aux + (size_t)strand * work->aux_size, 0, sizeof(float) * work->aux_size);
    for (int64_t unit = strand; unit < work->units; unit += work->strands)
        run_unit(work, unit, &aux, work->scratch + work->scratch_bytes * (size_t)thread);
}

static int64_t row_blocks(const sac_attention_args *args) {
    return sac_ceil_div(args->len_k.seqlen, REDUCED_ROWS);
}

static void reduce_row(const backward_work *work, const sac_view *view, float *sums, float factor,
                       int32_t dim, int32_t b, int32_t kv_head, int64_t j) {
    const sac_attention_args *args = &work->call->args;
    const int64_t size = args->dtype == SAC_F32 ? 4 : 2, row = sac_sequence_of(args, b).k_row + j;
    if (!view->data) return;
    void *target = (char *)view->data +
                   size * (b * view->batch_stride + row * view->row_stride + kv_head * view->head_stride);
    work->plan.kernels->reduce(target, sum_row(work, sums, dim, 0, b, kv_head, j),
                               sum_floats(work->call, dim), work->shares, factor, args->dtype, dim);
}

/* A block of rows of one key head: dk, dv = the sums of all shares. */
static void reduce_rows(void *data, int64_t index, int thread) {
    const backward_work *work = data;
    const sac_attention_args *args = &work->call->args;
    const int64_t blocks = row_blocks(args), head = index / blocks, begin = index % blocks * REDUCED_ROWS;
    const int32_t b = (int32_t)(head / args->num_kv_heads), kv_head = (int32_t)(head % args->num_kv_heads);
    const int64_t len = sac_length_of(&args->len_k, b);
    (void)thread;
    for (int64_t j = begin; j < begin + REDUCED_ROWS && j < len; j++) {
        reduce_row(work, &args->dk, work->dk, args->scale, args->head_dim, b, kv_head, j);
        reduce_row(work, &args->dv, work->dv, 1, args->head_dim_v, b, kv_head, j);
    }
}

static void reduce_dsink(const backward_work *work) {
    const sac_attention_args *args = &work->call->args;
    for (int32_t h = 0; args->dsink && h < args->num_heads; h++) {
        double sum = 0;
        for (int32_t b = 0; b < args->batch; b++)
            for (int32_t share = 0; share < work->shares; share++) {
                const int64_t unit =
                    ((int64_t)b * args->num_kv_heads + h / args->group) * work->shares + share;
                sum += work->dsink[unit * args->group + h % args->group];
            }
        args->dsink[h] = (float)sum;
    }
}

static void reduce_aux(const backward_work *work) {
    size_t offset = 0;
    for (int i = 0; i < SACCADE_MAX_AUX; i++) {
        const saccade_aux_slot *slot = &work->call->args.score_aux.tensor[i];
        if (!slot->grad) continue;
        const size_t size = (size_t)slot->count;
        for (size_t e = 0; e < size; e++) {
            float sum = 0;
            for (int64_t strand = 0; strand < work->strands; strand++)
                sum += work->aux[(size_t)strand * work->aux_size + offset + e];
            slot->grad[e] = sum;
        }
        offset += size;
    }
}

saccade_status sac_cpu_backward(saccade_context *ctx, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    backward_work work;
    lay_out(ctx, call, call->workspace, &work);
    sac_cpu_clear_unused(call, &args->dq, args->num_heads, args->head_dim, &args->len_q, call->total_q);
    sac_cpu_clear_unused(call, &args->dk, args->num_kv_heads, args->head_dim, &args->len_k, call->total_k);
    sac_cpu_clear_unused(call, &args->dv, args->num_kv_heads, args->head_dim_v, &args->len_k, call->total_k);
    sac_parallel(ctx->num_threads, work.strands, run_strand, &work);
    sac_parallel(ctx->num_threads, num_key_heads(args) * row_blocks(args), reduce_rows, &work);
    reduce_dsink(&work);
    reduce_aux(&work);
    return SACCADE_OK;
}
