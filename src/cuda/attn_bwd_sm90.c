/* attn_bwd_sm90.c - the backward pass on Hopper: tiles by head_dim, and the order of its kernels. delta and dsink are
 * the portable kernels'; then dK, dV and the sums of dQ, and those sums to dq; or, where dQ is not summed over
 * keys, dQ by the kernel that walks them, which also makes delta where that must come from scores. */
#include "cuda/attn_bwd_sm90.h"

#include <math.h>
#include <stdlib.h>

#include "base/context.h"
#include "base/error.h"
#include "cuda/attn_bwd_diagonal_sm90.h"
#include "cuda/attn_bwd_dq_convert_sm90.h"
#include "cuda/attn_bwd_dq_sm90.h"
#include "cuda/attn_portable.h"
#include "cuda/attn_sm90.h"
#include "cuda/device_mask.h"
#include "cuda/kernel_prefetch.h"
#include "cuda/kernels/attn_bwd_sm90.h"
#include "cuda/modifier_text.h"
#include "shared/tile_walk.h"

enum { CONSUMERS = 2, MOST_KEYS = 64 * CONSUMERS, DS_BUFFERS = 3, P_BUFFERS = 2 };

/* A row serves head dims up to its own. Registers a thread: producer + 2 consumers are at most 504. Last column: what
 * stops the next larger tile. */
typedef struct tile_row {
    int32_t head_dim, head_dim_v;
    int32_t kv_tile, q_tile, q_stages; /* 64 keys: the warpgroups take turns with queries, or, above head_dim
                                        * 128, split their roles; 112: attn_bwd_by_query_sm90.cu */
    bool sums_dq;                      /* where dq is wanted and may be summed by atomics */
    bool stages_dq;                    /* and by way of shared memory */
    int32_t producer_regs, consumer_regs, second_regs;
} tile_row;

static const tile_row tiles[] = {
    {64, 64, 64, 64, 4, true, false, 24, 240, 240},    /* blocks: no wider */
    {128, 128, 64, 64, 4, true, false, 24, 240, 240},  /* blocks: no wider */
    {64, 64, 128, 128, 2, true, false, 24, 240, 240},  /* registers: 64 of S and of dP, 96 of dQ, dK and dV */
    {128, 128, 128, 64, 2, true, true, 24, 240, 240},  /* registers: 128 of dK and dV */
    {192, 128, 112, 64, 2, true, false, 24, 224, 256}, /* registers: 168 of dK, 56 of dP */
    {192, 128, 128, 48, 2, false, false, 24, 240, 240}, /* registers: 160 of dK and dV */
    {256, 256, 64, 64, 2, false, false, 24, 240, 240},  /* shared memory: 209 of 227 KiB */
};

static bool is_by_query(const tile_row *t) { return t->kv_tile == 112; }
static bool splits_queries(const tile_row *t) { return t->kv_tile == 64 && t->head_dim <= 128; }
static bool splits_roles(const tile_row *t) { return t->kv_tile == 64 && !splits_queries(t); }

/* No tile crosses a block of keys, and half of a wide one would be empty in each block, or in its last. */
static bool has_narrow_blocks(const sac_attention_args *args) {
    if (args->blocks.by_query.bits) return true; /* pieces of queries are gathered by that tile alone */
    return args->blocks.by_query.offsets && sac_ceil_div(args->blocks.kv_block, 64) % 2 == 1;
}

/* sum_dq: wanted of the kernel, if its tile can. */
static const tile_row *choose_tile(const sac_attention_call *call, bool sum_dq) {
    const sac_attention_args *args = &call->args;
    const bool by_query = sum_dq && !args->softcap && !call->score_mod, narrow = has_narrow_blocks(args);
    const tile_row *t = tiles;
    while (args->head_dim > t->head_dim || args->head_dim_v > t->head_dim_v ||
           (is_by_query(t) && !by_query) || (splits_queries(t) && !narrow))
        t++;
    return t;
}

