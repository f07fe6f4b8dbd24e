/* attn_fwd_sm90.c - tiles and launch of kernels/attn_fwd_sm90.cu. */
#include "cuda/attn_fwd_sm90.h"

#include <stdlib.h>

#include "base/context.h"
#include "base/error.h"
#include "cuda/attn_bwd_sm90.h"
#include "cuda/attn_portable.h"
#include "cuda/attn_sm90.h"
#include "cuda/device_mask.h"
#include "cuda/kernels/attn_fwd_sm90.h"
#include "cuda/mask_tiles.h"
#include "cuda/modifier_text.h"
#include "shared/tile_walk.h"

/* A row serves head dims up to its own. Registers a thread: producer + consumers * consumer is at most 512, and 504
 * with two consumers, which is what the CTA is launched with. Last column: what stops the next larger tile. */
typedef struct tile_row {
    int32_t head_dim, head_dim_v;
    int32_t consumers; /* warpgroups of 64 query rows */
    int32_t kv_tile;
    int32_t q_slots; /* of 64 rows of q, as many for each consumer */
    int32_t kv_stages;
    int32_t p_buffers; /* 2: exponentials run beside the product with the values of the tile before */
    int32_t producer_regs, consumer_regs;
} tile_row;

static const tile_row tiles[] = {
    {64, 64, 3, 128, 3, 4, 1, 32, 160},  /* registers: scores, probabilities and out are 128 of 160 */
    {96, 96, 3, 96, 3, 3, 1, 56, 152},   /* registers: 112 keys are slower */
    {128, 128, 3, 80, 3, 4, 1, 56, 152}, /* registers: 96 keys spill */
    {192, 128, 3, 80, 3, 3, 1, 56, 152}, /* registers */
    {256, 256, 2, 80, 2, 2, 1, 40, 232}, /* shared memory: 224 of 227 KiB */
};

/* Modifying scores beside the product with the values takes registers, and so does storing a sum of calls whose lengths
 * are ragged. The producer misses them where it reads lengths or cuts keys, once a query tile. */
static const tile_row modified_tiles[] = {
    {64, 64, 3, 128, 3, 4, 1, 32, 160},  {96, 96, 3, 96, 3, 3, 1, 32, 160},
    {128, 128, 3, 80, 3, 4, 1, 32, 160}, {192, 128, 3, 80, 3, 3, 1, 32, 160},
    {256, 256, 2, 80, 2, 2, 1, 40, 232}, /* shared memory */
};

/* For block masks, whose rows are mostly 128 or 256 queries, and for a score_mod and a mask_mod at once, which need
 * more registers. */
static const tile_row roomy_tiles[] = {
    {64, 64, 2, 128, 4, 4, 2, 56, 224},
    {96, 96, 2, 128, 2, 2, 2, 56, 224},
    {128, 128, 2, 128, 2, 2, 2, 56, 224},
    {192, 128, 2, 128, 2, 2, 2, 56, 224}, /* shared memory: 208 of 227 KiB */
    {256, 256, 2, 80, 2, 2, 1, 40, 232},  /* shared memory */
};

/* For block masks of so few keys a block that a wider tile would stay partly empty, unless blocks adjoin. */
enum { FEW_KEYS = 64 };
static const tile_row narrow_tiles[] = {
    {64, 64, 2, FEW_KEYS, 4, 7, 2, 56, 224},   {96, 96, 2, FEW_KEYS, 2, 6, 2, 56, 224},
    {128, 128, 2, FEW_KEYS, 2, 6, 2, 56, 224}, {192, 128, 2, FEW_KEYS, 2, 4, 2, 56, 224},
    {256, 256, 2, FEW_KEYS, 2, 2, 1, 40, 232},
};

/* For lists with bits: 64 rows share one, and where two CTAs of a warpgroup fit, they hide each other's waits. */
static const tile_row packed_tiles[] = {
    {64, 64, 1, FEW_KEYS, 2, 4, 2, 72, 184},   {96, 96, 1, FEW_KEYS, 1, 3, 2, 56, 200},
    {128, 128, 1, FEW_KEYS, 1, 3, 2, 56, 200}, {192, 128, 1, FEW_KEYS, 1, 2, 2, 72, 184},
    {256, 256, 1, FEW_KEYS, 1, 2, 1, 72, 232},
};

static int32_t q_tile_of(const tile_row *t) { return 64 * t->consumers; }

static int32_t ctas_per_sm(const tile_row *t) {
    return sac_sm90_ctas_per_sm(t->producer_regs + t->consumers * t->consumer_regs);
}

/* A softcap bounds the scores, and so the probabilities 2^score before any is known: by 2^MOST_LOG2 and from below, for
 * which bf16 has room. Then no row needs a reference. Not up to head dim 64, where the loop then spills 104 bytes. */
