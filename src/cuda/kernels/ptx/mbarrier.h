/* ptx/mbarrier.h - barriers in shared memory, sm_90. A phase ends when `count` arrivals and all announced bytes
 * have come in; waiting for parity p returns once the phase of that parity is over. Before the first phase ends,
 * parity 1 counts as over. */
#ifndef SAC_PTX_MBARRIER_H
#define SAC_PTX_MBARRIER_H

#include "shared/types.h"

static __device__ __forceinline__ uint32_t smem_address(const void *pointer) {
    return (uint32_t)__cvta_generic_to_shared(pointer);
}
static __device__ __forceinline__ void mbarrier_init(uint64_t *barrier, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(barrier)), "r"(count) : "memory");
}
/* Makes initialised barriers visible to the copy engine; a __syncthreads must follow. */
static __device__ __forceinline__ void mbarrier_fence_init(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
static __device__ __forceinline__ void mbarrier_arrive(uint64_t *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(barrier)) : "memory");
}
/* Arrives and announces bytes that the copy engine will deliver. */
static __device__ __forceinline__ void mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(barrier)), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void mbarrier_wait(uint64_t *barrier, uint32_t parity) {
    asm volatile("{.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;}" ::"r"(smem_address(barrier)),
                 "r"(parity)
                 : "memory");
}

#endif