/* Queries that chose narrow blocks (which no mask_mod explains), or see compressed keys, come from everywhere: sums
 * that the L2 does not hold are added at less than half its speed. dQ by a kernel of its own costs less then, though
 * that multiplies two products again; not where it would walk unions of what its queries chose. */
static bool has_scattered_queries(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    if (args->blocks.by_query.bits || call->mask_mod || call->score_mod) return false;
    return has_narrow_blocks(args) || (args->band.compress && !args->blocks.by_query.offsets);
}

/* Deterministic sums are made in order, which takes key tiles that follow each other wherever they see a query tile. */
bool sac_attn_bwd_sm90_sums_dq(const sac_attention_call *call) {
    const tile_row *t = choose_tile(call, true);
    const bool can_order = t->kv_tile == MOST_KEYS && !call->args.blocks.by_query.offsets;
    return t->sums_dq && !has_scattered_queries(call) && (can_order || !call->args.deterministic);
}

static bool is_ordered(const sac_attention_call *call) {
    return call->args.deterministic && sac_attn_bwd_sm90_sums_dq(call);
}

/* A turn to add ends when registers have been added; what the copy engine adds would have to be waited for. */
static bool stages_dq(const tile_row *t, const sac_attention_call *call) {
    return t->stages_dq && !is_ordered(call);
}

static bool keeps_product(const sac_attention_call *call) {
    return call->score_mod || (call->args.softcap > 0 && call->args.alibi_slopes);
}

/* Words of P that cross between the warpgroups: a tile of P; of the scores themselves twice as many. */
static int32_t crossing_bytes(const tile_row *t, const sac_attention_call *call) {
    if (is_by_query(t)) return 2 * t->q_tile * MOST_KEYS;
    return splits_roles(t) ? P_BUFFERS * t->q_tile * t->kv_tile * (keeps_product(call) ? 4 : 2) : 0;
}

int64_t sac_attn_bwd_sm90_most_tiles(const saccade_request *request) {
    const int64_t rows_a_tile = request->block_mask ? 1 : 64; /* a tile never crosses a block of keys */
    return request->batch * request->num_kv_heads * (request->seqlen_k / rows_a_tile + 1);
}

/* dS, of which dQ is made; and, where it crosses, three quarters of dQ itself. */
static int32_t dq_bytes(const tile_row *t, const sac_attention_call *call) {
    const int32_t buffers = is_by_query(t) ? 2 : splits_queries(t) ? t->q_stages : DS_BUFFERS;
    return 2 * buffers * t->q_tile * (splits_queries(t) ? t->kv_tile : MOST_KEYS) +
           (stages_dq(t, call) ? 3 * t->q_tile * t->head_dim : 0);
}

/* lse and delta of a query; in pieces where the kernel folds them into its products. */
static int32_t row_bytes(const tile_row *t, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    const bool five_panels = t->kv_tile == MOST_KEYS && args->head_dim + args->head_dim_v > 256;
    const bool loads = is_by_query(t) || args->blocks.by_query.bits || five_panels;
    return loads || (splits_roles(t) && keeps_product(call)) ? 8 : 32;
}

/* k, v; q and dout with their rows of lse and delta, and whose they are, as often as there are stages; dS and dQ; P;
 * what the band says of each key; and 1 KiB for the rest. */
static int32_t smem_bytes(const tile_row *t, const sac_attention_call *call, bool sum_dq) {
    const sac_attention_args *args = &call->args;
    const int32_t columns = 64 * (sac_ceil_div(args->head_dim, 64) + sac_ceil_div(args->head_dim_v, 64));
    return 2 * (t->kv_tile + t->q_stages * t->q_tile) * columns +
           row_bytes(t, call) * t->q_stages * sac_ceil_div(t->q_tile, 32) * 32 +
           (args->blocks.by_query.bits ? 4 * t->q_stages * t->q_tile : 0) + (sum_dq ? dq_bytes(t, call) : 0) +
           crossing_bytes(t, call) + 8 * t->kv_tile + 1024;
}

