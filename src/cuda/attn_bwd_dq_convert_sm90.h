/* attn_bwd_dq_convert_sm90.h - from the fp32 sums of the Hopper backward to gradients. */
#ifndef SAC_CUDA_ATTN_BWD_DQ_CONVERT_SM90_H
#define SAC_CUDA_ATTN_BWD_DQ_CONVERT_SM90_H

#include "cuda/attn_portable.h"
#include "cuda/kernels/attn_bwd_sm90.h"

sac_kernel_spec sac_attn_bwd_dq_convert_sm90_spec(const sac_attention_args *args);

/* dq_sum to dq, of all heads. */
saccade_status sac_attn_bwd_dq_convert_sm90(const sac_portable_job *job,
                                            const sac_attn_bwd_sm90_params *params);

/* dk_sum and dv_sum, where there are any, to dk and dv. */
saccade_status sac_attn_bwd_key_sums_convert_sm90(const sac_portable_job *job,
                                                  const sac_attn_bwd_sm90_params *params);

#endif
