/* mask_columns.cu - for each column, how many rows list it: altogether, and before each group of rows. One thread, one
 * column of a head. */
#include "cuda/kernels/mask_args.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_columns(const __grid_constant__ sac_mask_args args) {
    const int64_t index = (int64_t)blockIdx.x * NUM_THREADS + threadIdx.x;
    if (index >= (int64_t)args.batch * args.num_heads * args.columns) return;
    const int64_t head = index / args.columns, groups = sac_ceil_div(args.rows, SAC_ROWS_A_GROUP);
    int64_t at = head * groups * args.columns + index % args.columns;
    int32_t count = 0;
    for (int64_t group = 0; group < groups; group++, at += args.columns) {
        args.before[at] = count;
        count += __popc(args.seen[at]);
    }
    args.col_offsets[index] = count;
}
