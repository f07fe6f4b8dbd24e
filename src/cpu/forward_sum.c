/* forward_sum.c - several calls of the same queries, and the weighted sum of what they give.
 *
 * A piece of work is some rows of some heads, which go through all calls before the next piece does: their queries stay
 * in a thread's own cache, outputs are added up there, and only the sum is stored. Each call takes the piece in
 * bundles of its own plan.
 */
#include "base/arena.h"
#include "cpu/cpu.h"
#include "cpu/parallel.h"
#include "cpu/plan.h"
#include "shared/tile_walk.h"

/* Sums of a piece, so that they and the scratch of a bundle share the second cache. */
static const size_t max_sum_bytes = (size_t)1 << 19;

typedef struct sum_work {
    const sac_attention_sum *sum;
    sac_cpu_plan plan[SAC_MAX_SUMMED];
    sac_cpu_plan pieces;   /* bundles here are pieces */
    char *scratch;         /* of each thread: of its kernels, and */
    float *weights, *sums; /* (heads, queries, num_calls) and (heads, queries, padded head_dim_v) */
    size_t scratch_bytes, weight_floats, sum_floats;
} sum_work;

static const sac_attention_args *args_of(const sac_attention_sum *sum) { return &sum->calls[0].args; }

/* A row block that is shorter than a tile: bundles are such blocks, and a piece has several. */
static int32_t thin_block(const sac_cpu_plan *plan) {
    return plan->row_block < SAC_CPU_Q_TILE ? plan->row_block : 0;
}

/* Rows that a piece may have in all its heads. Room is made for a tile of each head of a group, whatever the lengths,
 * which a caller who asks for the size need not know. */
static int32_t rows_that_fit(const sac_attention_args *args) {
    return (int32_t)(max_sum_bytes / sizeof(float)) / sac_cpu_padded(args->head_dim_v);
}
static int32_t room_for_rows(const sac_attention_args *args) {
    return sac_max(rows_that_fit(args), args->group * SAC_CPU_Q_TILE);
}

/* Heads in which the bundles of all plans come out even; both numbers divide those of a group. */
static int32_t common_heads(int32_t a, int32_t b) {
    int32_t heads = a;
    while (heads % b != 0) heads += a;
    return heads;
}

/* The heads of all bundles, and the rows of the longest, or of as many thin blocks. */
static void shape_pieces(sum_work *work) {
    const sac_attention_sum *sum = work->sum;
    int32_t heads = 1, rows = 0, block = 0, thin = 0;
    for (int i = 0; i < sum->num_calls; i++) {
        const sac_cpu_plan *plan = &work->plan[i];
        heads = common_heads(heads, plan->bundle_heads);
        rows = sac_max(rows, plan->bundle_rows);
        block = sac_max(block, plan->row_block);
        thin = sac_max(thin, thin_block(plan));
    }
    const int32_t fit = rows_that_fit(args_of(sum)) / heads, step = thin ? thin : SAC_CPU_MAX_LANES;
    if (block && !thin) rows = sac_min(rows, block);
    if (thin || rows > fit) rows = sac_max(sac_min(rows, fit) / step, 1) * step;
    work->pieces = work->plan[0];
    work->pieces.bundle_heads = heads;
    work->pieces.bundle_rows = rows;
    work->pieces.row_block = thin ? 0 : block;
}

/* Lays out the workspace from `base` on (NULL: only measures) and returns its bytes. */
static size_t lay_out(const saccade_context *ctx, const sac_attention_sum *sum, void *base, sum_work *work) {
    const sac_attention_args *args = args_of(sum);
    const size_t threads = (size_t)ctx->num_threads, rows = (size_t)room_for_rows(args);
    sac_arena a = {base, 0};
    int together = 1;
    *work = (sum_work){.sum = sum};
    for (int i = 0; i < sum->num_calls; i++) {
        work->plan[i] = sac_cpu_plan_make(ctx, &sum->calls[i], false, sac_cpu_pieces(ctx));
        together = sac_max(together, work->plan[i].together);
    }
    shape_pieces(work);
    work->scratch_bytes = work->pieces.kernels->scratch_bytes(args, false, together);
    work->weight_floats = rows * (size_t)sum->num_calls;
    work->sum_floats = rows * (size_t)sac_cpu_padded(args->head_dim_v);
    int64_t *first_piece = sac_take(&a, (size_t)args->batch + 1, sizeof(int64_t));
    work->scratch = sac_take(&a, threads, work->scratch_bytes);
    work->weights = sac_take(&a, threads * work->weight_floats, sizeof(float));
    work->sums = sac_take(&a, threads * work->sum_floats, sizeof(float));
    if (base) sac_cpu_plan_number(&work->pieces, args, first_piece);
    return a.used;
}

