/* nsa_gate_bwd.cu - the gate's backward through one branch: dgate = dout . branch_out, with w_gate times the slope of the
 * sigmoid; and branch_dout = gate * dout or, FOLDED, what the branch's attention takes in its place, which is a float
 * a row (base/nsa_stages.h). Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED GATE FOLDED NUM_THREADS. */
#include "cuda/kernels/nsa_gates.h"

#define SMALLEST 0x1p-126f /* a gate that rounds to 0 still has a logarithm; NaN stays NaN */

/* What stands for the gate and the dot product in the attention's backward. */
SAC_FN void store_folded(const sac_nsa_args *args, const sac_nsa_gate_bwd_work *work, nsa_place p, int32_t h,
                         int64_t row, float gate, float dot) {
    const int64_t at = h * args->rows + row;
    const float log_gate = LN_2 * ptx_log2(gate < SMALLEST ? SMALLEST : gate);
    work->gated_lse[at] = p.used ? *row_value(&work->lse, p.b, h, p.row) - log_gate : -INFINITE;
    work->delta[at] = dot;
}

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
#if FOLDED
        if (row.there && chunk_column() == 0)
            store_folded(&args, &work, p, walk.head, row.index, gate, dgate);
#else
        chunk scaled = chunk_zero();
        chunk_add(&scaled, gate, &dout);
        if (row.there && chunk_column() < HEAD_DIM_V)
            chunk_store(view_row(&work.branch_dout, p.b, walk.head, p.row) + chunk_column(), &scaled);
#endif
        if (work.dgates && row.there && chunk_column() == 0)
            work.dgates[row.index * work.dgates_row_stride + walk.head * 3 + work.branch] =
                GATE == SAC_NSA_GATE_WEIGHTS ? dgate * gate * (1 - gate) : dgate;
    }
}