/* The queries that a key tile walks at most, where that is known without looking at the lengths. */
static int64_t longest_walk(const sac_attention_args *args) {
    const sac_band_rule *band = &args->band;
    const int64_t right = band->causal ? 0 : band->window_right;
    const bool windowed = band->window_left >= 0 && right >= 0;
    const int64_t seen = windowed ? band->window_left + right + 1 : args->len_q.seqlen;
    return args->group * (seen < args->len_q.seqlen ? seen : args->len_q.seqlen);
}

/* CTAs that stay take one key tile after the other: the next keys and their first queries come while dK and dV of the
 * last ones leave. That pays where walks are short, by a window or in packed sequences; long ones are slower by it. Not
 * where sums are made in the order of launches; and block masks have tiles that nobody sees. */
static bool stays(const tile_row *t, const sac_attention_call *call, bool sum_dq) {
    enum { LONGEST_WALK = 2048 };
    const sac_attention_args *args = &call->args;
    const bool may_be_short = sac_sm90_ragged(args) || args->band.window_left >= 0;
    return t->kv_tile == MOST_KEYS && sum_dq && !is_ordered(call) && !args->blocks.by_query.offsets &&
           may_be_short && longest_walk(args) <= LONGEST_WALK;
}

sac_kernel_spec sac_attn_bwd_sm90_spec(const sac_attention_call *call, bool sum_dq) {
    const sac_attention_args *args = &call->args;
    const tile_row *t = choose_tile(call, sum_dq);
    sum_dq = sum_dq && t->sums_dq;
    sac_kernel_spec spec = {.source = is_by_query(t) ? "cuda/kernels/attn_bwd_by_query_sm90.cu"
                                                     : "cuda/kernels/attn_bwd_sm90.cu",
                            .entry = is_by_query(t) ? "attn_bwd_by_query_sm90" : "attn_bwd_sm90",
                            .arch_specific = true,
                            .threads = 128 * (1 + CONSUMERS),
                            .smem_bytes = smem_bytes(t, call, sum_dq)};
    sac_sm90_define(&spec, call);
    sac_kernel_define(&spec, "KV_TILE", t->kv_tile);
    sac_kernel_define(&spec, "Q_TILE", t->q_tile);
    sac_kernel_define(&spec, "Q_STAGES", t->q_stages);
    sac_kernel_define(&spec, "DQ_COLUMNS",
                      t->q_tile == 64 * CONSUMERS ? sac_ceil_div(args->head_dim, 16) * 16 : 64);
    const int32_t given = args->blocks.by_query.bits ? 16 : 0; /* by each consumer: gathering takes more */
    sac_kernel_define(&spec, "PRODUCER_REGS", t->producer_regs + CONSUMERS * given);
    sac_kernel_define(&spec, "CONSUMER_REGS", t->consumer_regs - given);
    sac_kernel_define(&spec, "SECOND_REGS", t->second_regs - given);
    sac_kernel_define(&spec, "SUM_DQ", sum_dq);
    sac_kernel_define(&spec, "ORDERED", sum_dq && is_ordered(call));
    sac_kernel_define(&spec, "STAGES_DQ", sum_dq && stages_dq(t, call));
    sac_kernel_define(&spec, "STAYS", stays(t, call, sum_dq));
    sac_kernel_define(&spec, "SMEM_BYTES", spec.smem_bytes);
    return spec;
}

/* A call on its way through the kernels. */
typedef struct backward_job {
    sac_portable_job portable;
    const sac_attention_call *call;
    sac_attn_bwd_sm90_params params;
} backward_job;

