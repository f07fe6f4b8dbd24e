/* sm90_calls.h - calls that ask for each kind of variant of a Hopper kernel. Only what a variant depends on is filled in:
 * of most pointers, whether they are there. */
#ifndef TEST_SM90_CALLS_H
#define TEST_SM90_CALLS_H

#include "base/attention_call.h"

sac_attention_call plain_call(int32_t head_dim, int32_t head_dim_v, int32_t dtype);
sac_attention_call ragged_call(int32_t head_dim, int32_t head_dim_v);
sac_attention_call blocks_call(int32_t head_dim, int32_t head_dim_v, int32_t kv_block);
sac_attention_call shared_lists_call(int32_t head_dim, int32_t head_dim_v);
sac_attention_call softcap_call(int32_t head_dim, int32_t head_dim_v);
sac_attention_call alibi_call(int32_t head_dim, int32_t head_dim_v);

/* A score_mod whose gradient needs the score, and a mask_mod; to be destroyed by the caller. */
saccade_modifier *some_score_mod(saccade_context *context);
saccade_modifier *some_mask_mod(saccade_context *context);

#endif
