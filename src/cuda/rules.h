/* rules.h - the rules that GPU backends share, beside those of base/rules.h. Facts: sac_cuda_facts, or NULL for
 * tensors that are not on a GPU. */
#ifndef SAC_CUDA_RULES_H
#define SAC_CUDA_RULES_H

#include "base/rules.h"
#include "cuda/cuda.h"

const void *sac_cuda_rule_facts(saccade_context *ctx, const saccade_request *request);

/* The capability asked about: the request's own, or the device's; 0 where neither is known. */
int32_t sac_cuda_capability(const saccade_request *request, const sac_cuda_facts *facts);

bool sac_rule_not_on_gpu(const saccade_request *request, const void *facts, char *text, size_t size);
bool sac_rule_no_gpu(const saccade_request *request, const void *facts, char *text, size_t size);
bool sac_rule_no_compiler(const saccade_request *request, const void *facts, char *text, size_t size);
bool sac_rule_deterministic_aux_grad(const saccade_request *request, const void *facts, char *text,
                                     size_t size);

#endif
