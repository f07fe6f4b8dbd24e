/* tensor_map.h - a CUtensorMap: opaque, made by the driver (cuda/tensor_map.c), read by the copy engine (ptx/tma.h). */
#ifndef SAC_KERNELS_TENSOR_MAP_H
#define SAC_KERNELS_TENSOR_MAP_H

#include "shared/types.h"

typedef struct sac_tensor_map {
    uint64_t opaque[16];
} __attribute__((aligned(64))) sac_tensor_map;

#endif
