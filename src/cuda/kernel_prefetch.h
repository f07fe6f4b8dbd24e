/* kernel_prefetch.h - kernels that will be wanted soon, compiled meanwhile by threads of their own.
 *
 * A forward call with a new modifier that also asks for lse is half of a training step: while its kernel is being
 * compiled, so is the backward pass's. Taken when that launches; a guess that was wrong has cost a processor's half
 * second.
 */
#ifndef SAC_CUDA_KERNEL_PREFETCH_H
#define SAC_CUDA_KERNEL_PREFETCH_H

#include "base/attention_call.h"
#include "cuda/kernel_compile.h"

/* Will a backward call follow this forward one? It asked for lse. */
bool sac_backward_may_follow(const sac_attention_call *call);

/* A context's list of them: under way, taken, or not wanted. NULL: empty. */
typedef struct sac_prefetch sac_prefetch;

bool sac_prefetch_noted(sac_prefetch *list, int32_t device_id, sac_kernel_id id);

/* Adds one, and starts to compile it if it is wanted. Who cannot compile it here will fail where it is needed. */
void sac_prefetch_note(sac_prefetch **list, const sac_cuda_device *device, const sac_kernel_spec *spec,
                       sac_kernel_id id, bool wanted);

/* Waits for a kernel that is under way and gives its cubin, to be freed; NULL: it is not, or did not compile. */
void *sac_prefetch_take(sac_prefetch *list, int32_t device_id, sac_kernel_id id, size_t *size);

/* Waits for all of them. */
void sac_prefetches_free(sac_prefetch *list);

#endif
