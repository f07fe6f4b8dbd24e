/* attn_fwd_sm90.h - the Hopper forward kernel: its variants and its launch. */
#ifndef SAC_CUDA_ATTN_FWD_SM90_H
#define SAC_CUDA_ATTN_FWD_SM90_H

#include <saccade/backend.h>

#include "base/attention_call.h"
#include "cuda/cuda.h"

/* Bytes of workspace of a call. */
size_t sac_attn_fwd_sm90_workspace(saccade_context *ctx, const sac_attention_call *call);

saccade_status sac_attn_fwd_sm90(saccade_context *ctx, const sac_attention_call *call);

/* Sums of calls, of which the last stores the sum: is one served, its workspace, its launches. */
bool sac_attn_fwd_sm90_sums(const sac_attention_sum *sum);
size_t sac_attn_fwd_sm90_sum_workspace(saccade_context *ctx, const sac_attention_sum *sum);
saccade_status sac_attn_fwd_sm90_sum(saccade_context *ctx, const sac_attention_sum *sum);

/* The variant that serves a call; joined: calls whose sum it stores, 0: none; split: the last tiles' keys are.
 * *modifiers is the text that spec->modifiers points to; the caller frees it. */
saccade_status sac_attn_fwd_sm90_spec(const sac_attention_call *call, int32_t joined, bool split,
                                      sac_kernel_spec *spec, char **modifiers);

/* A bound of the number of query tiles. */
int64_t sac_attn_fwd_sm90_most_tiles(const saccade_request *request);

#endif
