/* memory.c - the workspace, and what each branch asks of its attention backend. */
#include "nsa/memory.h"

#include "base/context.h"
#include "nsa/rows.h"

enum { ALIGNMENT = 64 };

/* Hands out parts of the workspace. Without one it starts at an address that is never touched: the parts then have
 * the same sizes, and pointers that are not NULL, which is what sizes are asked with. */
typedef struct arena {
    char *base;
    size_t used;
} arena;

static void *take(arena *a, int64_t count, size_t element_bytes) {
    void *part = a->base + a->used;
    a->used += ((size_t)count * element_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return part;
}

/* (B, rows, heads, dim), or (rows, heads, dim) when packed. */
static sac_view take_view(arena *a, const sac_nsa_args *args, int64_t rows, int32_t heads, int32_t dim) {
    const int64_t row = (int64_t)heads * dim, batch = args->len.cu_seqlens ? 1 : args->batch;
    return (sac_view){.data = take(a, batch * rows * row, sac_dtype_bytes(args->dtype)),
                      .batch_stride = args->len.cu_seqlens ? 0 : rows * row,
                      .row_stride = row,
                      .head_stride = dim};
}

static int64_t total_tiles(const sac_nsa_call *call) {
    const sac_nsa_args *args = &call->args;
    if (!args->len.cu_seqlens) return (int64_t)args->batch * args->max_tiles;
    return call->whole.total_q / args->query_tile + args->batch;
}

static void take_indices(arena *a, const sac_nsa_call *call, sac_nsa_indices *indices) {
    const sac_nsa_args *args = &call->args;
    const int64_t tiles = args->len.cu_seqlens ? total_tiles(call) : args->max_tiles;
    indices->list_stride = tiles * indices->top_k;
    indices->batch_stride = args->len.cu_seqlens ? 0 : indices->list_stride * args->num_lists;
    indices->data = take(a, total_tiles(call) * args->num_lists * indices->top_k, sizeof(int32_t));
}

/* What the forward saves, where the caller does not want it, and the blocks of the compressed branch. */
static void divide_saved(arena *a, const sac_nsa_call *call, sac_nsa_memory *m) {
    sac_nsa_args *args = &m->args;
    const bool packed = args->len.cu_seqlens != NULL;
    const int64_t rows = packed ? call->whole.total_k / args->block : args->max_cmp;
    if (!args->k_cmp.data) args->k_cmp = take_view(a, args, rows, args->num_kv_heads, args->head_dim);
    if (!args->v_cmp.data) args->v_cmp = take_view(a, args, rows, args->num_kv_heads, args->head_dim_v);
    if (!args->indices.data) take_indices(a, call, &args->indices);
    if (args->compressed_indices.top_k) take_indices(a, call, &args->compressed_indices);
    if (call->backward) {
        m->dk_cmp = take_view(a, args, rows, args->num_kv_heads, args->head_dim);
        m->dv_cmp = take_view(a, args, rows, args->num_kv_heads, args->head_dim_v);
    }
    if (packed) {
        m->cu_cmp = take(a, args->batch + 1, sizeof(int32_t));
        m->cu_tiles = take(a, args->batch + 1, sizeof(int32_t));
        args->cu_cmp = m->cu_cmp;
        args->cu_tiles = m->cu_tiles;
    }
}

static void divide_gradients(arena *a, const sac_nsa_call *call, sac_nsa_memory *m) {
    const sac_nsa_args *args = &call->args;
    const int64_t rows = args->len.cu_seqlens ? call->whole.total_q : args->len.seqlen;
    m->branch_dout = take_view(a, args, rows, args->num_heads, args->head_dim_v);
    m->dq = take_view(a, args, rows, args->num_heads, args->head_dim);
    m->dk = take_view(a, args, rows, args->num_kv_heads, args->head_dim);
    m->dv = take_view(a, args, rows, args->num_kv_heads, args->head_dim_v);
    m->dq_sum = take(a, call->whole.total_q * args->num_heads * args->head_dim, sizeof(float));
    m->dk_sum = take(a, call->whole.total_k * args->num_kv_heads * args->head_dim, sizeof(float));
    m->dv_sum = take(a, call->whole.total_k * args->num_kv_heads * args->head_dim_v, sizeof(float));
}

/* The three branches use the backend's workspace one after the other. */
static size_t backend_bytes(saccade_context *ctx, const sac_nsa_call *call, const sac_nsa_memory *m) {
    size_t most = 0;
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        sac_attention_call c = sac_nsa_branch_call(call, m, (sac_nsa_branch)branch);
        for (int backward = 0; backward <= call->backward; backward++) {
            size_t bytes = call->backend->workspace(ctx, &c, backward);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

sac_nsa_memory sac_nsa_divide(saccade_context *ctx, const sac_nsa_call *call, void *base) {
    const sac_nsa_args *args = &call->args;
    sac_nsa_memory m = {.args = *args};
    arena a = {base ? base : (char *)(uintptr_t)ALIGNMENT, 0};
    divide_saved(&a, call, &m);
    m.scratch = take(&a, ctx->num_threads * (args->max_cmp + sac_nsa_scratch_floats(args)), sizeof(float));
    const int64_t rows = args->len.cu_seqlens ? call->whole.total_q : args->len.seqlen;
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        m.branch_out[branch] = call->backward && branch
                                   ? m.branch_out[0]
                                   : take_view(&a, args, rows, args->num_heads, args->head_dim_v);
    const int32_t top_k = sac_max(args->indices.top_k, args->compressed_indices.top_k);
    m.offsets = take(&a, (int64_t)args->batch * args->num_lists * args->max_tiles + 1, sizeof(int64_t));
    m.entries = take(&a, total_tiles(call) * args->num_lists * top_k, sizeof(int32_t));
    if (call->backward) divide_gradients(&a, call, &m);
    m.backend_bytes = backend_bytes(ctx, call, &m);
    m.backend = take(&a, (int64_t)m.backend_bytes, 1);
    m.bytes = a.used;
    return m;
}

/* ---- the branches ---- */

static const sac_nsa_indices *indices_of(const sac_nsa_args *args, sac_nsa_branch branch) {
    if (branch == SAC_NSA_SLC) return &args->indices;
    return branch == SAC_NSA_CMP && args->compressed_indices.top_k ? &args->compressed_indices : NULL;
}

void sac_nsa_make_lists(const sac_nsa_memory *memory, sac_nsa_branch branch) {
    const sac_nsa_indices *indices = indices_of(&memory->args, branch);
    if (indices) sac_nsa_lists(&memory->args, indices, memory->offsets, memory->entries);
}

static sac_block_mask_args blocks_of(const sac_nsa_memory *m, sac_nsa_branch branch, int32_t seqlen_k) {
    const sac_nsa_args *args = &m->args;
    if (!indices_of(args, branch)) return (sac_block_mask_args){0};
    const int32_t kv_block = branch == SAC_NSA_SLC ? args->block : SAC_NSA_COMPRESSED_BLOCK;
    return (sac_block_mask_args){.by_query = {m->offsets, m->entries},
                                 .q_block = args->query_tile,
                                 .kv_block = kv_block,
                                 .num_q_blocks = args->max_tiles,
                                 .num_kv_blocks = sac_ceil_div(seqlen_k, kv_block),
                                 .batch = args->batch,
                                 .num_heads = args->num_lists,
                                 .heads_per_list = args->heads_per_list};
}

sac_attention_call sac_nsa_branch_call(const sac_nsa_call *call, const sac_nsa_memory *memory,
                                       sac_nsa_branch branch) {
    const sac_nsa_args *args = &memory->args;
    const bool compressed = branch == SAC_NSA_CMP;
    sac_attention_call c = {.device = call->whole.device,
                            .total_q = call->whole.total_q,
                            .total_k = call->whole.total_k,
                            .workspace = memory->backend,
                            .workspace_bytes = memory->backend_bytes};
    sac_attention_args *a = &c.args;
    a->q = args->q;
    a->k = compressed ? args->k_cmp : args->k;
    a->v = compressed ? args->v_cmp : args->v;
    a->out = memory->branch_out[branch];
    a->lse = call->lse[branch];
    a->len_q = a->len_k = args->len;
    if (compressed) {
        a->len_k = (sac_lengths){.cu_seqlens = args->cu_cmp, .seqlen = args->max_cmp};
        c.total_k = args->cu_cmp ? call->whole.total_k / args->block : (int64_t)args->batch * args->max_cmp;
    }
    a->dtype = args->dtype;
    a->batch = args->batch;
    a->num_heads = args->num_heads;
    a->num_kv_heads = args->num_kv_heads;
    a->group = args->group;
    a->head_dim = args->head_dim;
    a->head_dim_v = args->head_dim_v;
    a->deterministic = call->whole.args.deterministic;
    a->scale = args->scale;
    a->band = (sac_band_rule){.causal = !compressed,
                              .window_left = branch == SAC_NSA_WIN ? args->window - 1 : -1,
                              .window_right = -1,
                              .compress = compressed ? args->block : 0,
                              .compress_started = args->started};
    a->blocks = blocks_of(memory, branch, a->len_k.seqlen);
    return c;
}
