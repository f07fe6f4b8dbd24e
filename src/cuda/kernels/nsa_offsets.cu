/* nsa_offsets.cu - cu_cmp and cu_tiles of packed sequences: the running sums of their blocks and their tiles. One
 * CTA. */
#include "shared/types.h" /* first: NVRTC has no stdint.h */
#include "cuda/kernels/warp.h"
#include "shared/nsa_args.h"

enum { WARPS = NUM_THREADS / LANES };

typedef struct counts {
    int32_t cmp, tiles;
} counts;

/* This lane's and all before it in the warp. */
static __device__ counts sum_up_to_lane(counts c) {
    for (int step = 1; step < LANES; step *= 2) {
        const int32_t cmp = __shfl_up_sync(ALL_LANES, c.cmp, step);
        const int32_t tiles = __shfl_up_sync(ALL_LANES, c.tiles, step);
        if (lane_index() >= step) c.cmp += cmp, c.tiles += tiles;
    }
    return c;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_offsets(const __grid_constant__ sac_nsa_args args, int32_t *cu_cmp, int32_t *cu_tiles) {
    __shared__ counts of_warp[WARPS];
    counts before = {0, 0};
    if (threadIdx.x == 0) cu_cmp[0] = cu_tiles[0] = 0;
    for (int32_t first = 0; first < args.batch; first += NUM_THREADS) {
        const int32_t b = first + (int32_t)threadIdx.x;
        const int32_t len = b < args.batch ? sac_length_of(&args.len, b) : 0;
        const counts own = {len / args.block, sac_ceil_div(len, args.query_tile)};
        counts c = sum_up_to_lane(own);
        if (lane_index() == LANES - 1) of_warp[threadIdx.x / LANES] = c;
        __syncthreads();
        for (int w = 0; w < WARPS; w++) {
            if (w < (int)threadIdx.x / LANES) c.cmp += of_warp[w].cmp, c.tiles += of_warp[w].tiles;
        }
        if (b < args.batch) {
            cu_cmp[b + 1] = before.cmp + c.cmp;
            cu_tiles[b + 1] = before.tiles + c.tiles;
        }
        for (int w = 0; w < WARPS; w++) before.cmp += of_warp[w].cmp, before.tiles += of_warp[w].tiles;
        __syncthreads(); /* all have read of_warp */
    }
}
