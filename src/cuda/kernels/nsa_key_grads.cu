/* nsa_key_grads.cu - dk, or dv: what the selected branch and the window give, and each token's share of its block's
 * mean. Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED NUM_THREADS. */
#include "cuda/kernels/row_chunk.h"
#include "cuda/kernels/nsa_place.h"
#include "cuda/kernels/nsa_work.h"

SAC_FN chunk share_of(const sac_nsa_args *args, const sac_nsa_key_grads_work *work, int64_t row, int32_t h) {
    const int64_t from = nsa_row_of_mean(args, row);
    if (from < 0) return chunk_zero();
    if (work->share_fp32)
        return chunk_load_floats(work->share_fp32 + (from * args->num_kv_heads + h) * work->dim +
                                 chunk_column());
    const nsa_place p = nsa_cmp_place(args, from);
    return chunk_load(view_row(&work->share_view, p.b, h, p.row) + chunk_column());
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_key_grads(const __grid_constant__ sac_nsa_args args,
                  const __grid_constant__ sac_nsa_key_grads_work work) {
    head_walk walk = head_walk_start(args.rows, args.num_kv_heads);
    if (chunk_column() >= work.dim) return;
    for (int64_t rounds = head_walk_rounds(&walk); rounds > 0; rounds--) {
        const walk_row row = head_walk_next(&walk);
        const nsa_place p = nsa_token_place(&args, row.index);
        const chunk slc = chunk_load(view_row(&work.slc, p.b, walk.head, p.row) + chunk_column());
        const chunk win = chunk_load(view_row(&work.win, p.b, walk.head, p.row) + chunk_column());
        const chunk share = share_of(&args, &work, row.index, walk.head);
        chunk sum = slc;
        chunk_add(&sum, 1, &win);
        chunk_add(&sum, 1 / (float)args.block, &share);
        if (row.there) chunk_store(view_row(&work.sum, p.b, walk.head, p.row) + chunk_column(), &sum);
    }
}
