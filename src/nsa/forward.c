/* forward.c - compress, select, attend three times, gate. */
#include "base/error.h"
#include "nsa/heads.h"
#include "nsa/memory.h"
#include "nsa/rows.h"

static size_t bytes_from(saccade_context *ctx, const sac_nsa_call *call, int32_t head) {
    const sac_nsa_call part = sac_nsa_part(call, head);
    return sac_nsa_divide(ctx, &part, NULL).bytes;
}

/* The last heads are fewer where they do not come out even, and a backend may then cut what they do into more parts. */
size_t sac_nsa_workspace(saccade_context *ctx, const sac_nsa_call *call) {
    const int32_t heads = call->args.num_kv_heads, at_once = sac_nsa_heads_at_once(call);
    const int32_t rest = at_once ? heads % at_once : 0;
    const size_t most = bytes_from(ctx, call, 0), last = rest ? bytes_from(ctx, call, heads - rest) : 0;
    return most > last ? most : last;
}

static saccade_status attend(saccade_context *ctx, const sac_nsa_call *call, const sac_nsa_memory *m,
                             sac_nsa_branch branch) {
    const sac_attention_call attention = sac_nsa_branch_call(call, m, branch);
    return call->backend[branch]->forward(ctx, &attention);
}

static saccade_status attend_and_gate(saccade_context *ctx, const sac_nsa_call *call,
                                      const sac_nsa_memory *m) {
    const sac_nsa_stages *stages = sac_nsa_stages_on(m->job.device);
    const bool compressed_is_done = m->job.args.lse_cmp.data; /* select has read its lse */
    if (call->sums) {
        sac_attention_sum sum = sac_nsa_branch_sum(call, m);
        sum.num_made = compressed_is_done;
        return call->backend[SAC_NSA_CMP]->forward_sum(ctx, &sum);
    }
    if (!compressed_is_done) SAC_TRY(attend(ctx, call, m, SAC_NSA_CMP));
    SAC_TRY(attend(ctx, call, m, SAC_NSA_SLC));
    SAC_TRY(attend(ctx, call, m, SAC_NSA_WIN));
    return stages->gate(&m->job, m->branch_out, &call->whole.args.out);
}

static saccade_status forward_part(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_nsa_memory m = sac_nsa_divide(ctx, call, call->workspace);
    const sac_nsa_stages *stages = sac_nsa_stages_on(call->whole.device);
    if (m.cu_cmp) SAC_TRY(stages->offsets(&m.job, m.cu_cmp, m.cu_tiles));
    SAC_TRY(stages->compress(&m.job, m.scratch));
    if (m.job.args.lse_cmp.data) SAC_TRY(attend(ctx, call, &m, SAC_NSA_CMP)); /* select reads its lse */
    SAC_TRY(stages->select(&m.job, m.scratch, m.lists));
    return attend_and_gate(ctx, call, &m);
}

saccade_status sac_nsa_forward(saccade_context *ctx, const sac_nsa_call *call) {
    for (int32_t head = 0; head < call->args.num_kv_heads; head += sac_nsa_heads_at_once(call)) {
        const sac_nsa_call part = sac_nsa_part(call, head);
        SAC_TRY(forward_part(ctx, &part));
    }
    return SACCADE_OK;
}
