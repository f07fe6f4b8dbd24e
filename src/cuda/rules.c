/* rules.c - what no GPU backend serves, in words. */
#include "cuda/rules.h"

#include "base/dtype.h"

const void *sac_cuda_rule_facts(saccade_context *ctx, const saccade_request *request) {
    return request->device.device_type == kDLCUDA ? sac_cuda_facts_of(ctx, request->device) : NULL;
}

int32_t sac_cuda_capability(const saccade_request *request, const sac_cuda_facts *facts) {
    if (request->compute_capability) return request->compute_capability;
    return facts && facts->device ? facts->device->compute_capability : 0;
}

bool sac_rule_not_on_gpu(const saccade_request *request, const void *facts, char *text, size_t size) {
    (void)facts;
    return request->device.device_type != kDLCUDA &&
           sac_reason(text, size, "tensors are on %s, it reads CUDA memory only",
                      sac_device_text(request->device));
}

bool sac_rule_no_gpu(const saccade_request *request, const void *facts, char *text, size_t size) {
    const sac_cuda_facts *f = facts;
    (void)request;
    return f && !f->device && sac_reason(text, size, "%s", f->no_device);
}

bool sac_rule_no_compiler(const saccade_request *request, const void *facts, char *text, size_t size) {
    const sac_cuda_facts *f = facts;
    (void)request;
    return f && f->no_compiler && sac_reason(text, size, "%s", f->no_compiler);
}

bool sac_rule_deterministic_aux_grad(const saccade_request *request, const void *facts, char *text,
                                     size_t size) {
    (void)facts;
    return request->deterministic && request->aux_grad &&
           sac_reason(text, size,
                      "gradients of aux tensors are summed by atomics, which deterministic forbids");
}
