/* backward.c - branch by branch, so that one branch's output and gradients live at a time. A branch's output is computed
 * again rather than saved; what the branches pass on is summed in fp32 and rounded once. */
#include <string.h>

#include "base/context.h"
#include "nsa/memory.h"
#include "nsa/rows.h"

/* Rows of heads * dim elements, numbered through all batch entries. */
typedef struct rows {
    int64_t count;
    int32_t heads, dim;
} rows;

static int64_t offset_of(const sac_view *view, const sac_nsa_args *args, int64_t row, int32_t head) {
    if (args->len.cu_seqlens) return sac_view_offset(view, 0, row, head);
    return sac_view_offset(view, (int32_t)(row / args->len.seqlen), row % args->len.seqlen, head);
}

enum { MOST_DIMS = 256 };

static void add_rows(float *sum, const sac_view *view, const sac_nsa_args *args, rows r,
                     int32_t num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int64_t i = 0; i < r.count; i++)
        for (int32_t h = 0; h < r.heads; h++) {
            float row[MOST_DIMS];
            sac_row_load(row, view->data, offset_of(view, args, i, h), r.dim, args->dtype);
            sac_row_add(sum + (i * r.heads + h) * r.dim, 1, row, r.dim);
        }
}

static void store_rows(const sac_view *view, const float *sum, const sac_nsa_args *args, rows r,
                       int32_t num_threads) {
    if (!view->data) return;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int64_t i = 0; i < r.count; i++)
        for (int32_t h = 0; h < r.heads; h++)
            sac_row_store(view->data, offset_of(view, args, i, h), sum + (i * r.heads + h) * r.dim, r.dim,
                          args->dtype);
}

typedef struct shapes {
    rows q, k, v;
} shapes;

static shapes shapes_of(const sac_nsa_call *call) {
    const sac_nsa_args *args = &call->args;
    return (shapes){.q = {call->whole.total_q, args->num_heads, args->head_dim},
                    .k = {call->whole.total_k, args->num_kv_heads, args->head_dim},
                    .v = {call->whole.total_k, args->num_kv_heads, args->head_dim_v}};
}

static void clear_sums(const sac_nsa_call *call, const sac_nsa_memory *m, const shapes *s) {
    const sac_nsa_args *args = &call->args;
    const size_t w_k = (size_t)args->num_kv_heads * (size_t)args->head_dim * (size_t)args->head_dim;
    const size_t w_v = (size_t)args->num_kv_heads * (size_t)args->head_dim_v * (size_t)args->head_dim_v;
    memset(m->dq_sum, 0, (size_t)(s->q.count * s->q.heads * s->q.dim) * sizeof(float));
    memset(m->dk_sum, 0, (size_t)(s->k.count * s->k.heads * s->k.dim) * sizeof(float));
    memset(m->dv_sum, 0, (size_t)(s->v.count * s->v.heads * s->v.dim) * sizeof(float));
    if (call->dw_k) memset(call->dw_k, 0, w_k * sizeof(float));
    if (call->dw_v) memset(call->dw_v, 0, w_v * sizeof(float));
    if (call->dw_gate)
        memset(call->dw_gate, 0, (size_t)args->num_heads * 3 * (size_t)args->head_dim * sizeof(float));
}

/* The branch's output again, then through the gate, the attention, and for the compressed branch the means. */
static saccade_status branch_backward(saccade_context *ctx, const sac_nsa_call *call, const sac_nsa_memory *m,
                                      const shapes *s, sac_nsa_branch branch) {
    const bool compressed = branch == SAC_NSA_CMP;
    sac_nsa_make_lists(m, branch);
    sac_attention_call attention = sac_nsa_branch_call(call, m, branch);
    sac_attention_call again = attention;
    again.args.lse.data = NULL; /* it was saved */
    saccade_status status = call->backend->forward(ctx, &again);
    if (status != SACCADE_OK) return status;

    sac_nsa_gate_grads gate = {.dout = call->whole.args.dout,
                               .branch_out = m->branch_out[branch],
                               .branch_dout = m->branch_dout,
                               .branch = branch,
                               .dw_gate = call->dw_gate,
                               .dgates = call->dgates,
                               .dq_sum = m->dq_sum};
    sac_nsa_gate_backward(&m->args, &gate, call->whole.total_q, ctx->num_threads);

    attention.args.dout = m->branch_dout;
    attention.args.dq = m->dq;
    attention.args.dk = compressed ? m->dk_cmp : m->dk;
    attention.args.dv = compressed ? m->dv_cmp : m->dv;
    status = call->backend->backward(ctx, &attention);
    if (status != SACCADE_OK) return status;

    add_rows(m->dq_sum, &m->dq, &m->args, s->q, ctx->num_threads);
    if (compressed) {
        sac_nsa_compress_grads grads = {m->dk_cmp, m->dv_cmp, m->dk_sum, m->dv_sum, call->dw_k, call->dw_v};
        sac_nsa_compress_backward(&m->args, &grads, ctx->num_threads);
    } else {
        add_rows(m->dk_sum, &m->dk, &m->args, s->k, ctx->num_threads);
        add_rows(m->dv_sum, &m->dv, &m->args, s->v, ctx->num_threads);
    }
    return SACCADE_OK;
}

saccade_status sac_nsa_backward(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_nsa_memory m = sac_nsa_divide(ctx, call, call->workspace);
    const shapes s = shapes_of(call);
    sac_nsa_offsets(&m.args, m.cu_cmp, m.cu_tiles);
    if (m.args.compressed_indices.top_k) {
        /* Which blocks the sparse compressed branch visited is not saved: scoring again costs little. */
        sac_nsa_args compressed_only = m.args;
        compressed_only.indices.data = NULL;
        sac_nsa_select(&compressed_only, m.scratch, ctx->num_threads);
    }
    clear_sums(call, &m, &s);
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        saccade_status status = branch_backward(ctx, call, &m, &s, (sac_nsa_branch)branch);
        if (status != SACCADE_OK) return status;
    }
    store_rows(&call->whole.args.dq, m.dq_sum, &m.args, s.q, ctx->num_threads);
    store_rows(&call->whole.args.dk, m.dk_sum, &m.args, s.k, ctx->num_threads);
    store_rows(&call->whole.args.dv, m.dv_sum, &m.args, s.v, ctx->num_threads);
    return SACCADE_OK;
}