#define MOST_LOG2 96.0f
static bool is_bounded(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    const bool bounded = args->softcap > 0 && args->softcap * 1.442695f <= MOST_LOG2;
    return bounded && args->dtype == SAC_BF16 && args->head_dim > 64 && !args->alibi_slopes &&
           !call->score_mod && !args->blocks.by_query.offsets;
}

static const tile_row *tiles_for(const sac_attention_call *call, int32_t joined) {
    const sac_block_mask_args *blocks = &call->args.blocks;
    if (blocks->by_query.bits) return packed_tiles;
    if (blocks->by_query.offsets && blocks->kv_block <= FEW_KEYS) return narrow_tiles;
    if (blocks->by_query.offsets || (call->score_mod && call->mask_mod)) return roomy_tiles;
    const bool roomy_store = joined && sac_sm90_ragged(&call->args);
    return sac_sm90_prescales(call) || roomy_store ? modified_tiles : tiles;
}

static const tile_row *choose_tile(const sac_attention_call *call, int32_t joined) {
    const sac_attention_args *args = &call->args;
    const tile_row *t = tiles_for(call, joined);
    while (args->head_dim > t->head_dim || args->head_dim_v > t->head_dim_v) t++;
    return t;
}

/* Slots of q for 64 rows each, stages of k and v, and 1 KiB for barriers and records. */
static int32_t smem_bytes(const tile_row *t, const sac_attention_args *args) {
    const int32_t columns = sac_ceil_div(args->head_dim, 64) * 64,
                  columns_v = sac_ceil_div(args->head_dim_v, 64) * 64;
    return 2 * (t->q_slots * 64 * columns + t->kv_stages * t->kv_tile * (columns + columns_v)) + 1024;
}

saccade_status sac_attn_fwd_sm90_spec(const sac_attention_call *call, int32_t joined, bool split,
                                      sac_kernel_spec *spec, char **modifiers) {
    const sac_attention_args *args = &call->args;
    const tile_row *t = choose_tile(call, joined);
    *spec = (sac_kernel_spec){.source = "cuda/kernels/attn_fwd_sm90.cu",
                              .entry = "attn_fwd_sm90",
                              .arch_specific = true,
                              .threads = 128 * (1 + t->consumers),
                              .smem_bytes = smem_bytes(t, args)};
    sac_sm90_define(spec, call);
    sac_kernel_define(spec, "CONSUMERS", t->consumers);
    sac_kernel_define(spec, "KV_TILE", t->kv_tile);
    sac_kernel_define(spec, "Q_SLOTS", t->q_slots);
    sac_kernel_define(spec, "KV_STAGES", t->kv_stages);
    sac_kernel_define(spec, "P_BUFFERS", t->p_buffers);
    sac_kernel_define(spec, "CTAS_PER_SM", ctas_per_sm(t));
    sac_kernel_define(spec, "PRODUCER_REGS", t->producer_regs);
    sac_kernel_define(spec, "CONSUMER_REGS", t->consumer_regs);
    sac_kernel_define(spec, "BOUNDED", is_bounded(call));
    sac_kernel_define(spec, "SPLIT", split);
    sac_kernel_define(spec, "JOINED", joined);
    sac_kernel_define(spec, "CLASSIFIED", sac_mask_tiles_serve(call));
    saccade_status status = sac_cuda_modifier_text(call, modifiers);
    spec->modifiers = *modifiers;
    return status;
}

static saccade_status make_maps(sac_attn_fwd_sm90_params *params, const sac_attention_call *call,
                                const tile_row *t) {
    const sac_attention_args *args = &call->args;
    const sac_tensor_extent q = sac_sm90_q_extent(args, call->total_q, args->head_dim);
    const sac_tensor_extent k =
        sac_sm90_extent(args, &args->len_k, call->total_k, args->head_dim, args->num_kv_heads, t->kv_tile);
    const sac_tensor_extent v =
        sac_sm90_extent(args, &args->len_k, call->total_k, args->head_dim_v, args->num_kv_heads, t->kv_tile);
    saccade_status status = sac_tensor_map_make(&params->q, &args->q, &q);
    if (status == SACCADE_OK) status = sac_tensor_map_make(&params->k, &args->k, &k);
    return status == SACCADE_OK ? sac_tensor_map_make(&params->v, &args->v, &v) : status;
}

/* Tiles of equal length leave the last round of CTAs partly idle, and few tiles of any length most of them. Cutting
 * the tiles of that round in parts by their keys fills it. Each part costs a pass over its accumulators, counted as
 * PART_COST of a round, and workspace; each has at least MIN_PART key tiles, of a tile that sees the most. */
