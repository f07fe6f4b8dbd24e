/* gate.c - three outputs become one, and one gradient three. */
#include <math.h>

#include "nsa/rows.h"
#include "nsa/stages.h"

enum { MOST_DIMS = 256 };

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
    float w[MOST_DIMS];
    for (int32_t c = 0; c < 3; c++) {
        if (args->w_gate)
            sac_row_load(w, args->w_gate, ((int64_t)h * 3 + c) * args->head_dim, args->head_dim, args->dtype);
        gate[c] = args->w_gate ? sigmoid(sac_row_dot(q, w, args->head_dim)) : 1.0f / 3;
    }
}

static void load_q(const sac_nsa_args *args, row_place p, int32_t h, float *q) {
    if (args->w_gate)
        sac_row_load(q, args->q.data, sac_view_offset(&args->q, p.b, p.row, h), args->head_dim, args->dtype);
}

void sac_nsa_gate(const sac_nsa_args *args, const sac_view branch[SAC_NSA_NUM_BRANCHES], const sac_view *out,
                  int64_t rows, int32_t num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int32_t h = 0; h < args->num_heads; h++) {
            float q[MOST_DIMS], row[MOST_DIMS], sum[MOST_DIMS] = {0}, gate[3];
            row_place p = row_of(args, i);
            load_q(args, p, h, q);
            gates_of(args, p, h, q, gate);
            for (int32_t c = 0; c < SAC_NSA_NUM_BRANCHES; c++) {
                sac_row_load(row, branch[c].data, sac_view_offset(&branch[c], p.b, p.row, h),
                             args->head_dim_v, args->dtype);
                sac_row_add(sum, gate[c], row, args->head_dim_v);
            }
            sac_row_store(out->data, sac_view_offset(out, p.b, p.row, h), sum, args->head_dim_v, args->dtype);
        }
}

/* dL/d gate = dout . branch_out; through the sigmoid to w_gate and q. */
static void gate_row_backward(const sac_nsa_args *args, const sac_nsa_gate_grads *g, int64_t index,
                              int32_t h) {
    float q[MOST_DIMS], w[MOST_DIMS], dout[MOST_DIMS], row[MOST_DIMS], gate[3];
    row_place p = row_of(args, index);
    load_q(args, p, h, q);
    gates_of(args, p, h, q, gate);
    sac_row_load(dout, g->dout.data, sac_view_offset(&g->dout, p.b, p.row, h), args->head_dim_v, args->dtype);
    sac_row_load(row, g->branch_out.data, sac_view_offset(&g->branch_out, p.b, p.row, h), args->head_dim_v,
                 args->dtype);
    const float mine = gate[g->branch], dgate = sac_row_dot(dout, row, args->head_dim_v);
    for (int32_t d = 0; d < args->head_dim_v; d++) dout[d] *= mine;
    sac_row_store(g->branch_dout.data, sac_view_offset(&g->branch_dout, p.b, p.row, h), dout,
                  args->head_dim_v, args->dtype);
    if (g->dgates) g->dgates[(index * args->num_heads + h) * 3 + g->branch] = dgate;
    if (!args->w_gate || args->gates.data) return;
    const int64_t w_row = ((int64_t)h * 3 + g->branch) * args->head_dim;
    const float dlogit = dgate * mine * (1 - mine);
    sac_row_load(w, args->w_gate, w_row, args->head_dim, args->dtype);
    sac_row_add(g->dq_sum + (index * args->num_heads + h) * args->head_dim, dlogit, w, args->head_dim);
    if (g->dw_gate) sac_row_add(g->dw_gate + w_row, dlogit, q, args->head_dim);
}

void sac_nsa_gate_backward(const sac_nsa_args *args, const sac_nsa_gate_grads *grads, int64_t rows,
                           int32_t num_threads) {
    /* A thread takes whole heads, so that nobody else adds to its part of w_gate. */
#pragma omp parallel for num_threads(num_threads) schedule(dynamic)
    for (int32_t h = 0; h < args->num_heads; h++)
        for (int64_t i = 0; i < rows; i++) gate_row_backward(args, grads, i, h);
}
