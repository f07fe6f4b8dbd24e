/* attn_bwd_sm90.h - the backward pass on Hopper: its variants and its launch. */
#ifndef SAC_CUDA_ATTN_BWD_SM90_H
#define SAC_CUDA_ATTN_BWD_SM90_H

#include <saccade/backend.h>

#include "base/attention_call.h"
#include "cuda/cuda.h"

/* Up to this head_dim it walks lists that parts of their queries share. */
enum { SAC_SM90_MOST_GATHERED = 128 };

/* A bound of the number of key tiles. */
int64_t sac_attn_bwd_sm90_most_tiles(const saccade_request *request);

size_t sac_attn_bwd_sm90_workspace(saccade_context *ctx, const sac_attention_call *call);

/* How many parts of dk and dv keep the device busy. */
int32_t sac_attn_bwd_sm90_parts(saccade_context *ctx, const sac_attention_call *call);

/* A delta serves unless it has to come from scores, or goes on to a sink. */
bool sac_attn_bwd_sm90_takes_delta(const sac_attention_call *call);

saccade_status sac_attn_bwd_sm90(saccade_context *ctx, const sac_attention_call *call);

/* Beside a forward call with modifiers: starts to compile what its backward call will take. modifiers: as device
 * text. */
void sac_attn_bwd_sm90_prefetch(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_attention_call *forward, const char *modifiers);

/* The variant over key tiles that serves a call; sum_dq: dQ is summed there too, if its tile can. spec->modifiers is
 * left to the caller. */
sac_kernel_spec sac_attn_bwd_sm90_spec(const sac_attention_call *call, bool sum_dq);

/* Is dQ summed over key tiles, if it is wanted? */
bool sac_attn_bwd_sm90_sums_dq(const sac_attention_call *call);

#endif
