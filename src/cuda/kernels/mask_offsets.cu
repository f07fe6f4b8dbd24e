/* mask_offsets.cu - counts to offsets, in place: offsets[i] becomes the sum of what stands before it, offsets[n] that
 * of all. One CTA; each warp adds up a stretch of its own, then walks it again from where it starts. Where something
 * is wrong with the mask all become 0: it lists nothing. */
#include "cuda/kernels/mask_args.h"
#include "cuda/kernels/warp.h"

enum { WARPS = NUM_THREADS / LANES };

/* This lane's value and all before it in the warp. */
static __device__ int64_t inclusive_sum(int64_t value) {
    for (int step = 1; step < LANES; step *= 2) {
        const int64_t other = __shfl_up_sync(ALL_LANES, value, step);
        if (lane_index() >= step) value += other;
    }
    return value;
}

/* What all warps before this one hold together, and in *total what all do. */
static __device__ int64_t sum_of_earlier_warps(int64_t own, int64_t *total) {
    __shared__ int64_t sums[WARPS];
    const int warp = threadIdx.x / LANES;
    if (lane_index() == 0) sums[warp] = own;
    __syncthreads();
    int64_t earlier = 0;
    *total = 0;
    for (int i = 0; i < WARPS; i++) {
        if (i < warp) earlier += sums[i];
        *total += sums[i];
    }
    return earlier;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_offsets(const __grid_constant__ sac_mask_args args, int64_t *offsets, int64_t n) {
    const int64_t stretch = (n + NUM_THREADS - 1) / NUM_THREADS * LANES;
    const int64_t begin = threadIdx.x / LANES * stretch, end = begin + stretch < n ? begin + stretch : n;
    int64_t sum = 0, total;
    for (int64_t i = begin + lane_index(); i < end; i += LANES) sum += offsets[i];
    sum = __shfl_sync(ALL_LANES, inclusive_sum(sum), LANES - 1);
    int64_t at = sum_of_earlier_warps(sum, &total);

    const bool over = total > args.capacity, nothing = over || args.state->problem != 0;
    for (int64_t first = begin; first < end; first += LANES) {
        const int64_t i = first + lane_index(), count = i < end ? offsets[i] : 0;
        const int64_t up_to_here = inclusive_sum(count);
        if (i < end) offsets[i] = nothing ? 0 : at + up_to_here - count;
        at += __shfl_sync(ALL_LANES, up_to_here, LANES - 1);
    }
    if (threadIdx.x != 0) return;
    offsets[n] = nothing ? 0 : total;
    if (over)
        atomicMax((unsigned long long *)&args.state->problem,
                  SAC_MASK_PROBLEM(SAC_MASK_OVER_CAPACITY, total));
}
