/* attn_bwd_dsink.cu - dsink from the parts that attn_bwd_delta.cu left, always in the same order. One CTA, one head. */
#include "cuda/kernels/portable_plan.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_bwd_dsink(const __grid_constant__ sac_attention_args args,
                   const __grid_constant__ sac_portable_plan plan) {
    __shared__ float sums[NUM_THREADS];
    const float *part = plan.dsink_part + (int64_t)blockIdx.x * plan.num_dsink_parts;
    float sum = 0;
    for (int i = threadIdx.x; i < plan.num_dsink_parts; i += NUM_THREADS) sum += part[i];
    sums[threadIdx.x] = sum;
    for (int half = NUM_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) args.dsink[blockIdx.x] = sums[0];
}
