/* cpu.h - the passes of backend "cpu". */
#ifndef SAC_CPU_CPU_H
#define SAC_CPU_CPU_H

#include "base/backend.h"

extern const sac_backend sac_cpu_backend;

size_t sac_cpu_forward_workspace(saccade_context *ctx, const sac_attention_call *call);
size_t sac_cpu_backward_workspace(saccade_context *ctx, const sac_attention_call *call);

/* Modifiers are ready, call->workspace is at least as large as asked for. */
saccade_status sac_cpu_forward(saccade_context *ctx, const sac_attention_call *call);
saccade_status sac_cpu_backward(saccade_context *ctx, const sac_attention_call *call);

size_t sac_cpu_sum_workspace(saccade_context *ctx, const sac_attention_sum *sum);
saccade_status sac_cpu_forward_sum(saccade_context *ctx, const sac_attention_sum *sum);

#endif
