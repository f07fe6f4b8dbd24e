/* sm90_calls.c - calls that ask for each kind of variant. */
#include "support/sm90_calls.h"

#include "support/test_context.h"

static char there[64];

sac_attention_call plain_call(int32_t head_dim, int32_t head_dim_v, int32_t dtype) {
    return (sac_attention_call){
        .args = {.dtype = dtype, .head_dim = head_dim, .head_dim_v = head_dim_v, .scale = 0.125f}};
}

sac_attention_call ragged_call(int32_t head_dim, int32_t head_dim_v) {
    sac_attention_call call = plain_call(head_dim, head_dim_v, SAC_BF16);
    call.args.len_q.cu_seqlens = call.args.len_k.cu_seqlens = (const int32_t *)there;
    return call;
}

sac_attention_call blocks_call(int32_t head_dim, int32_t head_dim_v, int32_t kv_block) {
    sac_attention_call call = plain_call(head_dim, head_dim_v, SAC_BF16);
    call.args.blocks.by_query.offsets = (const int64_t *)there;
    call.args.blocks.q_block = 128;
    call.args.blocks.kv_block = kv_block;
    return call;
}

sac_attention_call shared_lists_call(int32_t head_dim, int32_t head_dim_v) {
    sac_attention_call call = blocks_call(head_dim, head_dim_v, 64);
    call.args.blocks.by_query.bits = (const uint32_t *)there;
    call.args.blocks.q_block = 16;
    call.args.blocks.part = 1;
    call.args.blocks.heads_per_list = 4;
    return call;
}

sac_attention_call softcap_call(int32_t head_dim, int32_t head_dim_v) {
    sac_attention_call call = plain_call(head_dim, head_dim_v, SAC_BF16);
    call.args.softcap = 30;
    return call;
}

sac_attention_call alibi_call(int32_t head_dim, int32_t head_dim_v) {
    sac_attention_call call = plain_call(head_dim, head_dim_v, SAC_BF16);
    call.args.alibi_slopes = (const float *)there;
    return call;
}

static saccade_modifier *made(saccade_context *context, const saccade_modifier_params *params) {
    saccade_modifier *modifier = NULL;
    must(saccade_modifier_create(context, &modifier, params));
    return modifier;
}

saccade_modifier *some_score_mod(saccade_context *context) {
    return made(context, &(saccade_modifier_params){.kind = SACCADE_SCORE_KIND,
                                                    .text = "score * (1 + 0.01f * score)",
                                                    .grad_text = "grad * (1 + 0.02f * score)"});
}

saccade_modifier *some_mask_mod(saccade_context *context) {
    return made(context,
                &(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "q_idx / 100 == kv_idx / 100"});
}
