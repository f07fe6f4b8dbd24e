/* plan.c - query tiles by number, and the rows that belong to none. */
#include "cpu/plan.h"

#include <math.h>
#include <string.h>

#include "shared/tile_walk.h"

/* Merged blocks are walked one by one: shorter ones are better walked in runs, by a single list. */
enum { MIN_MERGED = 16 };

/* What tiles have of their own stays in the second cache while they are worked on together. */
static const size_t max_bytes_together = (size_t)1 << 19;

/* Neighbouring heads that visit the same keys. */
static int32_t heads_alike(const sac_attention_args *args) {
    const bool lists_differ = args->blocks.by_query.offsets && args->blocks.num_heads != 1;
    return lists_differ ? sac_min(args->group, args->blocks.heads_per_list) : args->group;
}

/* Such heads share a tile when one head's queries leave room for them: K and V are then read once for the group. */
static int32_t heads_per_tile(const sac_attention_args *args) {
    int32_t rows = args->len_q.seqlen, heads = heads_alike(args);
    if (args->blocks.by_query.offsets) rows = sac_min(rows, args->blocks.q_block);
    while (heads > 1 && (args->group % heads != 0 || (int64_t)heads * rows > SAC_CPU_Q_TILE)) heads--;
    return sac_max(heads, 1);
}

/* Rows that query tiles must not cross the multiples of; 0: none. Several query blocks go together where one leaves
 * most lanes of a vector empty, up to one vector: rows that choose different blocks then cost no more than alone. */
static int32_t row_block(const sac_attention_args *args, const sac_cpu_plan *plan) {
    const sac_block_mask_args *mask = &args->blocks;
    if (!mask->by_query.offsets) return 0;
    const int64_t rows =
        (int64_t)plan->heads_per_tile * mask->q_block; /* a block may be longer than any sequence */
    const int32_t lists = (int32_t)(plan->kernels->lanes / rows);
    const bool together = lists > 1 && mask->kv_block >= MIN_MERGED && !mask->by_query.bits && !mask->period;
    return together ? lists * mask->q_block : mask->q_block;
}

sac_cpu_plan sac_cpu_plan_make(const saccade_context *ctx, const sac_attention_call *call, bool backward,
                               int64_t *first_tile) {
    const sac_attention_args *args = &call->args;
    sac_cpu_plan plan = {.kernels = sac_cpu_kernels_of(sac_isa_choose(ctx->isa)),
                         .heads_per_tile = heads_per_tile(args),
                         .queries = {call->queries.begin, call->queries.end ? call->queries.end : SAC_FAR},
                         .first_tile = first_tile};
    plan.kv_tile = plan.kernels->kv_tile(args, backward);
    plan.head_tiles = args->num_heads / plan.heads_per_tile;
    plan.row_block = row_block(args, &plan);
    first_tile[0] = 0;
    for (int32_t b = 0; b < args->batch; b++)
        first_tile[b + 1] = first_tile[b] + (int64_t)sac_cpu_row_tiles(&plan, args, b) * plan.head_tiles;
    plan.num_tiles = first_tile[args->batch];
    return plan;
}

int sac_cpu_tiles_together(const saccade_context *ctx, const sac_attention_call *call, bool backward,
                           int64_t min_calls) {
    const sac_attention_args *args = &call->args;
    const sac_cpu_kernels *kernels = sac_cpu_kernels_of(sac_isa_choose(ctx->isa));
    const size_t tile_bytes =
        kernels->scratch_bytes(args, backward, 2) - kernels->scratch_bytes(args, backward, 1);
    const int32_t heads = heads_per_tile(args), tiles_alike = heads_alike(args) / heads;
    const int64_t rows = SAC_CPU_Q_TILE * heads,
                  num_tiles = (call->total_q * args->num_heads + rows - 1) / rows;
    int together = sac_min(tiles_alike, SAC_CPU_MAX_TOGETHER);
    while (together > 1 && (together * min_calls > num_tiles || tiles_alike % together != 0 ||
                            (size_t)together * tile_bytes > max_bytes_together))
        together--;
    return sac_max(together, 1); /* there may be no heads */
}

