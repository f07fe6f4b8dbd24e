/* number.c - the four formats, converted by their definitions rather than by any instruction. */
#include "reference/number.h"

#include <math.h>
#include <string.h>

size_t sac_number_size(sac_dtype dtype) { return dtype == SAC_F64 ? 8 : dtype == SAC_F32 ? 4 : 2; }

static double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* floor(log2 |x|) of a normal double. */
static int exponent_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (int)(bits >> 52 & 0x7ff) - 1023;
}

/* `precision` significant bits; below 2^min_exponent their spacing no longer shrinks. */
static double round_to(double x, int precision, int min_exponent, double largest) {
    if (x == 0 || !isfinite(x)) return x;
    int exponent = exponent_of(x) > min_exponent ? exponent_of(x) : min_exponent;
    double spacing = power_of_two(exponent - (precision - 1));
    double rounded = nearbyint(x / spacing) * spacing;
    return fabs(rounded) > largest ? copysign(INFINITY, x) : rounded;
}

double sac_number_round(double x, sac_dtype dtype) {
    switch (dtype) {
    case SAC_F16:
        return round_to(x, 11, -14, 65504);
    case SAC_BF16:
        return round_to(x, 8, -126, 0x1.fep127);
    case SAC_F32:
        return (float)x;
    default:
        return x;
    }
}

static double half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                       : exponent == 0 ? fraction * 0x1p-24
                                       : (1024 + fraction) * power_of_two(exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
}

/* x is a half already. */
static uint16_t half_bits(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (isnan(x)) return sign | 0x7e00;
    if (isinf(x)) return sign | 0x7c00;
    double magnitude = fabs(x);
    if (magnitude < 0x1p-14) return sign | (uint16_t)(magnitude * 0x1p24);
    int exponent = exponent_of(magnitude);
    double fraction = magnitude / power_of_two(exponent); /* in [1, 2) */
    return sign | (uint16_t)((exponent + 15) << 10) | (uint16_t)(fraction * 1024 - 1024);
}

static double bfloat_value(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

/* x is a bf16 already. */
static uint16_t bfloat_bits(double x) {
    float narrow = (float)x;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    return (uint16_t)(bits >> 16);
}

void sac_number_read(double *to, const void *data, sac_dtype dtype, int64_t offset, int32_t n) {
    const double *f64 = (const double *)data + offset;
    const float *f32 = (const float *)data + offset;
    const uint16_t *bits = (const uint16_t *)data + offset;
    switch (dtype) {
    case SAC_F64:
        memcpy(to, f64, (size_t)n * sizeof *to);
        break;
    case SAC_F32:
        for (int32_t i = 0; i < n; i++) to[i] = f32[i];
        break;
    case SAC_F16:
        for (int32_t i = 0; i < n; i++) to[i] = half_value(bits[i]);
        break;
    case SAC_BF16:
        for (int32_t i = 0; i < n; i++) to[i] = bfloat_value(bits[i]);
        break;
    }
}

void sac_number_write(void *data, sac_dtype dtype, int64_t offset, const double *from, int32_t n) {
    double *f64 = (double *)data + offset;
    float *f32 = (float *)data + offset;
    uint16_t *bits = (uint16_t *)data + offset;
    switch (dtype) {
    case SAC_F64:
        memcpy(f64, from, (size_t)n * sizeof *from);
        break;
    case SAC_F32:
        for (int32_t i = 0; i < n; i++) f32[i] = (float)from[i];
        break;
    case SAC_F16:
        for (int32_t i = 0; i < n; i++) bits[i] = half_bits(sac_number_round(from[i], dtype));
        break;
    case SAC_BF16:
        for (int32_t i = 0; i < n; i++) bits[i] = bfloat_bits(sac_number_round(from[i], dtype));
        break;
    }
}
