/* forward.c - the forward pass: query tiles to threads, or, where there are fewer tiles than it takes to keep the
 * threads busy (decoding), parts of the keys of each tile, combined afterwards. */
#include "base/arena.h"
#include "cpu/cpu.h"
#include "cpu/key_walk.h"
#include "cpu/parallel.h"
#include "cpu/plan.h"

/* Parts have no fewer key tiles: a combination costs about as much as one. */
enum { MIN_PART = 4, DETERMINISTIC_THREADS = 16 };

/* How many threads' worth of pieces to make. What is asked to be deterministic does not depend on the machine. */
static int32_t threads_to_feed(const saccade_context *ctx, const sac_attention_args *args) {
    return args->deterministic ? DETERMINISTIC_THREADS : ctx->num_threads;
}

/* With fewer tiles than this their keys are shared out too. */
static int64_t wanted_pieces(const saccade_context *ctx, const sac_attention_args *args) {
    const int32_t threads = threads_to_feed(ctx, args);
    return threads > 1 ? 2 * (int64_t)threads : 0;
}

/* Fewer tiles than wanted, rounded up to twice as many. */
static int64_t max_parts(const saccade_context *ctx, const sac_attention_args *args) {
    return 2 * wanted_pieces(ctx, args);
}

/* Key tiles that the query tile visits. */
static int32_t num_key_tiles(const sac_attention_args *args, const sac_cpu_tile *tile) {
    sac_cpu_key_walk walk = sac_cpu_walk_keys(args, tile, (sac_range){0, SAC_FAR});
    int32_t count = 0;
    for (sac_tile keys; sac_cpu_next_keys(&walk, &keys);) count++;
    return count;
}

static int32_t parts_per_tile(const saccade_context *ctx, const sac_attention_args *args,
                              const sac_cpu_plan *plan) {
    const int64_t wanted = wanted_pieces(ctx, args);
    if (plan->num_bundles == 0 || plan->num_bundles >= wanted) return 1;
    int32_t longest = 0;
    for (int64_t i = 0; i < plan->num_bundles; i++) {
        const sac_cpu_bundle tile = sac_cpu_bundle_at(plan, args, i);
        longest = sac_max(longest, num_key_tiles(args, &tile.all));
    }
    const int64_t parts = (wanted + plan->num_bundles - 1) / plan->num_bundles;
    return sac_max(1, sac_min((int32_t)parts, longest / MIN_PART));
}

typedef struct forward_work {
    const sac_attention_call *call;
    sac_cpu_plan plan;
    int32_t parts; /* of the keys of each tile; several only where bundles are single tiles */
    float *states;
    char *scratch;
    size_t scratch_bytes;
} forward_work;

/* Lays out the workspace from `base` on (NULL: only measures) and returns its bytes. */
static size_t lay_out(const saccade_context *ctx, const sac_attention_call *call, void *base,
                      forward_work *work) {
    const sac_attention_args *args = &call->args;
    sac_arena a = {base, 0};
    int64_t *first_bundle = sac_take(&a, (size_t)args->batch + 1, sizeof(int64_t));
    *work = (forward_work){.call = call};
    work->plan = sac_cpu_plan_make(ctx, call, false, sac_cpu_pieces(ctx));
    work->scratch_bytes = work->plan.kernels->scratch_bytes(args, false, work->plan.together);
    work->states = sac_take(&a, sac_cpu_state_size(args) * (size_t)max_parts(ctx, args), sizeof(float));
    work->scratch = sac_take(&a, (size_t)ctx->num_threads, work->scratch_bytes);
    if (!base) return a.used;
    sac_cpu_plan_number(&work->plan, args, first_bundle);
    if (work->plan.num_bundles >= wanted_pieces(ctx, args)) return a.used;
    work->plan = sac_cpu_plan_make(ctx, call, false, SAC_CPU_SINGLE_TILES);
    sac_cpu_plan_number(&work->plan, args, first_bundle);
    return a.used;
}

size_t sac_cpu_forward_workspace(saccade_context *ctx, const sac_attention_call *call) {
    forward_work measured;
    return lay_out(ctx, call, NULL, &measured);
}

/* The part-th share of the key tiles that the query tile visits, as the keys from its first tile to the next
 * share's. */
static sac_range keys_of_part(const sac_attention_args *args, const sac_cpu_tile *tile, int32_t part,
                              int32_t parts) {
    const int64_t count = num_key_tiles(args, tile);
    const int64_t first = count * part / parts, end = count * (part + 1) / parts;
    sac_range keys = {SAC_FAR, SAC_FAR};
    sac_cpu_key_walk walk = sac_cpu_walk_keys(args, tile, (sac_range){0, SAC_FAR});
    sac_tile visited;
    for (int64_t i = 0; i <= end && sac_cpu_next_keys(&walk, &visited); i++) {
        if (i == first) keys.begin = visited.begin;
        if (i == end) keys.end = visited.begin;
    }
    return keys;
}

static char *scratch_of(const forward_work *work, int thread) {
    return work->scratch + work->scratch_bytes * (size_t)thread;
}

static void whole_tiles(void *data, int64_t index, int thread) {
    const forward_work *work = data;
    const sac_cpu_bundle rows = sac_cpu_bundle_at(&work->plan, &work->call->args, index);
    work->plan.kernels->forward(work->call, &rows, NULL, scratch_of(work, thread));
}

static float *state_of(const forward_work *work, int64_t piece) {
    return work->states + (size_t)piece * sac_cpu_state_size(&work->call->args);
}

static void part_of_tile(void *data, int64_t piece, int thread) {
    const forward_work *work = data;
    const sac_attention_args *args = &work->call->args;
    const sac_cpu_tile tile = sac_cpu_bundle_at(&work->plan, args, piece / work->parts).all;
    const sac_range keys = keys_of_part(args, &tile, (int32_t)(piece % work->parts), work->parts);
    work->plan.kernels->forward_part(work->call, &tile, keys, state_of(work, piece),
                                     scratch_of(work, thread));
}

static void combine_tile(void *data, int64_t index, int thread) {
    const forward_work *work = data;
    const sac_cpu_tile tile = sac_cpu_bundle_at(&work->plan, &work->call->args, index).all;
    work->plan.kernels->combine(work->call, &tile, state_of(work, index * work->parts), work->parts,
                                scratch_of(work, thread));
}

saccade_status sac_cpu_forward(saccade_context *ctx, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    forward_work work;
    lay_out(ctx, call, call->workspace, &work);
    work.parts = parts_per_tile(ctx, args, &work.plan);
    sac_cpu_clear_unused(call, &args->out, args->num_heads, args->head_dim_v, &args->len_q, call->total_q);
    sac_cpu_clear_unused_lse(call);
    if (work.parts == 1) {
        sac_parallel(ctx->num_threads, work.plan.num_bundles, whole_tiles, &work);
    } else {
        sac_parallel(ctx->num_threads, work.plan.num_bundles * work.parts, part_of_tile, &work);
        sac_parallel(ctx->num_threads, work.plan.num_bundles, combine_tile, &work);
    }
    return SACCADE_OK;
}
