/* warp.h - the thread's place in its warp, and the warp's among all of the grid. */
#ifndef SAC_KERNELS_WARP_H
#define SAC_KERNELS_WARP_H

#include "shared/types.h"

enum { LANES = 32 };
#define ALL_LANES 0xffffffffu

SAC_FN int lane_index(void) { return threadIdx.x % LANES; }
SAC_FN int64_t warp_index(void) { return (int64_t)blockIdx.x * (NUM_THREADS / LANES) + threadIdx.x / LANES; }

/* Those of a ballot that come before this lane. */
SAC_FN int lanes_before(uint32_t ballot) { return __popc(ballot & ((1u << lane_index()) - 1)); }

#endif
