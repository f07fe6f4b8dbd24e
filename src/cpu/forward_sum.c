/* forward_sum.c - several calls of the same queries, and the weighted sum of what they give.
 *
 * A piece of work is a bundle of rows that goes through all calls before the next: its queries are read from memory
 * once, its outputs are added up in a thread's own cache, and only their sum is stored.
 */
#include "base/arena.h"
#include "cpu/cpu.h"
#include "cpu/parallel.h"
#include "cpu/plan.h"
#include "shared/tile_walk.h"

typedef struct sum_work {
    const sac_attention_sum *sum;
    sac_cpu_plan pieces;
    sac_cpu_plan
        thin[SAC_MAX_SUMMED]; /* of calls whose row blocks are shorter than a tile; else no bundles */
    char *scratch;            /* of each thread: of its kernels, and */
    float *weights, *sums;    /* (heads, queries, num_calls) and (heads, queries, padded head_dim_v) */
    size_t scratch_bytes, weight_floats, sum_floats;
} sum_work;

static const sac_attention_args *args_of(const sac_attention_sum *sum) { return &sum->calls[0].args; }

static bool is_thin(const sac_cpu_plan *plan) { return plan->row_block && plan->row_block < SAC_CPU_Q_TILE; }

/* Pieces that hold whole bundles of a thin plan, and are themselves bundles of as many tiles as may go together: a
 * thin tile's heads are first told apart, then rows are added to fill the tiles. */
static void fit_pieces(sac_cpu_plan *pieces, const sac_cpu_plan *thin) {
    int32_t split = sac_max(1, pieces->together / thin->head_tiles);
    while (thin->heads_per_tile % split != 0) split--;
    pieces->heads_per_tile = thin->heads_per_tile / split;
    pieces->head_tiles = thin->head_tiles * split;
    pieces->row_tiles = pieces->heads_per_tile > 1 ? 1 : sac_max(1, pieces->together / pieces->head_tiles);
    pieces->bundle_heads = thin->bundle_heads;
    pieces->bundle_rows = pieces->row_tiles * SAC_CPU_Q_TILE / pieces->heads_per_tile;
    if (pieces->bundle_rows > thin->row_block) /* else a block is longer than any sequence */
        pieces->bundle_rows -= pieces->bundle_rows % thin->row_block;
    pieces->row_block = 0;
}

static void make_plans(const saccade_context *ctx, const sac_attention_sum *sum, sum_work *work) {
    const sac_cpu_plan *thin = NULL;
    for (int i = 0; i < sum->num_calls; i++) {
        const sac_cpu_plan plan = sac_cpu_plan_make(ctx, &sum->calls[i], false, sac_cpu_pieces(ctx));
        if (is_thin(&plan)) {
            work->thin[i] = plan;
            if (!thin || thin->row_block < plan.row_block) thin = &work->thin[i];
        }
        if (i == 0 || is_thin(&work->pieces) || (plan.row_block && !is_thin(&plan))) work->pieces = plan;
    }
    if (thin) fit_pieces(&work->pieces, thin);
}

/* Lays out the workspace from `base` on (NULL: only measures) and returns its bytes. */
static size_t lay_out(const saccade_context *ctx, const sac_attention_sum *sum, void *base, sum_work *work) {
    const sac_attention_args *args = args_of(sum);
    sac_arena a = {base, 0};
    *work = (sum_work){.sum = sum};
    make_plans(ctx, sum, work);
    const size_t rows = (size_t)work->pieces.together * SAC_CPU_Q_TILE, threads = (size_t)ctx->num_threads;
    work->scratch_bytes = work->pieces.kernels->scratch_bytes(args, false, work->pieces.together);
    work->weight_floats = rows * (size_t)sum->num_calls;
    work->sum_floats = rows * (size_t)sac_cpu_padded(args->head_dim_v);
    int64_t *first_bundle = sac_take(&a, (size_t)args->batch + 1, sizeof(int64_t));
    work->scratch = sac_take(&a, threads, work->scratch_bytes);
    work->weights = sac_take(&a, threads * work->weight_floats, sizeof(float));
    work->sums = sac_take(&a, threads * work->sum_floats, sizeof(float));
    if (base) sac_cpu_plan_number(&work->pieces, args, first_bundle);
    return a.used;
}

size_t sac_cpu_sum_workspace(saccade_context *ctx, const sac_attention_sum *sum) {
    sum_work measured;
    return lay_out(ctx, sum, NULL, &measured);
}

/* Bundle by bundle of a plan whose row blocks are shorter than the piece. */
static void attend_thin(const sac_cpu_plan *plan, const sac_attention_call *call, sac_cpu_mix *mix,
                        void *scratch) {
    const sac_cpu_tile *piece = &mix->piece;
    mix->q_is_loaded = false;
    const int32_t rows = piece->q.end - piece->q.begin;
    for (int32_t i = 0; i < sac_num_tiles(rows, plan->bundle_rows, plan->row_block); i++)
        for (int32_t h = 0; h < piece->num_heads; h += plan->bundle_heads) {
            const sac_range q = sac_tile_rows(i, rows, plan->bundle_rows, plan->row_block);
            sac_cpu_bundle bundle = {*piece, plan->head_tiles, 1};
            bundle.all.h += h;
            bundle.all.num_heads = plan->bundle_heads;
            bundle.all.q = (sac_range){piece->q.begin + q.begin, piece->q.begin + q.end};
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
    const sac_cpu_bundle rows = sac_cpu_bundle_at(&work->pieces, args, index);
    const sac_cpu_tile *p = &rows.all;
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
        const bool thin = work->thin[i].kernels;
        if (thin)
            attend_thin(&work->thin[i], &sum->calls[i], &mix, scratch);
        else
            work->pieces.kernels->forward(&sum->calls[i], &rows, &mix, scratch);
        mix.q_is_loaded = !thin;
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
