/* portable.c - backend "cuda-portable": what it serves, and one call from its checks to its kernels. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/attn_portable.h"
#include "cuda/device_mask.h"
#include "cuda/kernel_prefetch.h"
#include "cuda/modifier_text.h"
#include "cuda/rules.h"
#include "mod/modifier.h"

/* ---- rules ---- */

static bool too_old(const saccade_request *request, const void *facts, char *text, size_t size) {
    int32_t capability = sac_cuda_capability(request, facts);
    return capability > 0 && capability < 80 &&
           sac_reason(text, size, "compute capability %d.%d is below 8.0", capability / 10, capability % 10);
}

/* For a request about a device that is not present, what its capability has. */
static int32_t smem_bytes(const saccade_request *request, const sac_cuda_facts *facts) {
    if (!request->compute_capability && facts && facts->device) return facts->device->smem_bytes;
    return sac_cuda_smem_of(request->compute_capability);
}

static bool shared_memory(const saccade_request *request, const void *facts, char *text, size_t size) {
    int32_t bytes = smem_bytes(request, facts), dtype = request->dtype.bits == 32 ? SAC_F32 : SAC_BF16;
    if (sac_max(request->head_dim, request->head_dim_v) > 256) return false; /* refused by another rule */
    if (sac_portable_serves_forward(dtype, request->head_dim, request->head_dim_v, bytes) &&
        (!request->training ||
         sac_portable_serves_backward(dtype, request->head_dim, request->head_dim_v, bytes)))
        return false;
    return sac_reason(text, size,
                      "head_dim %d with head_dim_v %d in %d-bit numbers has no tile for the GPU's %d bytes "
                      "of shared memory",
                      request->head_dim, request->head_dim_v, request->dtype.bits, bytes);
}

static const sac_rule_fn rules[] = {sac_rule_not_on_gpu,
                                    sac_rule_no_gpu,
                                    sac_rule_no_compiler,
                                    too_old,
                                    sac_rule_16_or_32_bit_floats,
                                    sac_rule_head_dims_8_to_256,
                                    shared_memory,
                                    sac_rule_score_mod_grad,
                                    sac_rule_deterministic_aux_grad,
                                    sac_rule_no_dropout,
                                    sac_rule_no_paged_kv,
                                    sac_rule_no_context_parallel,
                                    sac_rule_no_fp8,
                                    NULL};

/* A few queries whose heads share keys: they lie in one tile here, and their keys are read once. The Hopper forward
 * reads them for each head (docs/performance/portable.md, "Decoding"). */
static int rank(const saccade_request *request) {
    enum { ROWS = 64, BEFORE_HOPPER = 5, AFTER_HOPPER = 200 };
    bool shared = request->num_heads > request->num_kv_heads && request->num_kv_heads > 0;
    int64_t group = shared ? request->num_heads / request->num_kv_heads : 1;
    return shared && !request->training && !request->block_mask && request->seqlen_q * group <= ROWS
               ? BEFORE_HOPPER
               : AFTER_HOPPER;
}

static void title(saccade_context *ctx, char *text, size_t size) {
    const sac_cuda_facts *facts = sac_cuda_facts_of(ctx, (DLDevice){kDLCUDA, 0});
    const char *name = facts->device ? facts->device->name : "no GPU here";
    snprintf(text, size, "portable CUDA kernels (sm_80 and up): %s; %s", name, facts->pack);
}

/* ---- one call ---- */

/* In the place of a launch. What has no modifier is in the pack, or soon compiled. */
static saccade_status prefetch_modified(saccade_context *ctx, const sac_cuda_device *device,
                                        const sac_kernel_spec *spec, int64_t num_ctas, void **params) {
    return spec->modifiers ? sac_kernel_prefetch(ctx, device, spec, num_ctas, params) : SACCADE_OK;
}

/* With a new modifier, compile for the backward call too that will follow. The gradients are guessed to lie as q, k, v
 * and out do. */
static void prefetch_backward(const sac_portable_job *forward, const sac_attention_call *call) {
    static char workspace[64];
    sac_portable_job job = *forward;
    sac_attention_args *args = &job.args;
    if (!sac_backward_may_follow(call) ||
        !sac_portable_serves_backward(args->dtype, args->head_dim, args->head_dim_v, job.device->smem_bytes))
        return;
    job.launch = prefetch_modified;
    args->dout = args->out, args->dq = args->q, args->dk = args->k, args->dv = args->v;
    sac_portable_plan_backward(
        &(sac_attention_call){.args = *args, .total_q = call->total_q, .total_k = call->total_k}, workspace,
        &job.plan);
    sac_portable_launch_backward(&job);
}

static saccade_status run(saccade_context *ctx, const sac_attention_call *call, bool backward) {
    sac_portable_job job = {.ctx = ctx, .launch = sac_kernel_launch, .args = call->args};
    SAC_TRY(sac_cuda_enter(ctx, call->device.device_id, &job.device));
    if (backward)
        sac_portable_plan_backward(call, call->workspace, &job.plan);
    else
        sac_portable_plan_forward(job.device, call, call->workspace, &job.plan);
    saccade_status status = sac_device_mask(ctx, job.device, call, &job.args);
    if (status == SACCADE_OK) status = sac_cuda_modifier_text(call, &job.modifiers);
    if (status == SACCADE_OK && !backward && job.modifiers) prefetch_backward(&job, call);
    if (status == SACCADE_OK)
        status = backward ? sac_portable_launch_backward(&job) : sac_portable_launch_forward(&job);
    free(job.modifiers);
    sac_cuda_leave();
    return status;
}

static saccade_status forward(saccade_context *ctx, const sac_attention_call *call) {
    return run(ctx, call, false);
}
static saccade_status backward(saccade_context *ctx, const sac_attention_call *call) {
    return run(ctx, call, true);
}

static size_t workspace(saccade_context *ctx, const sac_attention_call *call, bool for_backward) {
    sac_portable_plan plan;
    if (for_backward) return sac_portable_plan_backward(call, NULL, &plan);
    return sac_portable_plan_forward(sac_cuda_facts_of(ctx, call->device)->device, call, NULL, &plan);
}

const sac_backend sac_cuda_portable_backend = {
    .name = "cuda-portable",
    .title = title,
    .facts = sac_cuda_rule_facts,
    .rules = rules,
    .rank = rank,
    .alloc = sac_cuda_alloc,
    .free = sac_cuda_free,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
};
