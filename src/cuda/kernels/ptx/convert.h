/* ptx/convert.h - number formats, and exp2 and tanh as the hardware has them; sm_80. */
#ifndef SAC_PTX_CONVERT_H
#define SAC_PTX_CONVERT_H

#include "shared/types.h"

/* lo in the lower half; round to nearest even. */
SAC_FN uint32_t ptx_pack_bf16(float lo, float hi) {
    uint32_t d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}

SAC_FN uint32_t ptx_pack_f16(float lo, float hi) {
    uint32_t d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}

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

/* fp32 with the 10-bit mantissa of tf32, to nearest. */
SAC_FN uint32_t ptx_tf32(float x) {
    uint32_t d;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(d) : "f"(x));
    return d;
}

/* 2^x to 2 ulp; 0 for -inf and where the result would be subnormal. */
SAC_FN float ptx_exp2(float x) {
    float d;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(x));
    return d;
}

/* 1 / x to 1 ulp. */
SAC_FN float ptx_reciprocal(float x) {
    float d;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(x));
    return d;
}

/* tanh(x), relative error 2^-11. */
SAC_FN float ptx_tanh(float x) {
    float d;
    asm("tanh.approx.f32 %0, %1;" : "=f"(d) : "f"(x));
    return d;
}

#endif
