/* attn_fill.cu - rows between, after and beyond the used parts of sequences: 0, and lse -inf. A few lanes of each warp
 * look where one row each belongs; those that belong nowhere the whole warp fills, in all heads. Grid: ceil(total / (warps
 * * SAC_FILL_ROWS)). Works on bytes: any dtype, any alignment. */
#include "cuda/kernels/fill_args.h"
#include "cuda/kernels/schedule.h"

SAC_FN void fill_row(const sac_fill_args *args, int64_t b, int64_t index) {
    const int lane = threadIdx.x % 32;
    for (int32_t h = 0; h < args->num_heads; h++) {
        uint8_t *to = (uint8_t *)args->view.data + (b * args->view.batch_stride + h * args->view.head_stride +
                                                    index * args->view.row_stride) *
                                                       args->element_bytes;
        for (int i = lane; i < args->row_bytes; i += 32) to[i] = 0;
        if (lane == 0 && args->lse.data)
            args->lse
                .data[b * args->lse.batch_stride + h * args->lse.head_stride + index * args->lse.row_stride] =
                __int_as_float(0xff800000);
    }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_fill(const __grid_constant__ sac_fill_args args) {
    const int64_t warp = ((int64_t)blockIdx.x * NUM_THREADS + threadIdx.x) / 32;
    const int64_t row = warp * SAC_FILL_ROWS + threadIdx.x % 32;
    row_place place = {0, 1, 0};
    if (threadIdx.x % 32 < SAC_FILL_ROWS && row < args.total)
        place = row_place_of(&args.len, args.batch, row);
    if (args.len.cu_seqlens) place.b = 0;
    for (uint32_t left = __ballot_sync(~0u, !place.used); left; left &= left - 1) {
        const int lane = __ffs(left) - 1;
        fill_row(&args, __shfl_sync(~0u, place.b, lane), __shfl_sync(~0u, place.index, lane));
    }
}
