/* nsa_gate_bwd.cu - the gate's backward through one branch: branch_dout = gate * dout, and dgate = dout . branch_out,
 * with w_gate times the slope of the sigmoid. Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED GATE NUM_THREADS. */
#include "cuda/kernels/nsa_gates.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_gate_bwd(const __grid_constant__ sac_nsa_args args,
                 const __grid_constant__ sac_nsa_gate_bwd_work work) {
    head_walk walk = head_walk_start(args.rows, args.num_heads);
    const chunk w = gate_weights(&args, walk.head, work.branch);
    for (int64_t round = 0; round < walk.rounds; round++, walk.row += walk.step) {
        const bool there = walk.row < args.rows;
        const nsa_place p = nsa_token_place(&args, walk.row);
        const chunk q = gate_query(&args, p, walk.head, there);
        const chunk dout = chunk_of(&work.dout, p, walk.head, there, HEAD_DIM_V);
        const chunk out = chunk_of(&work.branch_out, p, walk.head, there, HEAD_DIM_V);
        const float gate = gate_of(&args, &w, &q, p, walk.head, there, work.branch);
        const float dgate = row_dot(&dout, &out);
        if (!there) continue;
        chunk scaled = chunk_zero();
        chunk_add(&scaled, gate, &dout);
        if (chunk_column() < HEAD_DIM_V)
            chunk_store(view_row(&work.branch_dout, p.b, walk.head, p.row) + chunk_column(), &scaled);
        if (work.dgates && chunk_column() == 0)
            work.dgates[walk.row * work.dgates_row_stride + walk.head * 3 + work.branch] =
                GATE == SAC_NSA_GATE_WEIGHTS ? dgate * gate * (1 - gate) : dgate;
    }
}
