/* math.h - the elementary functions of modifier texts and of the CPU kernels, in plain C that vectorises.
 *
 * Branch-free (every choice is a select), within 2 ulp in fp32 (tanh: 2.5), right at infinities, NaN and
 * subnormals. Must not be compiled with flags that assume finite values or reassociate. Devices have their own.
 * Method: reduction to a short interval, a minimax polynomial there, and the exponent put back through its bits.
 */
#ifndef SAC_MATH_H
#define SAC_MATH_H

#include "shared/types.h"

typedef union sac_float_bits {
    float f;
    uint32_t u;
} sac_float_bits;

SAC_FN float sac_float_of(uint32_t bits) {
    sac_float_bits x;
    x.u = bits;
    return x.f;
}
SAC_FN uint32_t sac_bits_of(float value) {
    sac_float_bits x;
    x.f = value;
    return x.u;
}

/* 2^n, for n from -126 to 127. */
SAC_FN float sac_pow2(int32_t n) { return sac_float_of((uint32_t)(n + 127) << 23); }

/* Adding 1.5 * 2^23 leaves no room for a fraction: the sum's low bits are the nearest integer. */
#define SAC_ROUND_MAGIC 12582912.0f

/* n = round(x) as a float and, returned, as an integer. |x| < 2^21; anything for NaN. */
SAC_FN int32_t sac_nearest(float x, float *n) {
    float shifted = x + SAC_ROUND_MAGIC;
    *n = shifted - SAC_ROUND_MAGIC;
    return (int32_t)(sac_bits_of(shifted) - sac_bits_of(SAC_ROUND_MAGIC));
}

/* exp(r) - 1 for |r| <= ln(2) / 2, with an error relative to itself. */
SAC_FN float sac_expm1_reduced(float r) {
    float p = 0.0013946426333859563f;
    p = p * r + 0.008366571739315987f;
    p = p * r + 0.04166628420352936f;
    p = p * r + 0.1666654348373413f;
    p = p * r + 0.5f;
    return r + r * r * p;
}

/* x = n ln(2) + r with |r| <= ln(2) / 2. ln(2) in two parts: the products with the first are exact. */
SAC_FN int32_t sac_exp_reduce(float x, float *r) {
    float n;
    int32_t exponent = sac_nearest(x * 1.44269504f, &n);
    *r = x - n * 0.693359375f;
    *r = *r + n * 2.12194440e-4f;
    return exponent;
}

/* m 2^n in two steps, so that overflow and subnormal results round as they should. n from -252 to 254. */
SAC_FN float sac_scale(float m, int32_t n) {
    int32_t half = n >> 1;
    return m * sac_pow2(half) * sac_pow2(n - half);
}

/* Selects are written such that a NaN passes through them. */
SAC_FN float sac_expf(float x) {
    float r;
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    int32_t n = sac_exp_reduce(x, &r);
    return sac_scale(1.0f + sac_expm1_reduced(r), n);
}

SAC_FN float sac_exp2f(float x) {
    float whole;
    x = x > 129.0f ? 129.0f : x;
    x = x < -151.0f ? -151.0f : x;
    int32_t n = sac_nearest(x, &whole);
    return sac_scale(1.0f + sac_expm1_reduced((x - whole) * 0.693147182f), n);
}

/* tanh(|x|) = e / (e + 2) with e = exp(2 |x|) - 1, which keeps its relative precision near 0. */
SAC_FN float sac_tanhf(float x) {
    uint32_t sign = sac_bits_of(x) & 0x80000000u;
    float y = 2.0f * sac_float_of(sac_bits_of(x) ^ sign), r;
    y = y > 20.0f ? 20.0f : y;
    float power = sac_pow2(sac_exp_reduce(y, &r));
    float e = power * sac_expm1_reduced(r) + (power - 1.0f);
    return sac_float_of(sac_bits_of(e / (e + 2.0f)) | sign);
}

/* x = m 2^n with m in [sqrt(1/2), sqrt(2)), for x > 0: n, and f = m - 1. */
SAC_FN int32_t sac_log_reduce(float x, float *f) {
    int32_t subnormal = x < 1.17549435e-38f;
    uint32_t bits = sac_bits_of(subnormal ? x * 33554432.0f : x); /* 2^25 */
    int32_t n = (int32_t)(bits - 0x3f3504f3u) >> 23;
    *f = sac_float_of(bits - ((uint32_t)n << 23)) - 1.0f;
    return subnormal ? n - 25 : n;
}

/* log(1 + f) - f for the f of sac_log_reduce. */
SAC_FN float sac_log1p_tail(float f) {
    float p = -0.0787866860628128f;
    p = p * f + 0.12897658348083496f;
    p = p * f - 0.1312876045703888f;
    p = p * f + 0.14179068803787231f;
    p = p * f - 0.16624417901039124f;
    p = p * f + 0.20002369582653046f;
    p = p * f - 0.25000813603401184f;
    p = p * f + 0.33333316445350647f;
    return f * f * (f * p - 0.5f);
}

/* The logarithm `value` of x where that is a logarithm: not at 0, +inf, and what is negative or NaN. */
SAC_FN float sac_log_special(float x, float value) {
    float infinity = sac_float_of(0x7f800000u);
    value = x < infinity ? value : x;
    value = x == 0.0f ? -infinity : value;
    return x < 0.0f ? sac_float_of(0x7fc00000u) : value;
}

SAC_FN float sac_logf(float x) {
    float f;
    float n = (float)sac_log_reduce(x, &f);
    float tail = sac_log1p_tail(f) - n * 2.12194440e-4f;
    return sac_log_special(x, n * 0.693359375f + (f + tail));
}

/* log2(e) in two parts, the first of few bits, so that the product with f rounds once. */
SAC_FN float sac_log2f(float x) {
    float f;
    float n = (float)sac_log_reduce(x, &f);
    float tail = sac_log1p_tail(f), log1p_f = f + tail;
    float log2_f = log1p_f * 1.44269504f + ((f - log1p_f) + tail) * 1.44269504f;
    return sac_log_special(x, n + log2_f);
}

/* As in C: a NaN loses against a number. */
SAC_FN float sac_fminf(float a, float b) { return ((a < b) | (b != b)) ? a : b; }
SAC_FN float sac_fmaxf(float a, float b) { return ((a > b) | (b != b)) ? a : b; }

#endif
