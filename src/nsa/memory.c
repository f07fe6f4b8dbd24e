/* memory.c - the workspace, and what each branch asks of its attention backend. */
#include "nsa/memory.h"

#include "base/context.h"
#include "nsa/host.h"
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

/* (B, rows, heads, dim), or (rows, heads, dim) when packed; all_rows: of all batch entries. */
static sac_view take_view(arena *a, const sac_nsa_args *args, int64_t all_rows, int32_t heads, int32_t dim) {
    const int64_t row = (int64_t)heads * dim;
    return (sac_view){.data = take(a, all_rows * row, sac_dtype_bytes(args->dtype)),
                      .batch_stride = args->len.cu_seqlens || !args->batch ? 0 : all_rows / args->batch * row,
                      .row_stride = row,
                      .head_stride = dim};
}

static void take_indices(arena *a, const sac_nsa_args *args, sac_nsa_indices *indices) {
    const int64_t tiles = args->len.cu_seqlens ? args->tiles : args->max_tiles;
    indices->list_stride = tiles * indices->top_k;
    indices->batch_stride = args->len.cu_seqlens ? 0 : indices->list_stride * args->num_lists;
    indices->data = take(a, args->tiles * args->num_lists * indices->top_k, sizeof(int32_t));
}

/* What the forward saves, where the caller does not want it, and the blocks of the compressed branch. */
static void divide_saved(arena *a, sac_nsa_memory *m) {
    sac_nsa_args *args = &m->job.args;
    if (!args->k_cmp.data)
        args->k_cmp = take_view(a, args, args->cmp_rows, args->num_kv_heads, args->head_dim);
    if (!args->v_cmp.data)
        args->v_cmp = take_view(a, args, args->cmp_rows, args->num_kv_heads, args->head_dim_v);
    if (!args->indices.data) take_indices(a, args, &args->indices);
    if (args->compressed_indices.top_k) take_indices(a, args, &args->compressed_indices);
    if (!args->len.cu_seqlens) return;
    args->cu_cmp = m->cu_cmp = take(a, args->batch + 1, sizeof(int32_t));
    args->cu_tiles = m->cu_tiles = take(a, args->batch + 1, sizeof(int32_t));
}

/* (H, rows), whatever the batch. */
static sac_row_view row_view(const sac_nsa_args *args, float *data) {
    return (sac_row_view){.data = data,
                          .batch_stride = args->len.cu_seqlens ? 0 : args->len.seqlen,
                          .head_stride = args->rows,
                          .row_stride = 1};
}

/* What scoring reads of the compressed branch, which then goes before it. */
static void divide_lse(arena *a, const sac_nsa_call *call, sac_nsa_args *args) {
    if (call->backward || !sac_nsa_stages_on(call->whole.device)->reads_lse || !sac_nsa_lse_serves(args))
        return;
    args->lse_cmp = call->lse[SAC_NSA_CMP];
    if (!args->lse_cmp.data)
        args->lse_cmp = row_view(args, take(a, args->rows * args->num_heads, sizeof(float)));
}

/* Few compressed keys are seen by many queries: the backend may want their gradients in parts. */
static void take_compressed_grads(arena *a, saccade_context *ctx, const sac_nsa_call *call,
                                  sac_nsa_memory *m) {
    const sac_nsa_args *args = &m->job.args;
    const sac_attention_call c = sac_nsa_branch_call(call, m, SAC_NSA_CMP);
    const int32_t parts = call->grad_backend[SAC_NSA_CMP]->grad_parts
                              ? call->grad_backend[SAC_NSA_CMP]->grad_parts(ctx, &c)
                              : 1;
    const int32_t dims[] = {args->head_dim, args->head_dim_v};
    sac_nsa_key_grads *const sides[] = {&m->keys, &m->values};
    for (int i = 0; i < 2; i++) {
        sides[i]->parts = parts;
        sides[i]->part_stride = args->cmp_rows * args->num_kv_heads * dims[i];
        sides[i]->branch[SAC_NSA_CMP] = take_view(a, args, args->cmp_rows, args->num_kv_heads, dims[i]);
        take(a, (parts - 1) * sides[i]->part_stride, sac_dtype_bytes(args->dtype));
    }
}

/* What a branch's attention goes back from: the next branch's takes its place. Where some branch may fold its gate
 * there is room for either, since whether it does depends on where dout lies, which sizes are asked for without. */
