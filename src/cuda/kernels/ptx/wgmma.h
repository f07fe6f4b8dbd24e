/* ptx/wgmma.h - warpgroup matrix products, sm_90a: d (64 x N, fp32 registers) += a (64 x 16) b (16 x N).
 *
 * Issued by the four warps of a warpgroup together and executed asynchronously:
 *     ptx_wgmma_fence();  products...  ptx_wgmma_commit();  other work  ptx_wgmma_wait(0);
 * The accumulators may not be touched between the fence and the wait.
 *
 * Operands in shared memory are described by 64 bits (ptx_wgmma_desc_*). Tiles are stored as TMA's 128-byte swizzle
 * leaves them: panels of 64 two-byte columns, each row 128 bytes, a tile's panels one after the other.
 *   K-major: the 16 products run along a row.    One step of 16: +32 bytes; a panel after four.
 *   MN-major: the 16 products run down the rows. One step of 16: +2048 bytes.
 * Thread t of the warpgroup (warp w, lane 4g + i) holds d[4j + 0, 1] = row 16w + g, columns 8j + 2i, +1 and
 * d[4j + 2, 3] = the same columns of row 16w + g + 8. Packed in pairs, d[8k .. 8k+7] is the k-th a operand.
 */
#ifndef SAC_PTX_WGMMA_H
#define SAC_PTX_WGMMA_H

#include "shared/types.h"

/* Orders earlier register writes before the products that follow. */
SAC_FN void ptx_wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
SAC_FN void ptx_wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until at most `pending` of the committed groups are unfinished. */
#define ptx_wgmma_wait(pending) asm volatile("wgmma.wait_group.sync.aligned " #pending ";" ::: "memory")

/* Pins n accumulators to this place in the text, so that no use of them moves above a wait. */
SAC_FN void ptx_wgmma_pin(float *d, int n) {
#pragma unroll
    for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* 128-byte swizzle, and 1024 bytes from one group of 8 rows to the next: the same for all our tiles. */
#define PTX_WGMMA_DESC_TILE 0x4000004000000000ull
#define PTX_WGMMA_ADVANCE(bytes) ((uint64_t)((bytes) / 16))

SAC_FN uint64_t ptx_wgmma_desc_k_major(uint32_t smem) { return PTX_WGMMA_DESC_TILE | (1 << 16 | smem >> 4); }
/* One step of 16 whose rows are 16 bytes, without swizzle: the first 8 products run along the row, the others along the
 * same row again. */
SAC_FN uint64_t ptx_wgmma_desc_half_rows(uint32_t smem) { return 8ull << 32 | smem >> 4; }
/* panel_bytes: from one panel of 64 columns to the next. */
SAC_FN uint64_t ptx_wgmma_desc_mn_major(uint32_t smem, uint32_t panel_bytes) {
    return PTX_WGMMA_DESC_TILE | (panel_bytes >> 4 << 16 | smem >> 4);
}
/* The operand that starts so many bytes further on. No carry leaves the low word, which spares a loop 64-bit sums. */
SAC_FN uint64_t ptx_wgmma_desc_advance(uint64_t desc, uint32_t bytes) {
    return (desc & 0xffffffff00000000ull) | ((uint32_t)desc + bytes / 16);
}

/* PTX_WGMMA_SS(name, N, TYPE, MODE) defines name(d, a_desc, b_desc), a and b K-major in shared memory.
 * PTX_WGMMA_SS_MN(name, N, TYPE, MODE) defines the same with b MN-major, PTX_WGMMA_SS_MN_MN with both.
 * PTX_WGMMA_RS_MN(name, N, TYPE, MODE) defines name(d, a, b_desc), a in four registers, b MN-major; PTX_WGMMA_RS, b
 * K-major. TYPE "bf16" or "f16"; MODE PTX_WGMMA_SET (d = a b) or PTX_WGMMA_ADD (d += a b). */
#define PTX_WGMMA_SET "=f", "0"
#define PTX_WGMMA_ADD "+f", "1"
#define PTX_WGMMA_SS(name, N, TYPE, MODE) PTX_WGMMA_SS_(name, N, TYPE, "0", "0", MODE)
#define PTX_WGMMA_SS_MN(name, N, TYPE, MODE) PTX_WGMMA_SS_(name, N, TYPE, "0", "1", MODE)
#define PTX_WGMMA_SS_MN_MN(name, N, TYPE, MODE) PTX_WGMMA_SS_(name, N, TYPE, "1", "1", MODE)
#define PTX_WGMMA_RS(name, N, TYPE, MODE) PTX_WGMMA_RS_(name, N, TYPE, "0", MODE)
#define PTX_WGMMA_RS_MN(name, N, TYPE, MODE) PTX_WGMMA_RS_(name, N, TYPE, "1", MODE)

#define PTX_WGMMA_SS_(name, N, TYPE, MN_A, MN_B, CONSTRAINT, KEEP)                                           \
    SAC_FN void name(float *d, uint64_t a, uint64_t b) {                                                     \
        asm volatile("{.reg .pred keep; setp.ne.b32 keep, " KEEP ", 0;\n"                                    \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" PTX_WGMMA_REGS_##N \
                     "}, " PTX_WGMMA_IN_##N(PTX_WGMMA_TWO_DESCS) ", keep, 1, 1, " MN_A ", " MN_B ";}"        \
                     : PTX_WGMMA_ACC_##N(CONSTRAINT, d)                                                      \
                     : "l"(a), "l"(b)                                                                        \
                     : "memory");                                                                            \
    }
#define PTX_WGMMA_RS_(name, N, TYPE, MN_B, CONSTRAINT, KEEP)                                                 \
    SAC_FN void name(float *d, const uint32_t *a, uint64_t b) {                                              \
        asm volatile("{.reg .pred keep; setp.ne.b32 keep, " KEEP ", 0;\n"                                    \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" PTX_WGMMA_REGS_##N \
                     "}, " PTX_WGMMA_IN_##N(PTX_WGMMA_FOUR_REGS) ", keep, 1, 1, " MN_B ";}"                  \
                     : PTX_WGMMA_ACC_##N(CONSTRAINT, d)                                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                    \
                     : "memory");                                                                            \
    }
#define PTX_WGMMA_TWO_DESCS(i0, i1, i2, i3, i4) "%" #i0 ", %" #i1
#define PTX_WGMMA_FOUR_REGS(i0, i1, i2, i3, i4) "{%" #i0 ", %" #i1 ", %" #i2 ", %" #i3 "}, %" #i4

#include "cuda/kernels/ptx/wgmma_operands.h"

#endif
