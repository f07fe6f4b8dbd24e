/* ptx/reduce.h - adding to global memory without reading it back. */
#ifndef SAC_PTX_REDUCE_H
#define SAC_PTX_REDUCE_H

#include "shared/types.h"

/* p[0] += x, p[1] += y; p is 8-byte aligned. One instruction from sm_90 on. */
SAC_FN void ptx_add_f32x2(float *p, float x, float y) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v2.f32 [%0], {%1,%2};" ::"l"(p), "f"(x), "f"(y) : "memory");
#else
    asm volatile("red.global.add.f32 [%0], %2; red.global.add.f32 [%1], %3;" ::"l"(p), "l"(p + 1), "f"(x), "f"(y)
                 : "memory");
#endif
}

#endif
