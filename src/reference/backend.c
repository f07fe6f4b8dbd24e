/* backend.c - what the reference serves: everything a host can, in any precision, at any cost in time. */
#include <stdio.h>

#include "base/dtype.h"
#include "base/rules.h"
#include "mod/modifier.h"
#include "reference/reference.h"

static bool unknown_dtype(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    const DLDataType t = request->dtype;
    if (sac_is_16_or_32_bit_float(t) || (t.lanes == 1 && t.code == kDLFloat && t.bits == 64)) return false;
    return sac_reason(text, size, "dtype %s is none of fp64, fp32, fp16, bf16", sac_dtype_text(t));
}

/* Otherwise it would be a silent fallback, a thousand times slower. fp64 nobody else serves. */
static bool not_asked_for(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    if (request->backend || (request->dtype.code == kDLFloat && request->dtype.bits == 64)) return false;
    return sac_reason(text, size, "it is slow and serves fp32, fp16 and bf16 only when pinned by name");
}

static const sac_rule_fn rules[] = {sac_rule_host_memory_only,
                                    unknown_dtype,
                                    not_asked_for,
                                    sac_rule_no_dropout,
                                    sac_rule_score_mod_grad,
                                    sac_rule_no_paged_kv,
                                    sac_rule_no_context_parallel,
                                    sac_rule_no_fp8,
                                    sac_rule_no_graph_capture,
                                    NULL};

static void title(saccade_context *ctx, char *text, size_t size) {
    (void)ctx;
    snprintf(text, size, "reference: fp64 on the host, for judging the others");
}

/* Behind every other backend. */
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
