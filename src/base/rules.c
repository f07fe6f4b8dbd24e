/* rules.c - what most backends refuse, each rule once. */
#include "base/rules.h"

#include "base/dtype.h"

#define RULE(name)                                                                                           \
    bool name(const saccade_request *request, __attribute__((unused)) const void *facts, char *text,         \
              size_t size)

RULE(sac_rule_host_memory_only) {
    return request->device.device_type != kDLCPU &&
           sac_reason(text, size, "tensors are on %s, it reads host memory only",
                      sac_device_text(request->device));
}

RULE(sac_rule_no_graph_capture) {
    return request->graph_capture && sac_reason(text, size, "it runs on the host, outside any CUDA graph");
}

RULE(sac_rule_no_dropout) { return request->dropout && sac_reason(text, size, "dropout is not computed"); }

RULE(sac_rule_score_mod_grad) {
    return request->training && request->score_mod && !request->score_mod_grad &&
           sac_reason(text, size, "the score_mod has no backward text, which training needs");
}

RULE(sac_rule_no_paged_kv) {
    return request->paged_kv && sac_reason(text, size, "keys and values in pages are not read");
}

RULE(sac_rule_no_context_parallel) {
    return request->context_parallel && sac_reason(text, size, "a context split over devices is not served");
}

RULE(sac_rule_no_fp8) { return request->fp8 && sac_reason(text, size, "fp8 is not computed"); }

static bool served(int32_t head_dim) { return head_dim >= 8 && head_dim <= 256 && head_dim % 8 == 0; }

RULE(sac_rule_head_dims_8_to_256) {
    if (!served(request->head_dim))
        return sac_reason(text, size, "head_dim %d is no multiple of 8 from 8 to 256", request->head_dim);
    return !served(request->head_dim_v) &&
           sac_reason(text, size, "head_dim_v %d is no multiple of 8 from 8 to 256", request->head_dim_v);
}

bool sac_is_16_or_32_bit_float(DLDataType t) {
    if (t.lanes != 1) return false;
    return (t.code == kDLFloat && (t.bits == 16 || t.bits == 32)) || (t.code == kDLBfloat && t.bits == 16);
}

RULE(sac_rule_16_or_32_bit_floats) {
    const DLDataType t = request->dtype;
    return !sac_is_16_or_32_bit_float(t) &&
           sac_reason(text, size, "dtype %s is none of fp32, fp16, bf16", sac_dtype_text(t));
}