/* As few parts as make whole groups of rows. */
static sac_query_pieces pieces_of(const sac_attention_args *args, const tile_row *t) {
    const sac_block_mask_args *blocks = &args->blocks;
    if (!blocks->by_query.bits) return (sac_query_pieces){.heads = 1};
    const int32_t all = blocks->q_block / blocks->part, part_rows = blocks->part * blocks->heads_per_list;
    sac_query_pieces p = {.heads = blocks->heads_per_list, .parts = 1};
    while (p.parts < all && (all % p.parts || p.parts * part_rows % SAC_GATHERED_ROWS)) p.parts++;
    p.queries = p.parts * blocks->part;
    p.rows = p.parts * part_rows;
    p.row_groups = sac_ceil_div(p.rows, SAC_GATHERED_ROWS);
    p.a_sequence = sac_ceil_div(args->len_q.seqlen, p.queries);
    p.a_tile = p.rows % SAC_GATHERED_ROWS ? 1 : t->q_tile / p.rows;
    p.rows_inverse = SAC_PACK_INVERSE(p.rows);
    p.heads_inverse = SAC_PACK_INVERSE(p.heads);
    p.part_inverse = SAC_PACK_INVERSE(blocks->part);
    return p;
}

static size_t sum_bytes(int64_t rows, int32_t head_dim) {
    return (size_t)rows * (size_t)sac_ceil_div(head_dim, SAC_SUM_COLUMNS) * SAC_SUM_COLUMNS * sizeof(float);
}

/* Rows of the sums of one head: its sequences, each from a multiple of 16 on. */
static int64_t head_rows_of(const sac_lengths *len, int64_t total, int32_t batch) {
    return len->cu_seqlens ? (total + (int64_t)SAC_SUM_ROWS * batch) / SAC_SUM_ROWS * SAC_SUM_ROWS
                           : sac_sum_row(len, batch);
}

/* Rows of the sums of dQ of one head, or of one list: whole warps of them, which convert 16 each. */
static int64_t sum_rows_of(const sac_attention_call *call, const sac_query_pieces *pieces) {
    const sac_attention_args *args = &call->args;
    const bool packed = args->len_q.cu_seqlens;
    if (args->blocks.by_query.bits) {
        const int64_t count = packed ? call->total_q / pieces->queries + args->batch
                                     : (int64_t)args->batch * pieces->a_sequence;
        const int64_t rows = count * pieces->row_groups * SAC_GATHERED_ROWS;
        return (rows + SAC_SUM_ROWS - 1) / SAC_SUM_ROWS * SAC_SUM_ROWS;
    }
    return head_rows_of(&args->len_q, call->total_q, args->batch);
}

/* Queries that chose blocks one by one come from everywhere, and each is read, and its dQ added to, once a chosen
 * block: at half the speed where the L2 does not hold it. So all keys of a head walk one stretch of its queries
 * before the next, and the stretches' dK and dV are added up. A stretch is as long as the L2 has room for its rows of
 * q, dout and the sums of dQ. It costs a pass over the sums of dK and dV: twice as many stretches as query heads share
 * these are the most that pay. */
enum { FEWEST_HEADS = 4 };

static int32_t stretches_of(const sac_attention_call *call, const sac_cuda_device *device) {
    const sac_attention_args *args = &call->args;
    if (!args->blocks.by_query.bits || args->group < FEWEST_HEADS) return 1;
    if (args->blocks.kv_block % SAC_SUM_ROWS) return 1; /* each block begins with a group of them */
    if (call->grad_parts > 1 || !sac_attn_bwd_sm90_sums_dq(call)) return 1;
    const int64_t row_bytes = 2 * (args->head_dim + args->head_dim_v) + 4 * args->head_dim;
    const int64_t bytes = (int64_t)args->len_q.seqlen * args->group * row_bytes;
    const int64_t wanted = bytes / device->l2_bytes + 1;
    const int32_t most = 2 * args->group;
    return wanted < most ? (int32_t)wanted : most;
}

