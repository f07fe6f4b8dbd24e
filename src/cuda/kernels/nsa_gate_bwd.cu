/* nsa_gate_bwd.cu - the gate's backward through one branch: branch_dout = gate * dout, and dgate = dout . branch_out,
 * with w_gate times the slope of the sigmoid. Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED GATE NUM_THREADS. */
#include "cuda/kernels/nsa_gates.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_gate_bwd(const __grid_constant__ sac_nsa_args args,
                 const __grid_constant__ sac_nsa_gate_bwd_work work) {
    head_walk walk = head_walk_start(args.rows, args.num_heads);
    const chunk w = gate_weights(&args, walk.head, work.branch);
    for (int64_t rounds = head_walk_rounds(&walk); rounds > 0; rounds--) {
        const walk_row row = head_walk_next(&walk);
        const nsa_place p = nsa_token_place(&args, row.index);
        const chunk q = gate_query(&args, p, walk.head);
        const chunk dout = chunk_of(&work.dout, p, walk.head, HEAD_DIM_V);
        const chunk out = chunk_of(&work.branch_out, p, walk.head, HEAD_DIM_V);
        const float gate = gate_of(&args, &w, &q, p, walk.head, work.branch);
        const float dgate = row_dot(&dout, &out);
        chunk scaled = chunk_zero();
        chunk_add(&scaled, gate, &dout);
        if (row.there && chunk_column() < HEAD_DIM_V)
            chunk_store(view_row(&work.branch_dout, p.b, walk.head, p.row) + chunk_column(), &scaled);
        if (work.dgates && row.there && chunk_column() == 0)
            work.dgates[row.index * work.dgates_row_stride + walk.head * 3 + work.branch] =
                GATE == SAC_NSA_GATE_WEIGHTS ? dgate * gate * (1 - gate) : dgate;
    }
}