static void divide_branch_dout(arena *a, const sac_nsa_call *call, sac_nsa_memory *m) {
    const sac_nsa_args *args = &m->job.args;
    const int64_t values = args->rows * args->num_heads;
    bool folded = false;
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        folded |= sac_nsa_folds_gate(call, m, branch);
    m->branch_dout = take_view(a, args, args->rows, args->num_heads, args->head_dim_v);
    if (!folded) return;
    m->gated_lse = row_view(args, take(a, values, sizeof(float)));
    m->delta = take(a, values, sizeof(float));
}

static void divide_gradients(arena *a, saccade_context *ctx, const sac_nsa_call *call, sac_nsa_memory *m) {
    const sac_nsa_args *args = &m->job.args;
    take_compressed_grads(a, ctx, call, m);
    divide_branch_dout(a, call, m);
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        m->queries.branch_dq[branch] = take_view(a, args, args->rows, args->num_heads, args->head_dim);
        if (branch == SAC_NSA_CMP) continue;
        m->keys.branch[branch] = take_view(a, args, args->rows, args->num_kv_heads, args->head_dim);
        m->values.branch[branch] = take_view(a, args, args->rows, args->num_kv_heads, args->head_dim_v);
    }
    m->dgates = call->dgates;
    if (args->w_gate)
        m->dgates = (sac_nsa_gate_values){take(a, args->rows * args->num_heads * 3, sizeof(float)),
                                          (int64_t)args->num_heads * 3};
    m->queries.dgates = m->dgates;
    m->queries.dq = call->whole.args.dq;
    m->queries.dw_gate = call->dw_gate;
    m->keys.sum = call->whole.args.dk;
    m->keys.dw = call->dw_k;
    m->values.sum = call->whole.args.dv;
    m->values.dw = call->dw_v;
}

static size_t list_bytes(const sac_nsa_call *call, const sac_nsa_job *job, sac_nsa_branch branch) {
    sac_block_mask_args blocks;
    if (!sac_nsa_is_sparse(&job->args, branch)) return 0;
    return sac_nsa_stages_on(job->device)
        ->lay_out_lists(job, branch, call->backward, (void *)(uintptr_t)ALIGNMENT, &blocks);
}

static void divide_lists(arena *a, const sac_nsa_call *call, sac_nsa_memory *m) {
    size_t bytes[SAC_NSA_NUM_BRANCHES], most = 0;
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        bytes[branch] = list_bytes(call, &m->job, branch);
        if (bytes[branch] > most) most = bytes[branch];
    }
    void *shared = take(a, call->backward ? (int64_t)most : 0, 1);
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        m->lists[branch] = call->backward ? shared : take(a, (int64_t)bytes[branch], 1);
}

/* Does the sum of the branches want this one's output in memory? */
static bool stores_term(const sac_nsa_call *call, int branch) {
    return call->backend[branch]->sums_stored && branch < SAC_NSA_NUM_BRANCHES - 1;
}

/* Branches whose outputs the caller keeps need none here, nor those of a sum; backward, those that are made again share
 * one. */
static void divide_outputs(arena *a, const sac_nsa_call *call, sac_nsa_memory *m) {
    const sac_nsa_args *args = &m->job.args;
    sac_view made = {0};
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        m->branch_out[branch] = call->branch_out[branch];
        if (call->branch_out[branch].data || (call->sums && !stores_term(call, branch))) continue;
        if (!call->backward || !made.data)
            made = take_view(a, args, args->rows, args->num_heads, args->head_dim_v);
        m->branch_out[branch] = made;
    }
}