static void plan_key_sums(const sac_attention_call *call, size_t *used, sac_attn_bwd_sm90_params *params) {
    const sac_attention_args *args = &call->args;
    params->key_sum_rows = head_rows_of(&args->len_k, call->total_k, args->batch);
    const int64_t rows = args->num_kv_heads * params->key_sum_rows;
    params->dk_sum = sac_carve(call->workspace, used, sum_bytes(rows, args->head_dim));
    params->dv_sum = sac_carve(call->workspace, used, sum_bytes(rows, args->head_dim_v));
}

/* Those that are walked tile by tile. */
static int32_t walked_keys(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    return sac_attn_bwd_has_diagonals(call) ? sac_attn_bwd_diagonals_from(call) * args->blocks.kv_block
                                            : args->len_k.seqlen;
}

/* Sections of about as many heads as have what their CTAs share, queries and the sums of dQ, in the L2; but under a
 * causal mask a section needs more tiles than there are CTAs, or its last long tiles run alone. Block masks count as
 * causal: nearly all are, and their short tiles, an Eagle3's diagonals, then fill the end of a section. Sums in order
 * take sections under any mask: the fewer tiles of a head are at work, the less they wait for each other. */
static sac_tile_order key_order(const sac_attention_call *call, int32_t kv_tile,
                                const sac_cuda_device *device) {
    const sac_attention_args *args = &call->args;
    const int32_t kv_block = args->blocks.by_query.offsets ? args->blocks.kv_block : 0;
    const int32_t num_heads = args->batch * args->num_kv_heads;
    const int32_t num_tiles = sac_num_tiles(walked_keys(call), kv_tile, kv_block);
    sac_tile_order order = {num_tiles, num_heads, 1, num_tiles * num_heads};
    if ((!args->band.causal && !args->band.compress && !kv_block && !is_ordered(call)) || num_heads == 0)
        return order;
    const int64_t row_bytes = 2 * (args->head_dim + args->head_dim_v) + 4 * args->head_dim;
    const int64_t sections =
        (int64_t)args->batch * args->num_heads * args->len_q.seqlen * row_bytes / device->l2_bytes;
    const int32_t num_sections = sections < num_heads ? sac_max((int32_t)sections, 1) : num_heads;
    order.section_heads = sac_ceil_div(num_heads, num_sections);
    return order;
}

/* Key tiles of equal length leave the last round of CTAs partly idle; and where there are fewer tiles than CTAs, or
 * than twice as many under a causal mask, whose first tile is twice as long as the average one, most of them. Such
 * tiles are cut by their queries. A part costs a pass over its dK and dV, counted as PART_COST of a round, and
 * workspace; it has at least MIN_PART tiles of the queries of each head. */
enum { MAX_PARTS = 8, MIN_PART = 2 };
#define PART_COST 0.02f
#define WORTH_IT 0.85f

static sac_tail_split tail_of(const sac_attention_call *call, const tile_row *t,
                              const sac_cuda_device *device) {
    const sac_attention_args *args = &call->args;
    const sac_band_rule *band = &args->band;
    const int32_t total = key_order(call, t->kv_tile, device).total;
    const bool banded = band->causal || band->compress || band->window_left >= 0 || band->window_right >= 0;
    const bool cut = t->kv_tile == MOST_KEYS && !args->blocks.by_query.offsets && !sac_sm90_ragged(args) &&
                     call->grad_parts <= 1;
    sac_tail_split tail = {banded ? total : total % device->num_sms, 1, NULL, NULL};
    const int32_t most = cut ? sac_min(MAX_PARTS, args->len_q.seqlen / (t->q_tile * MIN_PART)) : 1;
    float best = 0;
    for (int32_t parts = 1; parts <= most; parts++) {
        const float filled = (float)tail.tiles * (float)parts / (float)device->num_sms;
        const float rounds = (banded ? fmaxf(filled, 2) : ceilf(filled)) / (float)parts;
        if (parts > 1 && rounds + PART_COST * (float)parts >= best) continue;
        best = parts == 1 ? WORTH_IT * rounds : rounds + PART_COST * (float)parts;
        tail.parts = parts;
    }
    if (tail.parts == 1) tail.tiles = 0;
    return tail;
}

