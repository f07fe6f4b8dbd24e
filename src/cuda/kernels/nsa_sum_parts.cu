/* nsa_sum_parts.cu - parts of a gradient to the whole, in a fixed order. One CTA, LANES elements: its warps share out
 * the parts. Grid: ceil(size / LANES). */
#include "shared/types.h" /* first: NVRTC has no stdint.h */
#include "cuda/kernels/nsa_work.h"
#include "cuda/kernels/warp.h"

enum { WARPS = NUM_THREADS / LANES };

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_sum_parts(const __grid_constant__ sac_nsa_parts work) {
    __shared__ float of_warp[WARPS][LANES];
    const int64_t element = (int64_t)blockIdx.x * LANES + lane_index();
    float sum = 0;
    for (int32_t part = threadIdx.x / LANES; part < work.count && element < work.size; part += WARPS)
        sum += work.part[part * work.size + element];
    of_warp[threadIdx.x / LANES][lane_index()] = sum;
    __syncthreads();
    if (threadIdx.x >= LANES || element >= work.size) return;
    sum = 0;
    for (int warp = 0; warp < WARPS; warp++) sum += of_warp[warp][lane_index()];
    work.sum[element] = sum;
}
