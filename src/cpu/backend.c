/* backend.c - what the CPU backend serves: everything saccade promises, from host memory. */
#include "base/context.h"
#include "base/error.h"
#include "base/isa.h"
#include "base/rules.h"
#include "cpu/cpu.h"
#include "mod/modifier.h"

#include <stdio.h>

static const sac_rule_fn rules[] = {sac_rule_host_memory_only,    sac_rule_16_or_32_bit_floats,
                                    sac_rule_head_dims_8_to_256,  sac_rule_no_dropout,
                                    sac_rule_score_mod_grad,      sac_rule_no_paged_kv,
                                    sac_rule_no_context_parallel, sac_rule_no_fp8,
                                    sac_rule_no_graph_capture,    NULL};

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
    return backward ? sac_cpu_backward_workspace(ctx, call) : sac_cpu_forward_workspace(ctx, call);
}

static saccade_status forward(saccade_context *ctx, const sac_attention_call *call) {
    saccade_status status = ready(ctx, call, false);
    return status == SACCADE_OK ? sac_cpu_forward(ctx, call) : status;
}

static saccade_status backward(saccade_context *ctx, const sac_attention_call *call) {
    saccade_status status = ready(ctx, call, true);
    return status == SACCADE_OK ? sac_cpu_backward(ctx, call) : status;
}

static saccade_status forward_sum(saccade_context *ctx, const sac_attention_sum *sum) {
    for (int i = 0; i < sum->num_calls; i++) {
        SAC_TRY(ready(ctx, &sum->calls[i], false));
    }
    return sac_cpu_forward_sum(ctx, sum);
}

const sac_backend sac_cpu_backend = {
    .name = "cpu",
    .title = title,
    .rules = rules,
    .rank = rank,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .sum_workspace = sac_cpu_sum_workspace,
    .forward_sum = forward_sum,
};