static size_t dq_sum_bytes(const sac_attention_call *call, const sac_attn_bwd_sm90_params *params) {
    return sum_bytes(call->args.num_heads / params->pieces.heads * params->sum_rows, call->args.head_dim);
}

/* Behind the sums of dQ, where they are made in order: they are cleared together. */
static size_t turn_bytes(const sac_attention_call *call, const sac_attn_bwd_sm90_params *params) {
    const size_t words = (size_t)call->args.num_heads * (size_t)params->turns_a_head;
    return is_ordered(call) ? words * sizeof *params->dq_turns : 0;
}

/* Places delta and the sums in the workspace, which may be NULL; its bytes. */
static size_t plan(const sac_attention_call *call, const sac_cuda_device *device, sac_portable_plan *rows,
                   sac_attn_bwd_sm90_params *params) {
    const sac_attention_args *args = &call->args;
    const int32_t stretches = stretches_of(call, device);
    const bool sums_dq = sac_attn_bwd_sm90_sums_dq(call);
    size_t used = sac_portable_plan_rows(call, call->workspace, rows);
    params->pieces = pieces_of(args, choose_tile(call, true));
    params->sum_rows = sum_rows_of(call, &params->pieces);
    params->delta = rows->delta;
    params->counter = sac_carve(call->workspace, &used, sizeof *params->counter);
    params->total_q = call->total_q;
    params->num_parts = sac_max(stretches, call->grad_parts);
    params->part_blocks = sac_ceil_div(args->blocks.num_q_blocks, params->num_parts);
    /* The parts of a cut tail are merged: whoever comes last stores them where the one part of the call lies. */
    params->dk_part_stride = call->grad_parts > 1 ? call->dk_part_stride : 0;
    params->dv_part_stride = call->grad_parts > 1 ? call->dv_part_stride : 0;
    params->tail = tail_of(call, choose_tile(call, sums_dq), device);
    const size_t merges = (size_t)params->tail.tiles * CONSUMERS;
    const size_t part_bytes = sizeof(float) * 128 * (size_t)(args->head_dim + args->head_dim_v) / 2;
    params->tail.partial =
        sac_carve(call->workspace, &used, merges * (size_t)params->tail.parts * part_bytes);
    size_t zeros = used;
    params->tasks_taken = sac_carve(call->workspace, &used, sizeof *params->tasks_taken);
    params->tail.arrived = sac_carve(call->workspace, &used, merges * sizeof *params->tail.arrived);
    params->dk_sum = params->dv_sum = NULL;
    if (stretches > 1) plan_key_sums(call, &used, params);
    /* Asked for also where pointers are not known yet; wanting less later is no harm. */
    const size_t before = used, sum_size = dq_sum_bytes(call, params);
    params->turns_a_head = (int32_t)(params->sum_rows / choose_tile(call, true)->q_tile) + args->batch;
    float *sums = sac_carve(call->workspace, &used, sums_dq ? sum_size + turn_bytes(call, params) : 0);
    params->dq_sum = sums_dq && args->dq.data && sac_portable_walks_queries(args) ? sums : NULL;
    params->dq_turns = params->dq_sum ? (uint32_t *)(sums + sum_size / sizeof *sums) : NULL;
    const size_t end = params->dq_sum ? used : before;
    sac_portable_plan_zeros(rows, sac_carve(call->workspace, &zeros, 0), end - zeros);
    return used;
}

size_t sac_attn_bwd_sm90_workspace(saccade_context *ctx, const sac_attention_call *call) {
    sac_attention_call unplaced = *call;
    sac_attn_bwd_sm90_params params;
    sac_portable_plan rows;
    unplaced.workspace = NULL;
    return plan(&unplaced, sac_cuda_facts_of(ctx, call->device)->device, &rows, &params);
}

