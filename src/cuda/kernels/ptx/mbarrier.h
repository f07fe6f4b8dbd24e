/* ptx/mbarrier.h - barriers in shared memory, sm_90. A phase ends when `count` arrivals and all announced bytes
 * have come in; waiting for parity p returns once the phase of that parity is over. Before the first phase ends,
 * parity 1 counts as over. */
#ifndef SAC_PTX_MBARRIER_H
#define SAC_PTX_MBARRIER_H

#include "cuda/kernels/ptx/shared_memory.h"

SAC_FN void ptx_mbarrier_init(uint64_t *barrier, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(ptx_smem_of(barrier)), "r"(count)
                 : "memory");
}

/* Makes initialised barriers visible to the copy engine; a __syncthreads must follow. */
SAC_FN void ptx_mbarrier_fence_init(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

SAC_FN void ptx_mbarrier_arrive(uint64_t *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(ptx_smem_of(barrier)) : "memory");
}

/* Arrives, and announces bytes that the copy engine will deliver. */
SAC_FN void ptx_mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(ptx_smem_of(barrier)),
                 "r"(bytes)
                 : "memory");
}

SAC_FN void ptx_mbarrier_wait(uint64_t *barrier, uint32_t parity) {
    asm volatile("{.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;}" ::"r"(ptx_smem_of(barrier)),
                 "r"(parity)
                 : "memory");
}

#endif
