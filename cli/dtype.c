/* dtype.c - element types: names and conversions. */
#include "dtype.h"

#include <string.h>

typedef enum kind {
    KIND_F64,
    KIND_F32,
    KIND_F16,
    KIND_BF16,
    KIND_I64,
    KIND_I32,
    KIND_I16,
    KIND_I8,
    KIND_U8,
    NUM_KINDS
} kind;

static const struct {
    const char *file_name, *name;
    uint8_t code, bits;
} table[NUM_KINDS] = {
    [KIND_F64] = {"F64", "fp64", kDLFloat, 64}, [KIND_F32] = {"F32", "fp32", kDLFloat, 32},
    [KIND_F16] = {"F16", "fp16", kDLFloat, 16}, [KIND_BF16] = {"BF16", "bf16", kDLBfloat, 16},
    [KIND_I64] = {"I64", "int64", kDLInt, 64},  [KIND_I32] = {"I32", "int32", kDLInt, 32},
    [KIND_I16] = {"I16", "int16", kDLInt, 16},  [KIND_I8] = {"I8", "int8", kDLInt, 8},
    [KIND_U8] = {"U8", "uint8", kDLUInt, 8},
};

static kind kind_of(DLDataType dtype) {
    for (int i = 0; i < NUM_KINDS; i++)
        if (dtype.code == table[i].code && dtype.bits == table[i].bits && dtype.lanes == 1) return (kind)i;
    return NUM_KINDS;
}

static DLDataType dtype_of(kind k) {
    return (DLDataType){.code = table[k].code, .bits = table[k].bits, .lanes = 1};
}

bool dtype_from_file_name(const char *name, DLDataType *dtype) {
    if (!strcmp(name, "BOOL")) name = "U8";
    for (int i = 0; i < NUM_KINDS; i++) {
        if (strcmp(name, table[i].file_name)) continue;
        *dtype = dtype_of((kind)i);
        return true;
    }
    return false;
}

bool dtype_from_name(const char *name, DLDataType *dtype) {
    for (int i = 0; i < NUM_KINDS; i++) {
        if (strcmp(name, table[i].name)) continue;
        *dtype = dtype_of((kind)i);
        return true;
    }
    return false;
}

const char *dtype_file_name(DLDataType dtype) {
    kind k = kind_of(dtype);
    return k == NUM_KINDS ? "?" : table[k].file_name;
}

const char *dtype_name(DLDataType dtype) {
    kind k = kind_of(dtype);
    return k == NUM_KINDS ? "?" : table[k].name;
}

size_t dtype_bytes(DLDataType dtype) { return dtype.bits / 8u; }

bool dtype_equal(DLDataType a, DLDataType b) {
    return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

bool dtype_is_float(DLDataType dtype) { return kind_of(dtype) <= KIND_BF16; }

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint16_t bf16_from_float(float x) {
    uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static float float_from_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    if (exponent == 31) return float_of(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f; /* subnormal */
    return sign ? -magnitude : magnitude;
}

static uint16_t f16_from_float(float x) {
    uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (magnitude <
        0x38800000u) /* below 2^-14: adding 0.5 leaves the count of 2^-24 in the low mantissa bits */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u));
    magnitude += 0xfffu + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}

void dtype_load(DLDataType dtype, const void *from, size_t count, float *to) {
    switch (kind_of(dtype)) {
    case KIND_F64:
        for (size_t i = 0; i < count; i++) to[i] = (float)((const double *)from)[i];
        return;
    case KIND_F32:
        memcpy(to, from, count * sizeof *to);
        return;
    case KIND_F16:
        for (size_t i = 0; i < count; i++) to[i] = float_from_f16(((const uint16_t *)from)[i]);
        return;
    case KIND_BF16:
        for (size_t i = 0; i < count; i++) to[i] = float_of((uint32_t)((const uint16_t *)from)[i] << 16);
        return;
    default:
        memset(to, 0, count * sizeof *to);
        return;
    }
}

void dtype_store(DLDataType dtype, const float *from, size_t count, void *to) {
    switch (kind_of(dtype)) {
    case KIND_F64:
        for (size_t i = 0; i < count; i++) ((double *)to)[i] = from[i];
        return;
    case KIND_F32:
        memcpy(to, from, count * sizeof *from);
        return;
    case KIND_F16:
        for (size_t i = 0; i < count; i++) ((uint16_t *)to)[i] = f16_from_float(from[i]);
        return;
    case KIND_BF16:
        for (size_t i = 0; i < count; i++) ((uint16_t *)to)[i] = bf16_from_float(from[i]);
        return;
    default:
        return;
    }
}

double dtype_value(DLDataType dtype, const void *data, size_t index) {
    float value;
    if (kind_of(dtype) == KIND_F64) return ((const double *)data)[index];
    dtype_load(dtype, (const char *)data + index * dtype_bytes(dtype), 1, &value);
    return value;
}

float dtype_round(DLDataType dtype, float x) {
    switch (kind_of(dtype)) {
    case KIND_BF16:
        return float_of((uint32_t)bf16_from_float(x) << 16);
    case KIND_F16:
        return float_from_f16(f16_from_float(x));
    default:
        return x;
    }
}

size_t tensor_elements(const DLTensor *tensor) {
    size_t elements = 1;
    for (int d = 0; d < tensor->ndim; d++) elements *= (size_t)tensor->shape[d];
    return elements;
}
