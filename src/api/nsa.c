/* nsa.c - saccade_nsa_*: check the arguments, choose the backend of the branches, give it its workspace, call. */
#include "api/nsa_check.h"
#include "base/tensor_check.h"
#include "api/workspace.h"
#include "base/context.h"
#include "base/error.h"
#include "dispatch/dispatch.h"

static const saccade_nsa_params default_params;

saccade_status sac_nsa_prepare(saccade_context *ctx, const sac_nsa_inputs *in, sac_nsa_call *call) {
    if (!ctx) return sac_fail(SACCADE_INVALID_ARGUMENT, "ctx: is NULL");
    if (!in->t) return sac_fail(SACCADE_INVALID_ARGUMENT, "t: is NULL");
    saccade_request request;
    saccade_status status = sac_nsa_check(in, call, &request);
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES && status == SACCADE_OK; branch++) {
        request.shared_lists = sac_nsa_shares_lists(ctx, call, branch);
        request.training = false;
        call->backend[branch] = sac_choose_backend(ctx, &request, &status);
        if (!call->backward || status != SACCADE_OK) continue;
        request.training = true;
        call->grad_backend[branch] = sac_choose_backend(ctx, &request, &status);
    }
    call->sums = status == SACCADE_OK && sac_nsa_sums(ctx, call);
    return status;
}

typedef saccade_status (*work_fn)(saccade_context *ctx, const sac_nsa_call *call);

static saccade_status run(saccade_context *ctx, const sac_nsa_inputs *in, work_fn work) {
    sac_nsa_call call;
    saccade_status status = sac_nsa_prepare(ctx, in, &call);
    if (status != SACCADE_OK) return status;
    sac_workspace workspace;
    status = sac_workspace_get(ctx, call.backend[0], call.whole.device, sac_nsa_workspace(ctx, &call),
                               in->params->workspace, in->params->workspace_bytes, &workspace);
    if (status != SACCADE_OK) return status;
    call.workspace = workspace.data;
    status = work(ctx, &call);
    sac_workspace_release(ctx, call.backend[0], call.whole.device, &workspace);
    return status;
}

saccade_status saccade_nsa_forward(saccade_context *ctx, const saccade_nsa_tensors *t, DLTensor *out,
                                   const saccade_nsa_params *params) {
    if (!out) return sac_fail(SACCADE_INVALID_ARGUMENT, "out: is NULL");
    return run(ctx, &(sac_nsa_inputs){.t = t, .out = out, .params = params ? params : &default_params},
               sac_nsa_forward);
}

saccade_status saccade_nsa_backward(saccade_context *ctx, const saccade_nsa_tensors *t,
                                    const saccade_nsa_grads *grads, const saccade_nsa_params *params) {
    if (!grads) return sac_fail(SACCADE_INVALID_ARGUMENT, "grads: is NULL");
    return run(ctx,
               &(sac_nsa_inputs){.t = t,
                                 .grads = grads,
                                 .params = params ? params : &default_params,
                                 .purpose = SAC_NSA_FOR_BACKWARD},
               sac_nsa_backward);
}

saccade_status saccade_nsa_workspace(saccade_context *ctx, const saccade_nsa_tensors *t,
                                     const saccade_nsa_grads *grads, const saccade_nsa_params *params,
                                     size_t *bytes) {
    if (!bytes) return sac_fail(SACCADE_INVALID_ARGUMENT, "bytes: is NULL");
    sac_nsa_inputs in = {.t = t,
                         .grads = grads,
                         .params = params ? params : &default_params,
                         .purpose = grads ? SAC_NSA_FOR_BACKWARD : SAC_NSA_FOR_FORWARD,
                         .shapes_only = true};
    sac_nsa_call call;
    saccade_status status = sac_nsa_prepare(ctx, &in, &call);
    if (status == SACCADE_OK) *bytes = sac_nsa_workspace(ctx, &call);
    return status;
}
