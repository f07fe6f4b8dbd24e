/* backward.c - branch by branch, so that one branch's output lives at a time. It is computed again unless it was kept.
 * What the branches pass on is kept in the dtype and summed once, in fp32. */
#include "base/error.h"
#include "nsa/heads.h"
#include "nsa/memory.h"

/* The branch's output, then through the gate and through the attention. */
static saccade_status branch_backward(saccade_context *ctx, const sac_nsa_call *call, const sac_nsa_memory *m,
                                      sac_nsa_branch branch) {
    const sac_nsa_stages *stages = sac_nsa_stages_on(call->whole.device);
    if (sac_nsa_is_sparse(&m->job.args, branch))
        SAC_TRY(stages->make_lists(&m->job, branch, true, m->lists[branch]));
    sac_attention_call attention = sac_nsa_branch_call(call, m, branch);
    if (!call->branch_out[branch].data) {
        sac_attention_call again = attention;
        again.args.lse.data = NULL; /* it was saved */
        SAC_TRY(call->backend[branch]->forward(ctx, &again));
    }

    sac_nsa_gate_grads gate = {.branch = branch,
                               .dout = call->whole.args.dout,
                               .branch_out = m->branch_out[branch],
                               .dgates = m->dgates};
    if (sac_nsa_folds_gate(call, m, branch)) {
        gate.lse = attention.args.lse;
        gate.gated_lse = m->gated_lse.data;
        gate.delta = attention.delta = m->delta;
        attention.args.lse = m->gated_lse;
        attention.args.dout = gate.dout;
    } else {
        gate.branch_dout = attention.args.dout = m->branch_dout;
    }
    SAC_TRY(stages->gate_backward(&m->job, &gate));

    attention.args.dq = m->queries.branch_dq[branch];
    attention.args.dk = m->keys.branch[branch];
    attention.args.dv = m->values.branch[branch];
    if (branch == SAC_NSA_CMP) {
        attention.grad_parts = m->keys.parts;
        attention.dk_part_stride = m->keys.part_stride;
        attention.dv_part_stride = m->values.part_stride;
    }
    return call->grad_backend[branch]->backward(ctx, &attention);
}

static saccade_status backward_part(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_nsa_memory m = sac_nsa_divide(ctx, call, call->workspace);
    const sac_nsa_stages *stages = sac_nsa_stages_on(call->whole.device);
    if (m.cu_cmp) SAC_TRY(stages->offsets(&m.job, m.cu_cmp, m.cu_tiles));
    if (sac_nsa_is_sparse(&m.job.args, SAC_NSA_CMP)) {
        /* Which blocks the sparse compressed branch visited is not saved: scoring again costs little. */
        sac_nsa_job compressed_only = m.job;
        compressed_only.args.indices.data = NULL;
        SAC_TRY(stages->select(&compressed_only, m.scratch, NULL));
    }
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        SAC_TRY(branch_backward(ctx, call, &m, branch));
    SAC_TRY(stages->query_grads(&m.job, &m.queries, m.scratch));
    return stages->key_grads(&m.job, &m.keys, &m.values, m.scratch);
}

saccade_status sac_nsa_backward(saccade_context *ctx, const sac_nsa_call *call) {
    for (int32_t head = 0; head < call->args.num_kv_heads; head += sac_nsa_heads_at_once(call)) {
        const sac_nsa_call part = sac_nsa_part(call, head);
        SAC_TRY(backward_part(ctx, &part));
    }
    return SACCADE_OK;
}
