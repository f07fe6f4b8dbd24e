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
    const int64_t part = walk.row;
    chunk w[3], dw[3];
#pragma unroll
    for (int c = 0; c < 3; c++) {
        w[c] = gate_weights(&args, walk.head, c);
        dw[c] = chunk_zero();
    }
    for (int64_t round = 0; round < walk.rounds; round++, walk.row += walk.step) {
        const bool there = walk.row < args.rows;
        const nsa_place p = nsa_token_place(&args, walk.row);
        const chunk q = gate_query(&args, p, walk.head, there && work.dw_part);
        chunk sum = chunk_zero();
#pragma unroll
        for (int c = 0; c < 3; c++) {
            const chunk dq = chunk_of(&work.branch_dq[c], p, walk.head, there && work.dq.data, HEAD_DIM);
            chunk_add(&sum, 1, &dq);
            if (GATE != SAC_NSA_GATE_WEIGHTS || !there) continue;
            const float dlogit = work.dgates[walk.row * work.dgates_row_stride + walk.head * 3 + c];
            chunk_add(&sum, dlogit, &w[c]);
            chunk_add(&dw[c], dlogit, &q);
        }
        if (there && work.dq.data && chunk_column() < HEAD_DIM)
            chunk_store(view_row(&work.dq, p.b, walk.head, p.row) + chunk_column(), &sum);
    }
    if (work.dw_part) store_part(&args, work.dw_part, part, walk.head, dw);
}
