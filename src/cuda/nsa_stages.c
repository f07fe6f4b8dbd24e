/* nsa_stages.c - a GPU's stages in one table. */
#include "cuda/nsa.h"

const sac_nsa_stages sac_nsa_cuda_stages = {0};
