/* ptx/shared_memory.h - shared memory by its 32-bit address, sm_80: fragments, asynchronous copies, single words. */
#ifndef SAC_PTX_SHARED_MEMORY_H
#define SAC_PTX_SHARED_MEMORY_H

#include "shared/types.h"

typedef uint32_t ptx_smem; /* an address in shared memory, bytes */

SAC_FN ptx_smem ptx_smem_of(const void *p) { return (ptx_smem)__cvta_generic_to_shared(p); }

/* Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8. */
SAC_FN void ptx_ldmatrix(uint32_t d[4], ptx_smem row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(row)
                 : "memory");
}

SAC_FN void ptx_ldmatrix_trans(uint32_t d[4], ptx_smem row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(row)
                 : "memory");
}

/* Stores four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. sm_90. */
SAC_FN void ptx_stmatrix(ptx_smem row, const uint32_t d[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(d[0]),
                 "r"(d[1]), "r"(d[2]), "r"(d[3])
                 : "memory");
}

/* Stores four 8 x 8 matrices transposed: lane l gives the address of what becomes row l % 8 of matrix l / 8. sm_90. */
SAC_FN void ptx_stmatrix_trans(ptx_smem row, const uint32_t d[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(d[0]),
                 "r"(d[1]), "r"(d[2]), "r"(d[3])
                 : "memory");
}

/* 16 bytes from global memory, or 16 zero bytes (nothing is then read) when present is 0. */
SAC_FN void ptx_cp_async(ptx_smem to, const void *from, int present) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(present ? 16 : 0)
                 : "memory");
}

SAC_FN void ptx_cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Until this thread's copies have arrived, but for those of the last `count` groups. */
#define PTX_CP_ASYNC_WAIT_ALL_BUT(count) asm volatile("cp.async.wait_group %0;" ::"n"(count) : "memory")
/* Until all have. */
SAC_FN void ptx_cp_async_wait(void) { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

SAC_FN uint4 ptx_ld_u32x4(ptx_smem p) {
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(p)
                 : "memory");
    return x;
}

SAC_FN float ptx_ld_f32(ptx_smem p) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(p) : "memory");
    return x;
}

SAC_FN float2 ptx_ld_f32x2(ptx_smem p) {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(p) : "memory");
    return x;
}

SAC_FN void ptx_st_f32x2(ptx_smem p, float2 x) {
    asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(p), "f"(x.x), "f"(x.y) : "memory");
}

SAC_FN uint32_t ptx_ld_u32(ptx_smem p) {
    uint32_t x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(p) : "memory");
    return x;
}

SAC_FN uint16_t ptx_ld_u16(ptx_smem p) {
    uint16_t x;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(p) : "memory");
    return x;
}

SAC_FN void ptx_st_u32(ptx_smem p, uint32_t x) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(p), "r"(x) : "memory");
}

SAC_FN void ptx_st_u16(ptx_smem p, uint16_t x) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(p), "h"(x) : "memory");
}

#endif