/* The three branches use their backends' workspace one after the other, unless they attend as a sum. */
static size_t backend_bytes(saccade_context *ctx, const sac_nsa_call *call, const sac_nsa_memory *m) {
    size_t most = 0;
    if (call->sums) {
        const sac_attention_sum sum = sac_nsa_branch_sum(call, m);
        return call->backend[SAC_NSA_CMP]->sum_workspace(ctx, &sum);
    }
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        sac_attention_call c = sac_nsa_branch_call(call, m, branch);
        for (int backward = 0; backward <= call->backward; backward++) {
            const sac_backend *backend = backward ? call->grad_backend[branch] : call->backend[branch];
            size_t bytes = backend->workspace(ctx, &c, backward);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

sac_nsa_memory sac_nsa_divide(saccade_context *ctx, const sac_nsa_call *call, void *base) {
    sac_nsa_memory m = {.job = {.ctx = ctx, .device = call->whole.device, .args = call->args}};
    const sac_nsa_stages *stages = sac_nsa_stages_on(m.job.device);
    arena a = {base ? base : (char *)(uintptr_t)ALIGNMENT, 0};
    divide_saved(&a, &m);
    divide_lse(&a, call, &m.job.args);
    m.scratch = take(&a, (int64_t)stages->scratch_bytes(&m.job, call->backward), 1);
    divide_lists(&a, call, &m);
    divide_outputs(&a, call, &m);
    if (call->backward) divide_gradients(&a, ctx, call, &m);
    m.backend_bytes = backend_bytes(ctx, call, &m);
    m.backend = take(&a, (int64_t)m.backend_bytes, 1);
    m.bytes = a.used;
    return m;
}

/* ---- the branches ---- */

bool sac_nsa_is_sparse(const sac_nsa_args *args, sac_nsa_branch branch) {
    return branch == SAC_NSA_SLC || (branch == SAC_NSA_CMP && args->compressed_indices.top_k);
}

bool sac_nsa_sums(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_backend *backend = call->backend[SAC_NSA_CMP];
    if (call->backward || !backend->forward_sum || call->backend[SAC_NSA_SLC] != backend ||
        call->backend[SAC_NSA_WIN] != backend)
        return false;
    sac_nsa_memory sizes = {.job = {.ctx = ctx, .device = call->whole.device, .args = call->args}};
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        sizes.lists[branch] = (void *)(uintptr_t)ALIGNMENT;
    const sac_attention_sum sum = sac_nsa_branch_sum(call, &sizes);
    return !backend->sums || backend->sums(&sum);
}

bool sac_nsa_shares_lists(saccade_context *ctx, const sac_nsa_call *call, sac_nsa_branch branch) {
    const sac_nsa_job job = {.ctx = ctx, .device = call->whole.device, .args = call->args};
    sac_block_mask_args blocks;
    if (!sac_nsa_is_sparse(&job.args, branch)) return false;
    sac_nsa_stages_on(job.device)->lay_out_lists(&job, branch, false, (void *)(uintptr_t)ALIGNMENT, &blocks);
    return blocks.by_query.bits != NULL;
}

bool sac_nsa_folds_gate(const sac_nsa_call *call, const sac_nsa_memory *memory, sac_nsa_branch branch) {
    const sac_attention_call attention = sac_nsa_branch_call(call, memory, branch);
    const sac_backend *backend = call->grad_backend[branch];
    const bool positive = !call->args.gates.data; /* not as given */
    return positive && !call->dout_unaligned && backend->takes_delta && backend->takes_delta(&attention);
}

sac_attention_call sac_nsa_branch_call(const sac_nsa_call *call, const sac_nsa_memory *memory,
                                       sac_nsa_branch branch) {
    const sac_nsa_args *args = &memory->job.args;
    const bool compressed = branch == SAC_NSA_CMP;
    sac_attention_call c = {.device = call->whole.device,
                            .total_q = args->rows,
                            .total_k = compressed ? args->cmp_rows : args->rows,
                            .workspace = memory->backend,
                            .workspace_bytes = memory->backend_bytes};
    sac_attention_args *a = &c.args;
    a->q = args->q;
    a->k = compressed ? args->k_cmp : args->k;
    a->v = compressed ? args->v_cmp : args->v;
    a->out = memory->branch_out[branch];
    a->lse = compressed && args->lse_cmp.data ? args->lse_cmp : call->lse[branch];
    a->len_q = a->len_k = args->len;
    if (compressed) a->len_k = (sac_lengths){.cu_seqlens = args->cu_cmp, .seqlen = args->max_cmp};
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
    if (sac_nsa_is_sparse(args, branch))
        sac_nsa_stages_on(c.device)->lay_out_lists(&memory->job, branch, call->backward,
                                                   memory->lists[branch], &a->blocks);
    return c;
}

sac_attention_sum sac_nsa_branch_sum(const sac_nsa_call *call, const sac_nsa_memory *memory) {
    sac_attention_sum sum = {.num_calls = SAC_NSA_NUM_BRANCHES,
                             .out = call->whole.args.out,
                             .weights = sac_nsa_host_gates,
                             .weights_data = &memory->job,
                             .weighted_by = {.given = call->args.gates, .of_query = call->args.w_gate},
                             .workspace = memory->backend};
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        sum.calls[branch] = sac_nsa_branch_call(call, memory, branch);
    return sum;
}
