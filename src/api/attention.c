/* attention.c - saccade_attention_*: check the arguments, choose a backend, give it its workspace, call it. */
#include <saccade/attention.h>

#include "api/attention_check.h"
#include "api/workspace.h"
#include "base/error.h"
#include "dispatch/dispatch.h"

static const saccade_attention_params default_params;

static saccade_status prepare(saccade_context *ctx, const sac_attention_inputs *in, sac_attention_call *call,
                              const sac_backend **backend) {
    if (!ctx) return sac_fail(SACCADE_INVALID_ARGUMENT, "ctx: is NULL");
    saccade_request request;
    saccade_status status = sac_attention_check(in, call, &request);
    if (status == SACCADE_OK) *backend = sac_choose_backend(ctx, &request, &status);
    return status;
}

static saccade_status run(saccade_context *ctx, const sac_attention_inputs *in) {
    sac_attention_call call;
    const sac_backend *backend = NULL;
    SAC_TRY(prepare(ctx, in, &call, &backend));

    bool backward = in->grads != NULL;
    sac_workspace workspace;
    SAC_TRY(sac_workspace_get(ctx, backend, call.device, backend->workspace(ctx, &call, backward),
                              in->params->workspace, in->params->workspace_bytes, &workspace));
    call.workspace = workspace.data;
    call.workspace_bytes = workspace.bytes;
    saccade_status status = backward ? backend->backward(ctx, &call) : backend->forward(ctx, &call);
    sac_workspace_release(ctx, backend, call.device, &workspace);
    return status;
}

saccade_status saccade_attention_forward(saccade_context *ctx, const DLTensor *q, const DLTensor *k,
                                         const DLTensor *v, DLTensor *out, DLTensor *lse,
                                         const saccade_attention_params *params) {
    return run(
        ctx,
        &(sac_attention_inputs){
            .q = q, .k = k, .v = v, .out = out, .lse = lse, .params = params ? params : &default_params});
}

saccade_status saccade_attention_backward(saccade_context *ctx, const DLTensor *q, const DLTensor *k,
                                          const DLTensor *v, const DLTensor *out, const DLTensor *lse,
                                          const saccade_attention_grads *grads,
                                          const saccade_attention_params *params) {
    if (!grads) return sac_fail(SACCADE_INVALID_ARGUMENT, "grads: is NULL");
    return run(ctx, &(sac_attention_inputs){.q = q,
                                            .k = k,
                                            .v = v,
                                            .out = out,
                                            .lse = lse,
                                            .grads = grads,
                                            .params = params ? params : &default_params});
}

saccade_status saccade_attention_workspace(saccade_context *ctx, const DLTensor *q, const DLTensor *k,
                                           const DLTensor *v, const saccade_attention_grads *grads,
                                           const saccade_attention_params *params, size_t *bytes) {
    if (!bytes) return sac_fail(SACCADE_INVALID_ARGUMENT, "bytes: is NULL");
    sac_attention_inputs in = {.q = q,
                               .k = k,
                               .v = v,
                               .grads = grads,
                               .params = params ? params : &default_params,
                               .shapes_only = true};
    sac_attention_call call;
    const sac_backend *backend = NULL;
    saccade_status status = prepare(ctx, &in, &call, &backend);
    if (status == SACCADE_OK) *bytes = backend->workspace(ctx, &call, grads != NULL);
    return status;
}

saccade_status saccade_request_from_call(saccade_request *request, const DLTensor *q, const DLTensor *k,
                                         const DLTensor *v, const saccade_attention_grads *grads,
                                         const saccade_attention_params *params) {
    if (!request) return sac_fail(SACCADE_INVALID_ARGUMENT, "request: is NULL");
    sac_attention_call call;
    return sac_attention_check(&(sac_attention_inputs){.q = q,
                                                       .k = k,
                                                       .v = v,
                                                       .grads = grads,
                                                       .params = params ? params : &default_params,
                                                       .shapes_only = true},
                               &call, request);
}