static saccade_status make_maps(backward_job *job, const tile_row *t) {
    const sac_attention_call *call = job->call;
    const sac_attention_args *args = &call->args;
    sac_attn_bwd_sm90_params *params = &job->params;
    const int64_t total_q = call->total_q, total_k = call->total_k;
    sac_tensor_extent q =
        sac_sm90_extent(args, &args->len_q, total_q, args->head_dim, args->num_heads, t->q_tile);
    sac_tensor_extent dout =
        sac_sm90_extent(args, &args->len_q, total_q, args->head_dim_v, args->num_heads, t->q_tile);
    if (args->blocks.by_query.bits) {
        q.box_rows = dout.box_rows = params->pieces.queries;
        q.box_heads = dout.box_heads = params->pieces.heads;
    }
    const sac_tensor_extent k =
        sac_sm90_extent(args, &args->len_k, total_k, args->head_dim, args->num_kv_heads, t->kv_tile);
    const sac_tensor_extent v =
        sac_sm90_extent(args, &args->len_k, total_k, args->head_dim_v, args->num_kv_heads, t->kv_tile);
    saccade_status status = sac_tensor_map_make(&params->q, &args->q, &q);
    if (status == SACCADE_OK) status = sac_tensor_map_make(&params->dout, &args->dout, &dout);
    if (status == SACCADE_OK) status = sac_tensor_map_make(&params->k, &args->k, &k);
    return status == SACCADE_OK ? sac_tensor_map_make(&params->v, &args->v, &v) : status;
}

/* Enough CTAs for a few rounds, the longest of which then no longer decides; but each part costs a pass over its dK and
 * dV, and a CTA should have some tiles of queries to walk. */
enum { CTAS_AN_SM = 8, MOST_PARTS = 32, FEWEST_QUERIES = 256 };

int32_t sac_attn_bwd_sm90_parts(saccade_context *ctx, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    const sac_cuda_device *device = sac_cuda_facts_of(ctx, call->device)->device;
    const int32_t kv_tile = choose_tile(call, !args->deterministic)->kv_tile;
    const int64_t ctas = key_order(call, kv_tile, device).total;
    const int64_t wanted = ctas ? (int64_t)CTAS_AN_SM * device->num_sms / ctas : 1;
    const int32_t most = sac_min(MOST_PARTS, args->len_q.seqlen / FEWEST_QUERIES);
    return sac_max(1, wanted < most ? (int32_t)wanted : most);
}

/* PACK: a head's stretches one after the other, as if they were heads. */
static sac_tile_order stretch_order(const sac_tile_order *order, int32_t stretches) {
    return (sac_tile_order){order->num_tiles, order->num_heads * stretches, 1, order->total * stretches};
}

static saccade_status launch_keys(backward_job *job) {
    sac_portable_job *portable = &job->portable;
    sac_attn_bwd_sm90_params *params = &job->params;
    const sac_attention_args *args = &portable->args;
    const tile_row *t = choose_tile(job->call, params->dq_sum != NULL);
    SAC_TRY(make_maps(job, t));
    params->order = key_order(job->call, t->kv_tile, portable->device);
    const sac_tail_split *tail = &params->tail;
    const int64_t num_tasks =
        (int64_t)(params->order.total - tail->tiles) * params->num_parts + (int64_t)tail->tiles * tail->parts;
    const int64_t num_sms = portable->device->num_sms;
    if (num_tasks > INT32_MAX - num_sms)
        return sac_fail(SACCADE_UNSUPPORTED, "%lld tiles of keys are too many for one launch",
                        (long long)num_tasks);
    params->num_tasks = (int32_t)num_tasks;
    const int64_t num_ctas =
        stays(t, job->call, params->dq_sum != NULL) && num_tasks > num_sms ? num_sms : num_tasks;
    if (args->blocks.by_query.bits && params->num_parts > 1)
        params->order = stretch_order(&params->order, params->num_parts);
    sac_kernel_spec spec = sac_attn_bwd_sm90_spec(job->call, params->dq_sum != NULL);
    spec.modifiers = portable->modifiers;
    return portable->launch(portable->ctx, portable->device, &spec, num_ctas, (void *[]){params});
}

