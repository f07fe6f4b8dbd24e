/* nsa.h - the stages of native sparse attention on a GPU, as base/nsa_stages.h describes them. */
#ifndef SAC_CUDA_NSA_H
#define SAC_CUDA_NSA_H

#include "base/nsa_stages.h"

extern const sac_nsa_stages sac_nsa_cuda_stages;

#endif
