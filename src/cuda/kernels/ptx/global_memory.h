/* ptx/global_memory.h - 16 bytes to global memory in one store: put together from pieces, the compiler splits it. For
 * what this kernel does not read again. */
#ifndef SAC_PTX_GLOBAL_MEMORY_H
#define SAC_PTX_GLOBAL_MEMORY_H

#include "shared/types.h"

SAC_FN void ptx_st_global_u32x4(void *p, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(x), "r"(y), "r"(z), "r"(w));
}

/* The same from the lanes for which `there` holds, without a branch. */
SAC_FN void ptx_st_global_u32x4_if(int there, void *p, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    asm volatile("{.reg .pred there; setp.ne.b32 there, %5, 0;\n"
                 "@there st.global.v4.b32 [%0], {%1, %2, %3, %4};}" ::"l"(p),
                 "r"(x), "r"(y), "r"(z), "r"(w), "r"(there));
}

/* A word that CTAs tell each other by: who reads it sees what was written, or added, before the word was. */
SAC_FN uint32_t ptx_ld_acquire(const uint32_t *p) {
    uint32_t x;
    asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}
SAC_FN void ptx_st_release(uint32_t *p, uint32_t x) {
    asm volatile("st.release.gpu.global.b32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

#endif