enum { MAX_PARTS = 8, MIN_PART = 4 };
#define PART_COST 0.02f
#define WORTH_IT 0.85f /* of a round */

/* The most keys that a query tile sees. */
static int32_t keys_of_tile(const sac_attention_args *args, const tile_row *t) {
    const sac_band_rule *band = &args->band;
    if (band->window_left < 0 || (band->window_right < 0 && !band->causal)) return args->len_k.seqlen;
    const int64_t window = (int64_t)q_tile_of(t) + band->window_left + sac_max(band->window_right, 0);
    return window < args->len_k.seqlen ? (int32_t)window : args->len_k.seqlen;
}

static sac_tail_split tail_of(const sac_attention_call *call, const tile_row *t,
                              const sac_cuda_device *device) {
    const sac_attention_args *args = &call->args;
    const sac_tile_order order = sac_sm90_query_order(args, q_tile_of(t), device);
    const sac_band_rule *band = &args->band;
    const bool banded = band->causal || band->compress || band->window_left >= 0 || band->window_right >= 0;
    sac_tail_split tail = {order.total % device->num_sms, 1, NULL, NULL};
    const bool unequal = banded && order.num_tiles > 1 && order.total >= device->num_sms;
    if (args->blocks.by_query.offsets || sac_sm90_ragged(args) || unequal) tail.tiles = 0;
    const int32_t most = sac_min(MAX_PARTS, keys_of_tile(args, t) / (t->kv_tile * MIN_PART));
    float best = WORTH_IT;
    for (int32_t parts = 2; parts <= most; parts++) {
        const float rounds = (float)sac_ceil_div(tail.tiles * parts, device->num_sms) / (float)parts;
        if (rounds + PART_COST * (float)parts >= best) continue;
        best = rounds + PART_COST * (float)parts;
        tail.parts = parts;
    }
    if (tail.parts == 1) tail.tiles = 0;
    return tail;
}

/* Under a window each warpgroup sees as many keys as the one before, from 64 further on. Where the key tiles of a
 * query tile begin, before its first key, decides how many of them each multiplies. Classified tiles begin at that
 * key. */
static int32_t lead_of(const sac_attention_call *call, const tile_row *t) {
    const sac_attention_args *args = &call->args;
    const sac_band band = sac_band_make(&args->band, args->len_q.seqlen, args->len_k.seqlen);
    const bool window = band.hi_slope == 1 && band.lo_off > -SAC_FAR && band.hi_off < SAC_FAR;
    if (!window || args->blocks.by_query.offsets || sac_mask_tiles_serve(call)) return 0;
    const int32_t keys = band.hi_off - band.lo_off + 63;
    int32_t best = 0, fewest = SAC_FAR;
    for (int32_t lead = 0; lead < t->kv_tile; lead += 16) {
        int32_t multiplied = 0;
        for (int32_t first = lead; first < lead + q_tile_of(t); first += 64)
            multiplied += (first + keys - 1) / t->kv_tile - first / t->kv_tile + 1;
        if (multiplied >= fewest) continue;
        fewest = multiplied;
        best = lead;
    }
    return best;
}

static const sac_attention_call *last_of(const sac_attention_sum *sum) {
    return &sum->calls[sum->num_calls - 1];
}

/* The last call stores the sum in its output's place. */
static void join(sac_attn_fwd_sm90_params *params, const sac_attention_sum *sum) {
    for (int i = 0; i < sum->num_calls - 1; i++) params->join.others[i] = sum->calls[i].args.out;
    params->join.own = params->args.out;
    params->join.weights = sum->weighted_by;
    params->args.out = sum->out;
}

static sac_mask_tiles tiles_of(const sac_attention_args *args, const tile_row *t) {
    return sac_mask_tiles_of(args, q_tile_of(t), t->kv_tile);
}

/* Places the counters, the parts of cut tiles and the kinds of classified ones in the workspace, which may be NULL; its
 * bytes. */
static size_t plan(const sac_attention_call *call, const tile_row *t, sac_attn_fwd_sm90_params *params) {
    const size_t merges = (size_t)params->tail.tiles * (size_t)t->consumers;
    const size_t part_bytes = sizeof(float) * 128 * (size_t)SAC_PARTIAL_VALUES(call->args.head_dim_v);
    const size_t kinds = sac_mask_tiles_serve(call) ? sac_mask_tiles_bytes(&call->args, &params->tiles) : 0;
    size_t used = 0;
    params->counter = sac_carve(call->workspace, &used, sizeof *params->counter);
    params->tail.arrived = sac_carve(call->workspace, &used, merges * sizeof *params->tail.arrived);
    params->tail.partial =
        sac_carve(call->workspace, &used, merges * (size_t)params->tail.parts * part_bytes);
    params->tiles.kinds = sac_carve(call->workspace, &used, kinds);
    return used;
}

