/* standard_kernels.h - the variants that nearly every program uses: what the build compiles into the cubin pack. */
#ifndef SAC_CUDA_STANDARD_KERNELS_H
#define SAC_CUDA_STANDARD_KERNELS_H

#include "cuda/attn_portable.h"

/* A call of 8 heads over 8192 keys, for launchers that only see which kernels it takes: every tensor is at `there`,
 * which is never read. group: query heads that share a key head. */
sac_attention_call sac_call_to_compile(sac_dtype dtype, int32_t head_dim, int32_t head_dim_v,
                                       int32_t seqlen_q, int32_t group, void *there);

/* Calls `visit` in the place of launches (with a NULL context) for each kernel of each standard call on a GPU of this
 * compute capability. The same kernel may come more than once. Stops at the first failure. */
saccade_status sac_standard_kernels(int32_t compute_capability, sac_launch_fn visit);

#endif
