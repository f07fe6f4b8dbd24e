/* sm90.c - what the Hopper kernels serve, and what they leave to the portable ones. */
#include "cuda/sm90.h"

#include <stdio.h>

#include "base/dtype.h"
#include "base/rules.h"
#include "cuda/attn_bwd_sm90.h"
#include "cuda/attn_fwd_sm90.h"
#include "cuda/rules.h"

static bool not_hopper(const saccade_request *request, const void *facts, char *text, size_t size) {
    int32_t capability = sac_cuda_capability(request, facts);
    return capability > 0 && capability != 90 &&
           sac_reason(text, size, "compute capability %d.%d is not 9.0", capability / 10, capability % 10);
}

static bool wide_dtype(const saccade_request *request, const void *facts, char *text, size_t size) {
    DLDataType t = request->dtype;
    (void)facts;
    if (t.bits == 16 && t.lanes == 1 && (t.code == kDLFloat || t.code == kDLBfloat)) return false;
    return sac_reason(text, size, "dtype %s is neither bf16 nor fp16", sac_dtype_text(t));
}

static bool unaligned_rows(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->unaligned && sac_reason(text, size,
                                            "a row of q, k, v, out or a gradient does not start at a "
                                            "multiple of 16 bytes, which its copies need");
}

static bool too_many_tiles(const saccade_request *request, const void *facts, char *text, size_t size) {
    const int64_t count = sac_attn_fwd_sm90_most_tiles(request), keys = sac_attn_bwd_sm90_most_tiles(request);
    (void)facts;
    if (request->training && keys > INT32_MAX)
        return sac_reason(text, size, "%lld key tiles are above 2^31 - 1", (long long)keys);
    return count > INT32_MAX &&
           sac_reason(text, size, "%lld query tiles are above 2^31 - 1", (long long)count);
}

static bool shared_lists(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    if (!request->shared_lists || !request->training) return false;
    const int32_t most = sac_max(request->head_dim, request->head_dim_v);
    return most > SAC_SM90_MOST_GATHERED &&
           sac_reason(
               text, size,
               "backward it walks block lists that parts of their queries share up to head_dim %d, not %d",
               SAC_SM90_MOST_GATHERED, most);
}

static const sac_rule_fn rules[] = {sac_rule_not_on_gpu,
                                    sac_rule_no_gpu,
                                    sac_rule_no_compiler,
                                    not_hopper,
                                    wide_dtype,
                                    sac_rule_head_dims_8_to_256,
                                    sac_rule_score_mod_grad,
                                    sac_rule_deterministic_aux_grad,
                                    unaligned_rows,
                                    too_many_tiles,
                                    shared_lists,
                                    sac_rule_no_dropout,
                                    sac_rule_no_paged_kv,
                                    sac_rule_no_context_parallel,
                                    sac_rule_no_fp8,
                                    NULL};

static void title(saccade_context *ctx, char *text, size_t size) {
    const sac_cuda_facts *facts = sac_cuda_facts_of(ctx, (DLDevice){kDLCUDA, 0});
    snprintf(text, size, "Hopper kernels: %s", facts->device ? facts->device->name : "no GPU here");
}

static int rank(const saccade_request *request) {
    (void)request;
    return 10;
}

static size_t workspace(saccade_context *ctx, const sac_attention_call *call, bool backward) {
    return backward ? sac_attn_bwd_sm90_workspace(ctx, call) : sac_attn_fwd_sm90_workspace(ctx, call);
}

const sac_backend sac_cuda_sm90_backend = {
    .name = "cuda-sm90",
    .title = title,
    .facts = sac_cuda_rule_facts,
    .rules = rules,
    .rank = rank,
    .alloc = sac_cuda_alloc,
    .free = sac_cuda_free,
    .workspace = workspace,
    .grad_parts = sac_attn_bwd_sm90_parts,
    .takes_delta = sac_attn_bwd_sm90_takes_delta,
    .forward = sac_attn_fwd_sm90,
    .backward = sac_attn_bwd_sm90,
    .sums = sac_attn_fwd_sm90_sums,
    .sums_stored = true,
    .sum_workspace = sac_attn_fwd_sm90_sum_workspace,
    .forward_sum = sac_attn_fwd_sm90_sum,
};
