/* ptx/fence.h - ordering between ordinary accesses and the asynchronous units, sm_90, and named barriers. */
#ifndef SAC_PTX_FENCE_H
#define SAC_PTX_FENCE_H

#include "shared/types.h"

/* Shared memory that this thread wrote becomes visible to wgmma and to the copy engine. */
SAC_FN void ptx_fence_proxy_async_shared(void) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Until `threads` threads have come to barrier `id` (1 to 15; 0 is __syncthreads). */
SAC_FN void ptx_barrier_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* The same, and whether any of them said yes. */
SAC_FN int ptx_barrier_any(uint32_t id, uint32_t threads, int yes) {
    int any;
    asm volatile("{\n"
                 ".reg .pred p, q;\n"
                 "setp.ne.s32 p, %3, 0;\n"
                 "bar.red.or.pred q, %1, %2, p;\n"
                 "selp.s32 %0, 1, 0, q;\n"
                 "}"
                 : "=r"(any)
                 : "r"(id), "r"(threads), "r"(yes)
                 : "memory");
    return any;
}

#endif
