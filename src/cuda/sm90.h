/* sm90.h - backend "cuda-sm90": kernels for Hopper GPUs. */
#ifndef SAC_CUDA_SM90_H
#define SAC_CUDA_SM90_H

#include "base/backend.h"

extern const sac_backend sac_cuda_sm90_backend;

#endif
