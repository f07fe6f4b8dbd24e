/* nsa_query_grads.cu - dq = the sum of three branches' and of what comes through w_gate, each read once; and of dw_gate
 * the part that these lanes' rows add up to, in order. Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED GATE NUM_THREADS. */
#include "cuda/kernels/nsa_gates.h"

/* Lanes of one row have walked one head: part and head are as the walk starts. */
static __device__ void store_part(const sac_nsa_args *args, float *dw_part, int64_t part, int32_t h,
                                  const chunk dw[3]) {
    if (chunk_column() >= HEAD_DIM) return;
    float *to = dw_part + ((part * args->num_heads + h) * 3) * HEAD_DIM + chunk_column();
#pragma unroll
    for (int c = 0; c < 3; c++) chunk_store_floats(to + c * HEAD_DIM, &dw[c]);
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_query_grads(const __grid_constant__ sac_nsa_args args,
                    const __grid_constant__ sac_nsa_query_grads_work work) {
    head_walk walk = head_walk_start(args.rows, args.num_heads);
    const int64_t part = walk.next;
    chunk w[3], dw[3];
#pragma unroll
    for (int c = 0; c < 3; c++) {
        w[c] = gate_weights(&args, walk.head, c);
        dw[c] = chunk_zero();
    }
    for (int64_t rounds = head_walk_rounds(&walk); rounds > 0; rounds--) {
        const walk_row row = head_walk_next(&walk);
        const nsa_place p = nsa_token_place(&args, row.index);
        chunk sum = chunk_zero(), dq[3] = {sum, sum, sum}, q = sum;
        float dlogit[3] = {0, 0, 0};
        if (GATE == SAC_NSA_GATE_WEIGHTS && row.there)
#pragma unroll
            for (int c = 0; c < 3; c++)
                dlogit[c] = work.dgates[row.index * work.dgates_row_stride + walk.head * 3 + c];
        if (work.dw_part) q = gate_query(&args, p, walk.head);
        if (work.dq.data) /* asked once: the loads of all three are on their way together */
#pragma unroll
            for (int c = 0; c < 3; c++) dq[c] = chunk_of(&work.branch_dq[c], p, walk.head, HEAD_DIM);
#pragma unroll
        for (int c = 0; c < 3; c++) {
            chunk_add(&sum, 1, &dq[c]);
            chunk_add(&sum, dlogit[c], &w[c]);
            chunk_add(&dw[c], dlogit[c], &q);
        }
        if (row.there && work.dq.data && chunk_column() < HEAD_DIM)
            chunk_store(view_row(&work.dq, p.b, walk.head, p.row) + chunk_column(), &sum);
    }
    if (work.dw_part) store_part(&args, work.dw_part, part, walk.head, dw);
}
