/* backend.c - what the reference serves: everything a host can, in any precision, at any cost in time. */
#include <stdio.h>

#include "mod/modifier.h"
#include "reference/reference.h"

static bool not_on_host(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    if (request->device.device_type == kDLCPU) return false;
    return sac_reason(text, size, "tensors are on device type %d, it reads host memory only",
                      (int)request->device.device_type);
}

static bool unknown_dtype(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    DLDataType t = request->dtype;
    if (t.lanes == 1 && t.code == kDLFloat && (t.bits == 16 || t.bits == 32 || t.bits == 64)) return false;
    if (t.lanes == 1 && t.code == kDLBfloat && t.bits == 16) return false;
    return sac_reason(text, size, "dtype (code %d, %d bits, %d lanes) is none of f64, f32, f16, bf16", t.code,
                      t.bits, t.lanes);
}

static bool wants_dropout(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->dropout && sac_reason(text, size, "dropout is not computed");
}

static bool lacks_score_mod_grad(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->training && request->score_mod && !request->score_mod_grad &&
           sac_reason(text, size, "the score_mod has no backward text, which training needs");
}

static bool wants_paged_kv(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->paged_kv && sac_reason(text, size, "keys and values in pages are not read");
}

static bool wants_context_parallel(const saccade_request *request, const void *facts, char *text,
                                   size_t size) {
    (void)facts;
    return request->context_parallel && sac_reason(text, size, "a context split over devices is not served");
}

static bool wants_fp8(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->fp8 && sac_reason(text, size, "fp8 is not computed");
}

static bool wants_graph_capture(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->graph_capture && sac_reason(text, size, "it runs on the host, outside any CUDA graph");
}

static const sac_rule_fn rules[] = {not_on_host,
                                    unknown_dtype,
                                    wants_dropout,
                                    lacks_score_mod_grad,
                                    wants_paged_kv,
                                    wants_context_parallel,
                                    wants_fp8,
                                    wants_graph_capture,
                                    NULL};

static void title(saccade_context *ctx, char *text, size_t size) {
    (void)ctx;
    snprintf(text, size, "reference: fp64 on the host, for judging the others");
}

/* Behind every other backend: it is chosen when pinned, or when nothing else serves. */
static int rank(const saccade_request *request) {
    (void)request;
    return 1000000;
}

saccade_status sac_reference_ready(saccade_context *ctx, const sac_attention_call *call, bool with_grad) {
    saccade_status status = SACCADE_OK;
    if (call->score_mod) status = sac_modifier_ready(ctx, call->score_mod, with_grad);
    if (status == SACCADE_OK && call->mask_mod) status = sac_modifier_ready(ctx, call->mask_mod, false);
    return status;
}

const sac_backend sac_reference_backend = {
    .name = "reference",
    .title = title,
    .rules = rules,
    .rank = rank,
    .workspace = sac_reference_workspace,
    .forward = sac_reference_forward,
    .backward = sac_reference_backward,
};
