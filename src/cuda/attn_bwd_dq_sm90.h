/* attn_bwd_dq_sm90.h - the Hopper kernel that makes dQ from the queries' side: its variants and its launch. */
#ifndef SAC_CUDA_ATTN_BWD_DQ_SM90_H
#define SAC_CUDA_ATTN_BWD_DQ_SM90_H

#include "base/attention_call.h"
#include "cuda/cuda.h"
#include "cuda/kernels/attn_bwd_sm90.h"

/* The variant that serves a call. spec->modifiers is left to the caller. */
void sac_attn_bwd_dq_sm90_spec(const sac_attention_call *call, bool only_delta, sac_kernel_spec *spec);

/* dq of every row, or, only_delta, delta = rowsum(P * dP) of every row. Of params are set: args (the call's, its
 * block mask on the device), total_q, delta and counter. modifiers: the call's, as device text. */
saccade_status sac_attn_bwd_dq_sm90(saccade_context *ctx, const sac_cuda_device *device,
                                    const sac_attention_call *call, const sac_attn_bwd_sm90_params *params,
                                    const char *modifiers, bool only_delta);

#endif