size_t sac_cpu_sum_workspace(saccade_context *ctx, const sac_attention_sum *sum) {
    sum_work measured;
    return lay_out(ctx, sum, NULL, &measured);
}

/* One call of a piece, bundle by bundle. */
static void attend(const sac_cpu_plan *plan, const sac_attention_call *call, const sac_cpu_mix *mix,
                   void *scratch) {
    const sac_cpu_tile *piece = &mix->piece;
    const int32_t rows = piece->q.end - piece->q.begin;
    const int32_t count = sac_num_tiles(rows, plan->bundle_rows, thin_block(plan));
    for (int32_t h = 0; h < piece->num_heads; h += plan->bundle_heads)
        for (int32_t i = 0; i < count; i++) {
            const sac_range q = sac_tile_rows(i, rows, plan->bundle_rows, thin_block(plan));
            const sac_range moved = {piece->q.begin + q.begin, piece->q.begin + q.end};
            const sac_cpu_bundle bundle = sac_cpu_bundle_rows(plan, piece->b, piece->h + h, moved);
            plan->kernels->forward(call, &bundle, mix, scratch);
        }
}

static void store(const sum_work *work, const sac_cpu_mix *mix) {
    const sac_attention_args *args = args_of(work->sum);
    const sac_view *out = &work->sum->out;
    const sac_cpu_tile *p = &mix->piece;
    const int64_t size = args->dtype == SAC_F32 ? 4 : 2, first = sac_sequence_of(args, p->b).q_row;
    for (int32_t h = p->h; h < p->h + p->num_heads; h++)
        for (int32_t i = p->q.begin; i < p->q.end; i++) {
            const int64_t at =
                p->b * out->batch_stride + (first + i) * out->row_stride + h * out->head_stride;
            const float *sum = mix->sums + sac_cpu_mix_row(mix, h, i) * sac_cpu_padded(args->head_dim_v);
            work->pieces.kernels->narrow((char *)out->data + size * at, sum, args->dtype, args->head_dim_v);
        }
}

static void run_piece(void *data, int64_t index, int thread) {
    const sum_work *work = data;
    const sac_attention_sum *sum = work->sum;
    const sac_attention_args *args = args_of(sum);
    const sac_cpu_bundle piece = sac_cpu_bundle_at(&work->pieces, args, index);
    const sac_cpu_tile *p = &piece.all;
    float *weights = work->weights + (size_t)thread * work->weight_floats;
    void *scratch = work->scratch + (size_t)thread * work->scratch_bytes;
    sac_cpu_mix mix = {
        .piece = *p, .weight_stride = sum->num_calls, .sums = work->sums + (size_t)thread * work->sum_floats};
    for (int32_t h = p->h; h < p->h + p->num_heads; h++)
        sum->weights(sum->weights_data, p->b, sac_sequence_of(args, p->b).q_row + p->q.begin,
                     p->q.end - p->q.begin, h,
                     weights + sac_cpu_mix_row(&mix, h, p->q.begin) * sum->num_calls);
    for (int i = 0; i < sum->num_calls; i++) {
        mix.weight = weights + i;
        mix.adds = i > 0;
        attend(&work->plan[i], &sum->calls[i], &mix, scratch);
    }
    store(work, &mix);
}

saccade_status sac_cpu_forward_sum(saccade_context *ctx, const sac_attention_sum *sum) {
    const sac_attention_args *args = args_of(sum);
    sum_work work;
    lay_out(ctx, sum, sum->workspace, &work);
    sac_cpu_clear_unused(&sum->calls[0], &sum->out, args->num_heads, args->head_dim_v, &args->len_q,
                         sum->calls[0].total_q);
    for (int i = 0; i < sum->num_calls; i++) {
        const sac_attention_call *call = &sum->calls[i];
        sac_cpu_clear_unused(call, &call->args.out, args->num_heads, args->head_dim_v, &args->len_q,
                             call->total_q);
        sac_cpu_clear_unused_lse(call);
    }
    sac_parallel(ctx->num_threads, work.pieces.num_bundles, run_piece, &work);
    return SACCADE_OK;
}
