/* forward.h - the entries of forward.c; see sac_cpu_kernels. */
#ifndef SAC_CPU_KERNELS_FORWARD_H
#define SAC_CPU_KERNELS_FORWARD_H

#include "cpu/kernels/tile.h"

#define sac_forward SAC_FOR_ISA(sac_forward)
#define sac_forward_part SAC_FOR_ISA(sac_forward_part)
#define sac_forward_combine SAC_FOR_ISA(sac_forward_combine)

void sac_forward(const sac_attention_call *call, const sac_cpu_bundle *rows, const sac_cpu_mix *mix,
                 void *scratch);
void sac_forward_part(const sac_attention_call *call, const sac_cpu_tile *tile, sac_range keys, float *state,
                      void *scratch);
void sac_forward_combine(const sac_attention_call *call, const sac_cpu_tile *tile, const float *states,
                         int num_states, void *scratch);

#endif
