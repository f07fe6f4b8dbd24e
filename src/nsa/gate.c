/* gate.c - three outputs become one, and one gradient three. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "nsa/host.h"
#include "nsa/rows.h"

/* A row of the batch: its batch entry and its row there. Packed rows are numbered through. */
typedef struct row_place {
    int32_t b;
    int64_t row;
} row_place;
static row_place row_of(const sac_nsa_args *args, int64_t index) {
    if (args->len.cu_seqlens) return (row_place){0, index};
    return (row_place){(int32_t)(index / args->len.seqlen), index % args->len.seqlen};
}

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* The three gates of one query and head. q: its row. */
static void gates_of(const sac_nsa_args *args, row_place p, int32_t h, const float *q, float gate[3]) {
    if (args->gates.data) {
        sac_row_load(gate, args->gates.data, sac_view_offset(&args->gates, p.b, p.row, h), 3, args->dtype);
        return;
    }
    float room[SAC_NSA_MOST_DIMS];
    for (int32_t c = 0; c < 3; c++) {
        gate[c] = 1.0f / 3;
        if (!args->w_gate) continue;
        const int64_t first = ((int64_t)h * 3 + c) * args->head_dim;
        const float *w = sac_row_floats(room, args->w_gate, first, args->head_dim, args->dtype);
        gate[c] = sigmoid(sac_row_dot(q, w, args->head_dim));
    }
}

/* The row of q, in `room` if need be; only a w_gate asks for it. */
static const float *q_of(const sac_nsa_args *args, row_place p, int32_t h, float *room) {
    if (!args->w_gate) return NULL;
    return sac_row_floats(room, args->q.data, sac_view_offset(&args->q, p.b, p.row, h), args->head_dim,
                          args->dtype);
}

static void *row_at(const sac_view *view, row_place p, int32_t h, size_t element_bytes) {
    return (char *)view->data + sac_view_offset(view, p.b, p.row, h) * (int64_t)element_bytes;
}

static void gate_row(const sac_nsa_args *args, const sac_view branch_out[SAC_NSA_NUM_BRANCHES],
                     const sac_view *out, int64_t index, int32_t h) {
    const size_t element_bytes = sac_dtype_bytes(args->dtype);
    const row_place p = row_of(args, index);
    void *to = row_at(out, p, h, element_bytes);
    float room[SAC_NSA_MOST_DIMS], gate[3];
    const void *rows[SAC_NSA_NUM_BRANCHES];
    if (index >= sac_nsa_used_rows(args)) {
        memset(to, 0, (size_t)args->head_dim_v * element_bytes);
        return;
    }
    gates_of(args, p, h, q_of(args, p, h, room), gate);
    for (int32_t c = 0; c < SAC_NSA_NUM_BRANCHES; c++) rows[c] = row_at(&branch_out[c], p, h, element_bytes);
    sac_row_mix(to, rows, gate, args->head_dim_v, args->dtype);
}

void sac_nsa_host_gates(const void *data, int32_t b, int64_t row, int32_t count, int32_t h, float *gates) {
    const sac_nsa_args *args = &((const sac_nsa_job *)data)->args;
    for (int32_t i = 0; i < count; i++) {
        float room[SAC_NSA_MOST_DIMS];
        const row_place p = {b, row + i};
        gates_of(args, p, h, q_of(args, p, h, room), gates + i * SAC_NSA_NUM_BRANCHES);
    }
}

saccade_status sac_nsa_host_gate(const sac_nsa_job *job, const sac_view branch_out[SAC_NSA_NUM_BRANCHES],
                                 const sac_view *out) {
    const sac_nsa_args *args = &job->args;
#pragma omp parallel for num_threads(sac_nsa_threads(job, args->rows * args->num_heads * args->head_dim_v))  \
    schedule(static)
    for (int64_t i = 0; i < args->rows; i++)
        for (int32_t h = 0; h < args->num_heads; h++) gate_row(args, branch_out, out, i, h);
    return SACCADE_OK;
}

/* ---- backward ---- */

/* What stands for the gate and the dot product in the attention's backward. A gate that rounds to 0 still has a
 * logarithm; NaN stays NaN. */
static void store_folded(const sac_nsa_args *args, const sac_nsa_gate_grads *g, int64_t index, int32_t h,
                         float gate, float dot) {
    const row_place p = row_of(args, index);
    const sac_row_view *lse = &g->lse;
    const int64_t at = h * args->rows + index;
    const float *from = lse->data + p.b * lse->batch_stride + h * lse->head_stride + p.row * lse->row_stride;
    const bool used = index < sac_nsa_used_rows(args);
    g->gated_lse[at] = used ? *from - logf(gate < FLT_MIN ? FLT_MIN : gate) : -INFINITY;
    g->delta[at] = dot;
}