/* attn_bwd_dq_sm90.cu: dq, or only delta. */
static saccade_status launch_queries(backward_job *job, bool only_delta) {
    sac_portable_job *portable = &job->portable;
    return sac_attn_bwd_dq_sm90(portable->ctx, portable->device, job->call, &job->params, portable->modifiers,
                                only_delta);
}

bool sac_attn_bwd_sm90_takes_delta(const sac_attention_call *call) {
    return !call->args.dsink && !sac_portable_delta_from_scores(&call->args);
}

/* And zeros for what is summed. */
static saccade_status launch_delta(backward_job *job) {
    if (job->call->delta) return sac_portable_clear_zeros(&job->portable);
    const bool from_scores = sac_portable_delta_from_scores(&job->portable.args);
    saccade_status status = from_scores ? launch_queries(job, true) : SACCADE_OK;
    return status == SACCADE_OK ? sac_portable_finish_delta(&job->portable, from_scores) : status;
}

static saccade_status launch(backward_job *job) {
    sac_portable_job *portable = &job->portable;
    const sac_attention_args *args = &portable->args;
    saccade_status status = sac_portable_clear_daux(portable);
    if (status == SACCADE_OK) status = launch_delta(job);
    if (status == SACCADE_OK && sac_portable_walks_queries(args)) status = launch_keys(job);
    if (status == SACCADE_OK && sac_portable_walks_queries(args) && sac_attn_bwd_has_diagonals(job->call))
        status = sac_attn_bwd_diagonal_sm90(portable, job->call, &job->params);
    if (status == SACCADE_OK) status = sac_attn_bwd_key_sums_convert_sm90(portable, &job->params);
    if (status == SACCADE_OK && args->dq.data)
        status = job->params.dq_sum ? sac_attn_bwd_dq_convert_sm90(portable, &job->params)
                                    : launch_queries(job, false);
    return status == SACCADE_OK ? sac_portable_fill_grads(portable) : status;
}

saccade_status sac_attn_bwd_sm90(saccade_context *ctx, const sac_attention_call *call) {
    backward_job job = {.portable = {.ctx = ctx, .launch = sac_kernel_launch, .args = call->args},
                        .call = call};
    sac_portable_job *portable = &job.portable;
    saccade_status status = sac_cuda_enter(ctx, call->device.device_id, &portable->device);
    if (status != SACCADE_OK) return status;
    plan(call, portable->device, &portable->plan, &job.params);
    status = sac_device_mask(ctx, portable->device, call, &portable->args);
    job.params.args = portable->args;
    if (status == SACCADE_OK) status = sac_cuda_modifier_text(call, &portable->modifiers);
    if (status == SACCADE_OK) status = launch(&job);
    free(portable->modifiers);
    sac_cuda_leave();
    return status;
}

void sac_attn_bwd_sm90_prefetch(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_attention_call *forward, const char *modifiers) {
    if (!sac_backward_may_follow(forward)) return;
    const bool sums_dq = sac_attn_bwd_sm90_sums_dq(forward);
    sac_kernel_spec keys = sac_attn_bwd_sm90_spec(forward, sums_dq), queries;
    keys.modifiers = modifiers;
    sac_kernel_prefetch(ctx, device, &keys, 1, NULL);
    if (sac_attn_bwd_has_diagonals(forward)) {
        sac_kernel_spec diagonals = sac_attn_bwd_diagonal_sm90_spec(forward, sums_dq);
        diagonals.modifiers = modifiers;
        sac_kernel_prefetch(ctx, device, &diagonals, 1, NULL);
    }
    if (sums_dq) return;
    sac_attn_bwd_dq_sm90_spec(forward, false, &queries);
    queries.modifiers = modifiers;
    sac_kernel_prefetch(ctx, device, &queries, 1, NULL);
}
