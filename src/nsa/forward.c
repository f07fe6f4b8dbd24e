/* forward.c - compress, select, attend three times, gate. */
#include "base/error.h"
#include "nsa/heads.h"
#include "nsa/memory.h"
#include "nsa/rows.h"

size_t sac_nsa_workspace(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_nsa_call part = sac_nsa_part(call, 0);
    return sac_nsa_divide(ctx, &part, NULL).bytes;
}

/* The view from row `row` of each sequence on, or, row negative, the view whose row -row is its first: rows that are
 * not there must not be touched. */
static sac_view from_row(const sac_view *view, int64_t row, int32_t dtype) {
    sac_view moved = *view;
    const int64_t bytes = row * view->row_stride * (int64_t)sac_dtype_bytes(dtype);
    if (view->data) moved.data = (void *)((uintptr_t)view->data + (uintptr_t)bytes);
    return moved;
}

static bool are_all(const sac_nsa_call *call, sac_range queries) {
    return queries.end - queries.begin == call->args.len.seqlen;
}

static saccade_status attend(saccade_context *ctx, const sac_nsa_call *call, const sac_nsa_memory *m,
                             sac_nsa_branch branch, sac_range queries) {
    sac_attention_call attention = sac_nsa_branch_call(call, m, branch);
    if (!are_all(call, queries)) {
        attention.queries = queries;
        attention.total_q = (int64_t)call->args.batch * (queries.end - queries.begin);
        if (!call->branch_out[branch].data)
            attention.args.out = from_row(&attention.args.out, -queries.begin, call->args.dtype);
    }
    return call->backend[branch]->forward(ctx, &attention);
}

/* These queries' rows of out. */
static saccade_status gate(const sac_nsa_call *call, const sac_nsa_memory *m, sac_range queries) {
    sac_nsa_job job = m->job;
    sac_nsa_args *args = &job.args;
    const sac_view out = from_row(&call->whole.args.out, queries.begin, args->dtype);
    sac_view branch_out[SAC_NSA_NUM_BRANCHES];
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        const int64_t row = call->branch_out[branch].data ? queries.begin : 0;
        branch_out[branch] = from_row(&m->branch_out[branch], row, args->dtype);
    }
    args->q = from_row(&args->q, queries.begin, args->dtype);
    args->gates = from_row(&args->gates, queries.begin, args->dtype);
    if (!are_all(call, queries)) {
        args->len.seqlen = queries.end - queries.begin;
        args->rows = (int64_t)args->batch * args->len.seqlen;
    }
    return sac_nsa_stages_on(job.device)->gate(&job, branch_out, &out);
}

static saccade_status make_lists(const sac_nsa_memory *m) {
    const sac_nsa_stages *stages = sac_nsa_stages_on(m->job.device);
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        if (sac_nsa_is_sparse(&m->job.args, branch))
            SAC_TRY(stages->make_lists(&m->job, branch, false, m->lists[branch]));
    return SACCADE_OK;
}

static saccade_status forward_part(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_nsa_memory m = sac_nsa_divide(ctx, call, call->workspace);
    const sac_nsa_stages *stages = sac_nsa_stages_on(call->whole.device);
    const int32_t seqlen = call->args.len.seqlen;
    const bool reads_lse =
        m.job.args.lse_cmp.data; /* of the compressed branch: then that goes before select */
    if (m.cu_cmp) SAC_TRY(stages->offsets(&m.job, m.cu_cmp, m.cu_tiles));
    SAC_TRY(stages->compress(&m.job, m.scratch));
    if (reads_lse) SAC_TRY(attend(ctx, call, &m, SAC_NSA_CMP, (sac_range){0, seqlen}));
    SAC_TRY(stages->select(&m.job, m.scratch));
    SAC_TRY(make_lists(&m));
    int32_t first = 0;
    do { /* once also where there are no queries: rows of no sequence are written too */
        const sac_range queries = {first, sac_min(first + m.queries_at_once, seqlen)};
        if (!reads_lse) SAC_TRY(attend(ctx, call, &m, SAC_NSA_CMP, queries));
        SAC_TRY(attend(ctx, call, &m, SAC_NSA_SLC, queries));
        SAC_TRY(attend(ctx, call, &m, SAC_NSA_WIN, queries));
        SAC_TRY(gate(call, &m, queries));
        first = queries.end;
    } while (first < seqlen);
    return SACCADE_OK;
}

saccade_status sac_nsa_forward(saccade_context *ctx, const sac_nsa_call *call) {
    for (int32_t head = 0; head < call->args.num_kv_heads; head += sac_nsa_heads_at_once(call)) {
        const sac_nsa_call part = sac_nsa_part(call, head);
        SAC_TRY(forward_part(ctx, &part));
    }
    return SACCADE_OK;
}