static void gate_row_backward(const sac_nsa_args *args, const sac_nsa_gate_grads *g, int64_t index,
                              int32_t h) {
    float room[SAC_NSA_MOST_DIMS], dout[SAC_NSA_MOST_DIMS] = {0}, row[SAC_NSA_MOST_DIMS], gate[3];
    const row_place p = row_of(args, index);
    float mine = 0, dot = 0;
    if (index < sac_nsa_used_rows(args)) {
        gates_of(args, p, h, q_of(args, p, h, room), gate);
        mine = gate[g->branch];
        sac_row_load(dout, g->dout.data, sac_view_offset(&g->dout, p.b, p.row, h), args->head_dim_v,
                     args->dtype);
        sac_row_load(row, g->branch_out.data, sac_view_offset(&g->branch_out, p.b, p.row, h),
                     args->head_dim_v, args->dtype);
        dot = sac_row_dot(dout, row, args->head_dim_v);
        for (int32_t d = 0; d < args->head_dim_v; d++) dout[d] *= mine;
    }
    const float slope = args->w_gate ? mine * (1 - mine) : 1;
    if (g->dgates.data) g->dgates.data[index * g->dgates.row_stride + h * 3 + g->branch] = slope * dot;
    if (g->branch_dout.data)
        sac_row_store(g->branch_dout.data, sac_view_offset(&g->branch_dout, p.b, p.row, h), dout,
                      args->head_dim_v, args->dtype);
    else
        store_folded(args, g, index, h, mine, dot);
}

saccade_status sac_nsa_host_gate_backward(const sac_nsa_job *job, const sac_nsa_gate_grads *grads) {
    const sac_nsa_args *args = &job->args;
#pragma omp parallel for num_threads(sac_nsa_threads(job, args->rows * args->num_heads * args->head_dim_v))  \
    schedule(static)
    for (int64_t i = 0; i < args->rows; i++)
        for (int32_t h = 0; h < args->num_heads; h++) gate_row_backward(args, grads, i, h);
    return SACCADE_OK;
}

/* One query and head: what its three logits pass on to dw_gate, and its row of dq. */
static void query_row_grads(const sac_nsa_args *args, const sac_nsa_query_grads *g, int64_t index,
                            int32_t h) {
    float room[SAC_NSA_MOST_DIMS], sum[SAC_NSA_MOST_DIMS] = {0};
    const row_place p = row_of(args, index);
    const float *q = q_of(args, p, h, room);
    for (int32_t c = 0; c < SAC_NSA_NUM_BRANCHES; c++) {
        const sac_view *dq = &g->branch_dq[c];
        sac_row_add_from(sum, 1, dq->data, sac_view_offset(dq, p.b, p.row, h), args->head_dim, args->dtype);
        if (!args->w_gate || index >= sac_nsa_used_rows(args)) continue;
        const int64_t w = ((int64_t)h * 3 + c) * args->head_dim;
        const float dlogit = g->dgates.data[index * g->dgates.row_stride + h * 3 + c];
        sac_row_add_from(sum, dlogit, args->w_gate, w, args->head_dim, args->dtype);
        if (g->dw_gate) sac_row_add(g->dw_gate + w, dlogit, q, args->head_dim);
    }
    if (g->dq.data)
        sac_row_store(g->dq.data, sac_view_offset(&g->dq, p.b, p.row, h), sum, args->head_dim, args->dtype);
}

saccade_status sac_nsa_host_query_grads(const sac_nsa_job *job, const sac_nsa_query_grads *grads,
                                        void *scratch) {
    const sac_nsa_args *args = &job->args;
    (void)scratch;
    if (grads->dw_gate)
        memset(grads->dw_gate, 0, (size_t)args->num_heads * 3 * (size_t)args->head_dim * sizeof(float));
        /* A thread takes whole heads, so that nobody else adds to its part of w_gate. */
#pragma omp parallel for num_threads(sac_nsa_threads(job, args->rows * args->num_heads * args->head_dim_v))  \
    schedule(dynamic)
    for (int32_t h = 0; h < args->num_heads; h++)
        for (int64_t i = 0; i < args->rows; i++) query_row_grads(args, grads, i, h);
    return SACCADE_OK;
}