/* Of sequence b, those that the plan is for. */
static int32_t num_queries(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b) {
    return sac_max(0, sac_min(sac_length_of(&args->len_q, b), plan->queries.end) - plan->queries.begin);
}

int32_t sac_cpu_row_tiles(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b) {
    return sac_num_tiles(num_queries(plan, args, b), SAC_CPU_Q_TILE, plan->row_block);
}

sac_cpu_tile sac_cpu_tile_of(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b, int32_t h,
                             int32_t row_tile) {
    const sac_range rows =
        sac_tile_rows(row_tile, num_queries(plan, args, b), SAC_CPU_Q_TILE, plan->row_block);
    return (sac_cpu_tile){.b = b,
                          .h = h,
                          .num_heads = plan->heads_per_tile,
                          .q = {plan->queries.begin + rows.begin, plan->queries.begin + rows.end},
                          .kv_tile = plan->kv_tile};
}

sac_cpu_tile sac_cpu_tile_at(const sac_cpu_plan *plan, const sac_attention_args *args, int64_t index) {
    int32_t b = 0;
    for (int32_t end = args->batch; end - b > 1;) { /* first_tile[b] <= index < first_tile[end] */
        int32_t middle = b + (end - b) / 2;
        if (plan->first_tile[middle] <= index)
            b = middle;
        else
            end = middle;
    }
    /* Under a causal mask the last rows are the longest: started late, one of them would be the tail of all work. */
    const int64_t from_end = plan->first_tile[b + 1] - 1 - index;
    const int32_t h = (int32_t)((index - plan->first_tile[b]) % plan->head_tiles) * plan->heads_per_tile;
    return sac_cpu_tile_of(plan, args, b, h, (int32_t)(from_end / plan->head_tiles));
}

typedef struct row_range {
    int64_t begin, end;
} row_range;

/* Rows of the tensor that no tile writes: what sequence b leaves of its room, and in a pack, as one more, what follows
 * the last sequence (all rows where there is none). */
static row_range unused_rows(const sac_lengths *len, int32_t b, int32_t batch, int64_t total_rows) {
    if (!len->cu_seqlens) return (row_range){sac_length_of(len, b), len->seqlen};
    if (b == batch) return (row_range){len->cu_seqlens[batch], total_rows};
    return (row_range){(int64_t)len->cu_seqlens[b] + sac_length_of(len, b), len->cu_seqlens[b + 1]};
}

static int32_t num_unused_ranges(const sac_lengths *len, int32_t batch) {
    return batch + (len->cu_seqlens != NULL);
}

void sac_cpu_clear_unused(const sac_attention_call *call, const sac_view *view, int32_t num_heads,
                          int32_t head_dim, const sac_lengths *len, int64_t total_rows) {
    const int32_t batch = call->args.batch;
    const int64_t size = call->args.dtype == SAC_F32 ? 4 : 2;
    if (!view->data) return;
    for (int32_t b = 0; b < num_unused_ranges(len, batch); b++) {
        const row_range rows = unused_rows(len, b, batch, total_rows);
        for (int64_t row = rows.begin; row < rows.end; row++)
            for (int32_t h = 0; h < num_heads; h++)
                memset((char *)view->data +
                           size * (b * view->batch_stride + row * view->row_stride + h * view->head_stride),
                       0, (size_t)(head_dim * size));
    }
}

void sac_cpu_clear_unused_lse(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    const sac_row_view *lse = &args->lse;
    if (!lse->data) return;
    for (int32_t b = 0; b < num_unused_ranges(&args->len_q, args->batch); b++) {
        const row_range rows = unused_rows(&args->len_q, b, args->batch, call->total_q);
        for (int32_t h = 0; h < args->num_heads; h++)
            for (int64_t row = rows.begin; row < rows.end; row++)
                lse->data[b * lse->batch_stride + h * lse->head_stride + row * lse->row_stride] = -INFINITY;
    }
}
