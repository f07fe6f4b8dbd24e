/* backend.c - what the CPU backend serves: everything saccade promises, from host memory. */
#include "base/context.h"
#include "base/isa.h"
#include "cpu/cpu.h"
#include "mod/modifier.h"

#include <stdio.h>

static bool not_on_host(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    if (request->device.device_type == kDLCPU) return false;
    return sac_reason(text, size, "tensors are on device type %d, it reads host memory only",
                      (int)request->device.device_type);
}

static bool other_dtype(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    const DLDataType t = request->dtype;
    if (t.lanes == 1 && t.code == kDLFloat && (t.bits == 16 || t.bits == 32)) return false;
    if (t.lanes == 1 && t.code == kDLBfloat && t.bits == 16) return false;
    return sac_reason(text, size, "dtype (code %d, %d bits, %d lanes) is none of f32, f16, bf16", t.code,
                      t.bits, t.lanes);
}

static bool other_head_dim(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    const int32_t d = request->head_dim, dv = request->head_dim_v;
    if (d > 0 && dv > 0 && d <= 256 && dv <= 256 && d % 8 == 0 && dv % 8 == 0) return false;
    return sac_reason(text, size, "head_dim %d and head_dim_v %d: it takes multiples of 8 up to 256", d, dv);
}

static bool wants_backward(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->training && sac_reason(text, size, "gradients are not computed");
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

static const sac_rule_fn rules[] = {wants_backward,
                                    not_on_host,
                                    other_dtype,
                                    other_head_dim,
                                    wants_dropout,
                                    wants_paged_kv,
                                    lacks_score_mod_grad,
                                    wants_context_parallel,
                                    wants_fp8,
                                    wants_graph_capture,
                                    NULL};

static void title(saccade_context *ctx, char *text, size_t size) {
    snprintf(text, size, "CPU: %s, %d thread%s", sac_isa_name(sac_isa_choose(ctx->isa)),
             (int)ctx->num_threads, ctx->num_threads == 1 ? "" : "s");
}

/* Tensors on the host are its own; only the reference could serve them too. */
static int rank(const saccade_request *request) {
    (void)request;
    return 100;
}

static saccade_status ready(saccade_context *ctx, const sac_attention_call *call, bool with_grad) {
    saccade_status status = SACCADE_OK;
    if (call->score_mod) status = sac_modifier_ready(ctx, call->score_mod, with_grad);
    if (status == SACCADE_OK && call->mask_mod) status = sac_modifier_ready(ctx, call->mask_mod, false);
    return status;
}

static size_t workspace(saccade_context *ctx, const sac_attention_call *call, bool backward) {
    return backward ? 0 : sac_cpu_forward_workspace(ctx, call);
}

static saccade_status forward(saccade_context *ctx, const sac_attention_call *call) {
    saccade_status status = ready(ctx, call, false);
    return status == SACCADE_OK ? sac_cpu_forward(ctx, call) : status;
}

const sac_backend sac_cpu_backend = {
    .name = "cpu",
    .title = title,
    .rules = rules,
    .rank = rank,
    .workspace = workspace,
    .forward = forward,
};
