/* rules.h - rules that several backends share; each backend lists the ones that hold for it. */
#ifndef SAC_BASE_RULES_H
#define SAC_BASE_RULES_H

#include "base/backend.h"

#define SAC_SHARED_RULES(ROW)                                                                                \
    ROW(sac_rule_host_memory_only)                                                                           \
    ROW(sac_rule_no_graph_capture)                                                                           \
    ROW(sac_rule_no_dropout)                                                                                 \
    ROW(sac_rule_score_mod_grad)                                                                             \
    ROW(sac_rule_no_paged_kv)                                                                                \
    ROW(sac_rule_no_context_parallel)                                                                        \
    ROW(sac_rule_no_fp8)                                                                                     \
    ROW(sac_rule_head_dims_8_to_256)  /* multiples of 8 */                                                   \
    ROW(sac_rule_16_or_32_bit_floats) /* fp32, fp16, bf16 */

#define SAC_DECLARE_RULE(name)                                                                               \
    bool name(const saccade_request *request, const void *facts, char *text, size_t size);
SAC_SHARED_RULES(SAC_DECLARE_RULE)
#undef SAC_DECLARE_RULE

/* Is this floating-point dtype fp32, fp16 or bf16? */
bool sac_is_16_or_32_bit_float(DLDataType dtype);

#endif
