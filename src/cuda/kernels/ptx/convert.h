/* ptx/convert.h - number formats, and exp2 and tanh as the hardware has them; sm_80. */
#ifndef SAC_PTX_CONVERT_H
#define SAC_PTX_CONVERT_H

#include "shared/types.h"

/* ptx_pack_bf16, ptx_pack_f16: lo in the lower half; round to nearest even. */
#define PTX_PACK(type)                                                                                       \
    SAC_FN uint32_t ptx_pack_##type(float lo, float hi) {                                                    \
        uint32_t d;                                                                                          \
        asm("cvt.rn." #type "x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));                              \
        return d;                                                                                            \
    }
PTX_PACK(bf16)
PTX_PACK(f16)
#undef PTX_PACK

SAC_FN float ptx_f32_of_f16(uint16_t x) {
    float d;
    asm("cvt.f32.f16 %0, %1;" : "=f"(d) : "h"(x));
    return d;
}

/* The two halves, the lower one first. */
SAC_FN float2 ptx_unpack_bf16(uint32_t x) {
    return make_float2(__int_as_float((int)(x << 16)), __int_as_float((int)(x & 0xffff0000)));
}

SAC_FN float2 ptx_unpack_f16(uint32_t x) {
    return make_float2(ptx_f32_of_f16((uint16_t)x), ptx_f32_of_f16((uint16_t)(x >> 16)));
}

/* a b + c in each half; sm_90. */
SAC_FN uint32_t ptx_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
SAC_FN uint32_t ptx_fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* All bits of the halves that are not 0, NaN among them; sm_90. */
SAC_FN uint32_t ptx_nonzero_bf16x2(uint32_t x) {
    uint32_t mask;
    asm("set.neu.u32.bf16x2 %0, %1, %2;" : "=r"(mask) : "r"(x), "r"(0));
    return mask;
}
SAC_FN uint32_t ptx_nonzero_f16x2(uint32_t x) {
    uint32_t mask;
    asm("set.neu.u32.f16x2 %0, %1, %2;" : "=r"(mask) : "r"(x), "r"(0));
    return mask;
}

/* fp32 with the 10-bit mantissa of tf32, to nearest. */
SAC_FN uint32_t ptx_tf32(float x) {
    uint32_t d;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(d) : "f"(x));
    return d;
}

#define PTX_FUNCTION(name, instruction)                                                                      \
    SAC_FN float name(float x) {                                                                             \
        float d;                                                                                             \
        asm(instruction ".f32 %0, %1;" : "=f"(d) : "f"(x));                                                  \
        return d;                                                                                            \
    }
PTX_FUNCTION(ptx_exp2, "ex2.approx.ftz")       /* 2^x to 2 ulp; 0 for -inf and where it would be subnormal */
PTX_FUNCTION(ptx_log2, "lg2.approx.ftz")       /* to 2^-22: absolute from 1/2 to 2, else relative */
PTX_FUNCTION(ptx_reciprocal, "rcp.approx.ftz") /* 1 / x to 1 ulp */
PTX_FUNCTION(ptx_tanh, "tanh.approx")          /* relative error 2^-11 */
#undef PTX_FUNCTION

#endif
