/* ptx/reduce.h - adding to global memory without reading it back. */
#ifndef SAC_PTX_REDUCE_H
#define SAC_PTX_REDUCE_H

#include "cuda/kernels/ptx/shared_memory.h"

/* An address that is kept in its registers, instead of being computed again at each use. */
SAC_FN float *ptx_pin_address(float *p) {
    asm volatile("" : "+l"(p));
    return p;
}

/* Adds to p[0] to p[3]; p is 16-byte aligned. One instruction from sm_90 on. */
SAC_FN void ptx_add_f32x4(float *p, float x, float y, float z, float w) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(p), "f"(x), "f"(y), "f"(z), "f"(w)
                 : "memory");
#else
    asm volatile("red.global.add.f32 [%0], %1; red.global.add.f32 [%0+4], %2;"
                 "red.global.add.f32 [%0+8], %3; red.global.add.f32 [%0+12], %4;" ::"l"(p),
                 "f"(x), "f"(y), "f"(z), "f"(w)
                 : "memory");
#endif
}

/* Has the copy engine add `bytes` of floats in shared memory to those at p, both 16-byte aligned. What is there must have
 * been made visible to it. Call from one thread, which alone may wait for it; sm_90. */
SAC_FN void ptx_bulk_add_f32(float *p, const float *from, uint32_t bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n"
                 "cp.async.bulk.commit_group;" ::"l"(p),
                 "r"(ptx_smem_of(from)), "r"(bytes)
                 : "memory");
}
/* Until what this thread has asked for has been read, or added. */
SAC_FN void ptx_bulk_wait_read(void) { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
SAC_FN void ptx_bulk_wait(void) { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/* Adds to p[0] and p[1]; p is 8-byte aligned. sm_90. */
SAC_FN void ptx_add_f32x2(float *p, float x, float y) {
    asm volatile("red.global.add.v2.f32 [%0], {%1,%2};" ::"l"(p), "f"(x), "f"(y) : "memory");
}

#endif
