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

/* Tiles in a bundle at most, so that there are enough bundles, none too large for the cache. */
static int32_t most_together(const sac_cpu_plan *plan, const sac_attention_call *call, bool backward,
                             int64_t min_bundles) {
    const sac_attention_args *args = &call->args;
    const size_t tile_bytes =
        plan->kernels->scratch_bytes(args, backward, 2) - plan->kernels->scratch_bytes(args, backward, 1);
    const int64_t num_tiles = (call->total_q * args->num_heads + SAC_CPU_Q_TILE - 1) / SAC_CPU_Q_TILE;
    int32_t together = SAC_CPU_MAX_TOGETHER;
    while (together > 1 &&
           (num_tiles / together < min_bundles || (size_t)together * tile_bytes > max_bytes_together))
        together--;
    return together;
}

/* Queries in a bundle at most. A row block that takes several bundles is shared out evenly among them. */
static int32_t bundle_rows(const sac_cpu_plan *plan) {
    const int32_t most = plan->row_tiles * plan->tile_rows;
    if (!plan->row_block || plan->row_tiles == 1) return most;
    const int32_t bundles = sac_ceil_div(plan->row_block, most);
    const int32_t vectors = sac_ceil_div(sac_ceil_div(plan->row_block, bundles), SAC_CPU_MAX_LANES);
    return sac_min(most, vectors * SAC_CPU_MAX_LANES);
}

/* In a window a tile of fewer rows and more heads sees fewer keys that not all of its rows see. */
static bool is_window(const sac_attention_args *args) {
    const sac_band_rule *band = &args->band;
    return !args->blocks.by_query.offsets && band->window_left >= 0;
}

/* The largest that is no more than `most`; there may be no heads. */
static int32_t divisor(int32_t heads, int32_t most) {
    int32_t part = sac_max(1, sac_min(heads, most));
    while (heads % part != 0) part--;
    return part;
}

static void bundle_tiles(sac_cpu_plan *plan, const sac_attention_args *args) {
    plan->head_tiles = divisor(heads_alike(args) / plan->heads_per_tile, plan->together);
    plan->row_tiles = plan->together / plan->head_tiles;
    if (plan->row_block)
        plan->row_tiles = sac_min(plan->row_tiles, sac_ceil_div(plan->row_block, plan->tile_rows));
    plan->bundle_heads = plan->head_tiles * plan->heads_per_tile;
    plan->bundle_rows = bundle_rows(plan);
}

sac_cpu_plan sac_cpu_plan_make(const saccade_context *ctx, const sac_attention_call *call, bool backward,
                               int64_t min_bundles) {
    const sac_attention_args *args = &call->args;
    sac_cpu_plan plan = {.kernels = sac_cpu_kernels_of(sac_isa_choose(ctx->isa)),
                         .heads_per_tile = heads_per_tile(args)};
    plan.kv_tile = plan.kernels->kv_tile(args, backward);
    plan.row_block = row_block(args, &plan);
    plan.together = most_together(&plan, call, backward, min_bundles);
    if (!backward && is_window(args))
        plan.heads_per_tile = sac_max(plan.heads_per_tile, divisor(heads_alike(args), plan.together));
    plan.tile_rows = SAC_CPU_Q_TILE / plan.heads_per_tile;
    bundle_tiles(&plan, args);
    return plan;
}

void sac_cpu_plan_number(sac_cpu_plan *plan, const sac_attention_args *args, int64_t *first_bundle) {
    plan->head_bundles = args->num_heads / plan->bundle_heads;
    plan->first_bundle = first_bundle;
    first_bundle[0] = 0;
    for (int32_t b = 0; b < args->batch; b++)
        first_bundle[b + 1] =
            first_bundle[b] + (int64_t)sac_cpu_row_bundles(plan, args, b) * plan->head_bundles;
    plan->num_bundles = first_bundle[args->batch];
}

int32_t sac_cpu_row_bundles(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b) {
    return sac_num_tiles(sac_length_of(&args->len_q, b), plan->bundle_rows, plan->row_block);
}

sac_cpu_bundle sac_cpu_bundle_rows(const sac_cpu_plan *plan, int32_t b, int32_t h, sac_range q) {
    return (sac_cpu_bundle){
        .all = {.b = b, .h = h, .num_heads = plan->bundle_heads, .q = q, .kv_tile = plan->kv_tile},
        .head_tiles = plan->head_tiles,
        .row_tiles = sac_ceil_div(q.end - q.begin, plan->tile_rows)};
}

sac_cpu_bundle sac_cpu_bundle_of(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b,
                                 int32_t h, int32_t index) {
    const sac_range q =
        sac_tile_rows(index, sac_length_of(&args->len_q, b), plan->bundle_rows, plan->row_block);
    return sac_cpu_bundle_rows(plan, b, h, q);
}

sac_cpu_bundle sac_cpu_bundle_at(const sac_cpu_plan *plan, const sac_attention_args *args, int64_t index) {
    int32_t b = 0;
    for (int32_t end = args->batch; end - b > 1;) { /* first_bundle[b] <= index < first_bundle[end] */
        int32_t middle = b + (end - b) / 2;
        if (plan->first_bundle[middle] <= index)
            b = middle;
        else
            end = middle;
    }
    /* Under a causal mask the last rows are the longest: started late, one of them would be the tail of all work. */
    const int64_t from_end = plan->first_bundle[b + 1] - 1 - index;
    const int32_t h = (int32_t)((index - plan->first_bundle[b]) % plan->head_bundles) * plan->bundle_heads;
    return sac_cpu_bundle_of(plan, args, b, h, (int32_t)(from_end / plan->head_bundles));
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