static size_t workspace(saccade_context *ctx, const sac_attention_call *call, int32_t joined) {
    const sac_cuda_device *device = sac_cuda_facts_of(ctx, call->device)->device;
    const tile_row *t = choose_tile(call, joined);
    sac_attn_fwd_sm90_params params = {.tail = tail_of(call, t, device), .tiles = tiles_of(&call->args, t)};
    return plan(call, t, &params);
}

size_t sac_attn_fwd_sm90_workspace(saccade_context *ctx, const sac_attention_call *call) {
    return workspace(ctx, call, 0);
}

int64_t sac_attn_fwd_sm90_most_tiles(const saccade_request *request) {
    const int64_t rows_a_tile = request->block_mask ? 1 : 64; /* a tile never crosses a block of queries */
    return (request->batch + 1) * request->num_heads * (request->seqlen_q / rows_a_tile + 1);
}

/* sum NULL: of one call by itself; else `call` is the last of it. */
static saccade_status launch(saccade_context *ctx, const sac_cuda_device *device,
                             const sac_attention_call *call, const sac_attention_sum *sum) {
    const int32_t joined = sum ? sum->num_calls : 0;
    const tile_row *t = choose_tile(call, joined);
    sac_attn_fwd_sm90_params params = {.args = call->args,
                                       .order = sac_sm90_query_order(&call->args, q_tile_of(t), device),
                                       .tail = tail_of(call, t, device),
                                       .lead = lead_of(call, t),
                                       .tiles = tiles_of(&call->args, t),
                                       .total_q = call->total_q};
    plan(call, t, &params);
    if (sum) join(&params, sum);

    sac_kernel_spec spec;
    char *modifiers;
    saccade_status status = sac_attn_fwd_sm90_spec(call, joined, params.tail.tiles > 0, &spec, &modifiers);
    if (status == SACCADE_OK && modifiers) sac_attn_bwd_sm90_prefetch(ctx, device, call, modifiers);
    if (status == SACCADE_OK) status = sac_device_mask(ctx, device, call, &params.args);
    if (status == SACCADE_OK && sac_mask_tiles_serve(call))
        status = sac_mask_tiles_find(ctx, device, call, &params.tiles);
    if (status == SACCADE_OK) status = make_maps(&params, call, t);
    const int32_t units = params.order.total + params.tail.tiles * (params.tail.parts - 1);
    const int32_t ctas = sac_min(device->num_sms * ctas_per_sm(t), units);
    if (status == SACCADE_OK) status = sac_kernel_launch(ctx, device, &spec, ctas, (void *[]){&params});
    free(modifiers);
    return status;
}

static saccade_status enter_and_launch(saccade_context *ctx, const sac_attention_call *call,
                                       const sac_attention_sum *sum) {
    const sac_cuda_device *device;
    saccade_status status = sac_cuda_enter(ctx, call->device.device_id, &device);
    if (status != SACCADE_OK) return status;
    status = launch(ctx, device, call, sum);
    sac_cuda_leave();
    return status;
}

saccade_status sac_attn_fwd_sm90(saccade_context *ctx, const sac_attention_call *call) {
    return enter_and_launch(ctx, call, NULL);
}

/* ---- sums ---- */

/* With wider rows the store would spill the sums that it stores. Weights are read in pairs. */
enum { MOST_JOINED_DIM = 128 };

bool sac_attn_fwd_sm90_sums(const sac_attention_sum *sum) {
    const sac_attention_args *last = &last_of(sum)->args;
    const bool in_pairs = (uintptr_t)sum->weighted_by.of_query % 4 == 0;
    return sum->num_calls > 1 && sum->num_calls <= SAC_SM90_MOST_OTHERS + 1 && in_pairs &&
           last->head_dim_v <= MOST_JOINED_DIM && !last->blocks.by_query.bits;
}

size_t sac_attn_fwd_sm90_sum_workspace(saccade_context *ctx, const sac_attention_sum *sum) {
    size_t most = workspace(ctx, last_of(sum), sum->num_calls);
    for (int i = 0; i < sum->num_calls - 1; i++) {
        const size_t bytes = workspace(ctx, &sum->calls[i], 0);
        if (bytes > most) most = bytes;
    }
    return most;
}

saccade_status sac_attn_fwd_sm90_sum(saccade_context *ctx, const sac_attention_sum *sum) {
    for (int i = sum->num_made; i < sum->num_calls - 1; i++) SAC_TRY(sac_attn_fwd_sm90(ctx, &sum->calls[i]));
    return enter_and_launch(ctx, last_of(sum), sum);
}
