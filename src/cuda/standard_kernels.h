/* standard_kernels.h - the variants that nearly every program uses: what the build compiles into the cubin pack. */
#ifndef SAC_CUDA_STANDARD_KERNELS_H
#define SAC_CUDA_STANDARD_KERNELS_H

#include "cuda/attn_portable.h"

/* Calls `visit` in the place of launches (with a NULL context) for each kernel of each standard call on a GPU of this
 * compute capability. The same kernel may come more than once. Stops at the first failure. */
saccade_status sac_standard_kernels(int32_t compute_capability, sac_launch_fn visit);

#endif
