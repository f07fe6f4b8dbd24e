/* nsa_gate.cu - out = the gated sum of three branches' outputs, each read once. Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED
 * GATE NUM_THREADS. */
#include "cuda/kernels/nsa_gates.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_gate(const __grid_constant__ sac_nsa_args args, const __grid_constant__ sac_nsa_gate_work work) {
    head_walk walk = head_walk_start(args.rows, args.num_heads);
    chunk w[3];
#pragma unroll
    for (int c = 0; c < 3; c++) w[c] = gate_weights(&args, walk.head, c);
    for (int64_t rounds = head_walk_rounds(&walk); rounds > 0; rounds--) {
        const walk_row row = head_walk_next(&walk);
        const nsa_place p = nsa_token_place(&args, row.index);
        const chunk q = gate_query(&args, p, walk.head);
        chunk sum = chunk_zero(), branch[3];
#pragma unroll
        for (int c = 0; c < 3; c++) branch[c] = chunk_of(&work.branch_out[c], p, walk.head, HEAD_DIM_V);
#pragma unroll
        for (int c = 0; c < 3; c++) chunk_add(&sum, gate_of(&args, &w[c], &q, p, walk.head, c), &branch[c]);
        if (row.there && chunk_column() < HEAD_DIM_V)
            chunk_store(view_row(&work.out, p.b, walk.head, p.row) + chunk_column(), &sum);
    }
}
