/* attn_bwd_diagonal_sm90.h - keys that the Hopper backward leaves to a kernel of their own: those seen along diagonals
 * only. */
#ifndef SAC_CUDA_ATTN_BWD_DIAGONAL_SM90_H
#define SAC_CUDA_ATTN_BWD_DIAGONAL_SM90_H

#include "base/attention_call.h"
#include "cuda/attn_portable.h"
#include "cuda/kernels/attn_bwd_sm90.h"

/* Key blocks from here on are; all blocks: none is. */
int32_t sac_attn_bwd_diagonals_from(const sac_attention_call *call);
bool sac_attn_bwd_has_diagonals(const sac_attention_call *call);

/* The variant that serves a call; sum_dq: dQ is summed there too. spec->modifiers is left to the caller. */
sac_kernel_spec sac_attn_bwd_diagonal_sm90_spec(const sac_attention_call *call, bool sum_dq);

/* Their dK and dV, and what they add to dQ, beside those of the other keys, whose params these are. */
saccade_status sac_attn_bwd_diagonal_sm90(const sac_portable_job *job, const sac_attention_call *call,
                                          const sac_attn_bwd_sm90_params *common);

#endif
