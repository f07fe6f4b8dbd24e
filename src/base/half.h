/* half.h - fp16 and bf16 as fp32 and back, in integers: for machines and compilers that have no such types. */
#ifndef SAC_BASE_HALF_H
#define SAC_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float sac_float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline uint32_t sac_bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float sac_float_of_bf16(uint16_t half) { return sac_float_of_bits((uint32_t)half << 16); }

/* To nearest, ties to even; a NaN stays one. */
static inline uint16_t sac_bf16_of_float(float x) {
    const uint32_t bits = sac_bits_of_float(x);
    return x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The exponent moves by 112; multiplying by 2^112 also makes subnormals normal. Infinity and NaN keep theirs. */
static inline float sac_float_of_fp16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = (uint32_t)(half & 0x7fff) << 13;
    if (rest >= 0x0f800000) return sac_float_of_bits(sign | 0x70000000 | rest);
    return sac_float_of_bits(sign | sac_bits_of_float(sac_float_of_bits(rest) * 0x1p112f));
}

/* To nearest, ties to even. Adding 1/2 puts the last bit of a subnormal half at the end of the sum's mantissa, so that
 * the addition rounds there; elsewhere an integer does the same. */
static inline uint16_t sac_fp16_of_float(float x) {
    const uint32_t bits = sac_bits_of_float(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (size < 0x38800000)
        return (uint16_t)(sign |
                          (sac_bits_of_float(sac_float_of_bits(size) + 0.5f) - sac_bits_of_float(0.5f)));
    return (uint16_t)(sign | (size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13);
}

#endif
