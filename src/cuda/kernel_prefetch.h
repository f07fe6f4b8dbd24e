/* kernel_prefetch.h - kernels that will be wanted soon, compiled meanwhile by threads of their own.
 *
 * A forward call with a new modifier that also asks for lse is half of a training step: while its kernel is being
 * compiled, so is the backward pass's. Taken when that launches; a guess that was wrong has cost a processor's half second.
 */
#ifndef SAC_CUDA_KERNEL_PREFETCH_H
#define SAC_CUDA_KERNEL_PREFETCH_H

#include "base/attention_call.h"
#include "cuda/runtime.h"

/* Starts to compile what is neither loaded nor under way nor in the pack or on the disk. A sac_launch_fn, for the place of a launch:
 * num_ctas and params do not matter. Always OK: who cannot compile it here will fail where it is needed. */
saccade_status sac_kernel_prefetch(saccade_context *ctx, const sac_cuda_device *device,
                                   const sac_kernel_spec *spec, int64_t num_ctas, void **params);

/* Will a backward call follow this forward one? It asked for lse. */
bool sac_backward_may_follow(const sac_attention_call *call);

/* Waits for a kernel that is under way and gives its cubin, to be freed; NULL: it is not, or did not compile. */
void *sac_prefetch_take(sac_cuda *cuda, const sac_cuda_device *device, const sac_kernel_spec *spec,
                        size_t *size);

/* Waits for all of them. */
void sac_prefetches_free(sac_prefetch *prefetches);

#endif
