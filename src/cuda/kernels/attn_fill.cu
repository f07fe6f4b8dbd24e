/* attn_fill.cu - rows between, after and beyond the used parts of sequences: 0, and lse -inf. One warp, one row of all
 * heads. Grid: ceil(total / warps). Works on bytes: any dtype, any alignment. */
#include "cuda/kernels/fill_args.h"
#include "cuda/kernels/schedule.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_fill(const __grid_constant__ sac_fill_args args) {
    const int64_t row = (int64_t)blockIdx.x * (NUM_THREADS / 32) + threadIdx.x / 32;
    if (row >= args.total) return;
    const row_place place = row_place_of(&args.len, args.batch, row);
    if (place.used) return;
    const int64_t b = args.len.cu_seqlens ? 0 : place.b;
    const int lane = threadIdx.x % 32;
    for (int32_t h = 0; h < args.num_heads; h++) {
        uint8_t *to = (uint8_t *)args.view.data + (b * args.view.batch_stride + h * args.view.head_stride +
                                                   place.index * args.view.row_stride) *
                                                      args.element_bytes;
        for (int i = lane; i < args.row_bytes; i += 32) to[i] = 0;
        if (lane == 0 && args.lse.data)
            args.lse.data[b * args.lse.batch_stride + h * args.lse.head_stride +
                          place.index * args.lse.row_stride] = __int_as_float(0xff800000);
    }
}
