/* backward.h - the entries of backward.c; see sac_cpu_kernels. */
#ifndef SAC_CPU_KERNELS_BACKWARD_H
#define SAC_CPU_KERNELS_BACKWARD_H

#include "cpu/kernels/tile.h"

#define sac_backward SAC_FOR_ISA(sac_backward)
#define sac_reduce SAC_FOR_ISA(sac_reduce)

void sac_backward(const sac_attention_call *call, const sac_cpu_bundle *rows, const sac_cpu_sums *sums,
                  void *scratch);
void sac_reduce(void *target, const float *parts, size_t stride, int num_parts, float factor, int dtype,
                int dim);

#endif
