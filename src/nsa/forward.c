/* forward.c - compress, select, attend three times, gate. */
#include "base/context.h"
#include "nsa/memory.h"

size_t sac_nsa_workspace(saccade_context *ctx, const sac_nsa_call *call) {
    return sac_nsa_divide(ctx, call, NULL).bytes;
}

saccade_status sac_nsa_forward(saccade_context *ctx, const sac_nsa_call *call) {
    const sac_nsa_memory m = sac_nsa_divide(ctx, call, call->workspace);
    sac_nsa_offsets(&m.args, m.cu_cmp, m.cu_tiles);
    sac_nsa_compress(&m.args, ctx->num_threads);
    sac_nsa_select(&m.args, m.scratch, ctx->num_threads);
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        sac_nsa_make_lists(&m, (sac_nsa_branch)branch);
        sac_attention_call attention = sac_nsa_branch_call(call, &m, (sac_nsa_branch)branch);
        saccade_status status = call->backend->forward(ctx, &attention);
        if (status != SACCADE_OK) return status;
    }
    sac_nsa_gate(&m.args, m.branch_out, &call->whole.args.out, call->whole.total_q, ctx->num_threads);
    return SACCADE_OK;
}
