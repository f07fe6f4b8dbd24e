/* sm90.c - what the Hopper kernels serve, and what they leave to the portable ones. */
#include "cuda/sm90.h"

#include <stdio.h>

#include "cuda/attn_fwd_sm90.h"

static bool no_hopper_gpu(const saccade_request *request, const void *facts, char *text, size_t size) {
    const sac_cuda_facts *cuda = facts;
    if (request->device.device_type != kDLCUDA)
        return sac_reason(text, size, "tensors are on device type %d, it reads CUDA memory only",
                          (int)request->device.device_type);
    if (!request->compute_capability && !cuda->device) return sac_reason(text, size, "%s", cuda->no_device);
    int32_t capability =
        request->compute_capability ? request->compute_capability : cuda->device->compute_capability;
    return capability != 90 &&
           sac_reason(text, size, "compute capability %d.%d is not 9.0", capability / 10, capability % 10);
}

static bool no_compiler(const saccade_request *request, const void *facts, char *text, size_t size) {
    const sac_cuda_facts *cuda = facts;
    (void)request;
    return cuda->no_compiler && sac_reason(text, size, "%s", cuda->no_compiler);
}

static bool wide_dtype(const saccade_request *request, const void *facts, char *text, size_t size) {
    DLDataType t = request->dtype;
    (void)facts;
    if (t.bits == 16 && t.lanes == 1 && (t.code == kDLFloat || t.code == kDLBfloat)) return false;
    return sac_reason(text, size, "dtype (code %d, %d bits, %d lanes) is neither bf16 nor fp16", t.code,
                      t.bits, t.lanes);
}

static bool wants_backward(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->training && sac_reason(text, size, "it computes no gradients");
}

static bool unaligned_rows(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->unaligned && sac_reason(text, size,
                                            "a row of q, k, v or out does not start at a multiple of 16 "
                                            "bytes, which its copies need");
}

static bool lists_on_host(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->block_mask && sac_reason(text, size, "a block mask's lists lie in host memory");
}

static bool too_many_tiles(const saccade_request *request, const void *facts, char *text, size_t size) {
    int64_t count = sac_attn_fwd_sm90_tiles(request->batch, request->num_heads, request->seqlen_q);
    (void)facts;
    return count > INT32_MAX &&
           sac_reason(text, size, "%lld query tiles are above 2^31 - 1", (long long)count);
}

static bool wants_dropout(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->dropout && sac_reason(text, size, "dropout is not computed");
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

static const sac_rule_fn rules[] = {
    no_hopper_gpu,  no_compiler,   wide_dtype,     wants_backward,         unaligned_rows, lists_on_host,
    too_many_tiles, wants_dropout, wants_paged_kv, wants_context_parallel, wants_fp8,      NULL};

static void title(saccade_context *ctx, char *text, size_t size) {
    const sac_cuda_facts *facts = sac_cuda_facts_of(ctx, (DLDevice){kDLCUDA, 0});
    snprintf(text, size, "Hopper kernels: %s", facts->device ? facts->device->name : facts->no_device);
}

static const void *facts(saccade_context *ctx, const saccade_request *request) {
    return sac_cuda_facts_of(ctx, request->device);
}

static int rank(const saccade_request *request) {
    (void)request;
    return 10;
}

static size_t workspace(saccade_context *ctx, const sac_attention_call *call, bool backward) {
    (void)backward;
    return sac_attn_fwd_sm90_workspace(ctx, call);
}

const sac_backend sac_cuda_sm90_backend = {
    .name = "cuda-sm90",
    .title = title,
    .facts = facts,
    .rules = rules,
    .rank = rank,
    .alloc = sac_cuda_alloc,
    .free = sac_cuda_free,
    .workspace = workspace,
    .forward = sac_attn_fwd_sm90,
};
