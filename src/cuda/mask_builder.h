/* mask_builder.h - the kernels that build block masks on a device, by name, for tests that only compile them. */
#ifndef SAC_CUDA_MASK_BUILDER_H
#define SAC_CUDA_MASK_BUILDER_H

#include "cuda/cuda.h"

typedef enum sac_mask_kernel {
    SAC_MASK_VALUES,
    SAC_MASK_CLASSIFY, /* needs a mask_mod as its modifiers */
    SAC_MASK_COUNT,
    SAC_MASK_OFFSETS,
    SAC_MASK_WRITE,
    SAC_MASK_COLUMNS,
    SAC_MASK_TRANSPOSE,
    SAC_NUM_MASK_KERNELS
} sac_mask_kernel;

extern const sac_kernel_spec sac_mask_kernels[SAC_NUM_MASK_KERNELS];

#endif
