/* attn_bwd_dq_convert.cu - the fp32 sums of dQ, times scale, into dq: every row, also those that no sequence uses
 * (their sums are zero). One warp, one row of one head. Grid: ceil(H * total_q / warps). Needs DTYPE HEAD_DIM
 * ALIGNED. */
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/dq_sum.h"
#include "cuda/kernels/element.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_bwd_dq_convert(const __grid_constant__ sac_attention_args args,
                        const __grid_constant__ sac_portable_plan plan) {
    const int64_t i = (int64_t)blockIdx.x * (NUM_THREADS / 32) + threadIdx.x / 32;
    if (i >= args.num_heads * plan.total_q) return;
    const int32_t h = (int32_t)(i / plan.total_q);
    const int64_t row = i - h * plan.total_q;
    int32_t b = 0;
    int64_t index = row;
    if (!args.len_q.cu_seqlens) {
        b = (int32_t)(row / args.len_q.seqlen);
        index = row - (int64_t)b * args.len_q.seqlen;
    }
    element *to = view_row(&args.dq, b, h, index);
    const float *from = plan.dq_sum + i * DQ_SUM_PITCH;
    for (int d = threadIdx.x % 32 * 2; d < HEAD_DIM; d += 64) {
        float2 x = *(const float2 *)(from + dq_sum_place(d));
        pair_store(to + d, x.x * args.scale, x.y * args.scale);
    }
}
