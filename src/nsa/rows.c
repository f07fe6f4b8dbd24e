/* rows.c - conversion of rows, and sums over them. */
#include "nsa/rows.h"

#include <string.h>

#include "base/half.h"

/* One loop, compiled for each of these and chosen when the library is loaded. Only static functions: the resolver of
 * any other would be exported. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define SAC_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SAC_CLONES
#endif

size_t sac_dtype_bytes(int32_t dtype) { return dtype == SAC_F32 ? 4 : dtype == SAC_F64 ? 8 : 2; }

SAC_CLONES
static void from_bf16(float *row, const uint16_t *data, int32_t n) {
    for (int32_t i = 0; i < n; i++) row[i] = sac_float_of_bf16(data[i]);
}

SAC_CLONES
static void from_fp16(float *row, const uint16_t *data, int32_t n) {
    for (int32_t i = 0; i < n; i++) row[i] = sac_float_of_fp16(data[i]);
}

void sac_row_load(float *row, const void *data, int64_t offset, int32_t n, int32_t dtype) {
    if (dtype == SAC_F32)
        memcpy(row, (const float *)data + offset, (size_t)n * sizeof *row);
    else if (dtype == SAC_BF16)
        from_bf16(row, (const uint16_t *)data + offset, n);
    else
        from_fp16(row, (const uint16_t *)data + offset, n);
}

void sac_row_store(void *data, int64_t offset, const float *row, int32_t n, int32_t dtype) {
    uint16_t *half = (uint16_t *)data + offset;
    if (dtype == SAC_F32)
        memcpy((float *)data + offset, row, (size_t)n * sizeof *row);
    else
        for (int32_t i = 0; i < n; i++)
            half[i] = dtype == SAC_BF16 ? sac_bf16_of_float(row[i]) : sac_fp16_of_float(row[i]);
}

const float *sac_row_floats(float *room, const void *data, int64_t offset, int32_t n, int32_t dtype) {
    if (dtype == SAC_F32) return (const float *)data + offset;
    sac_row_load(room, data, offset, n, dtype);
    return room;
}

#define INLINE static inline __attribute__((always_inline))

/* Of a row of fp32 or bf16; which of them is a constant wherever this is used. */
INLINE float element(const void *row, bool bf16, int32_t i) {
    return bf16 ? sac_float_of_bf16(((const uint16_t *)row)[i]) : ((const float *)row)[i];
}

/* Eight partial sums: a fixed order, the same on every machine, that vector units take as it is. */
INLINE float dot_of(const float *a, const void *row, bool bf16, int32_t n) {
    float part[8] = {0};
    const int32_t whole = n / 8 * 8;
    for (int32_t i = 0; i < whole; i += 8)
        for (int32_t j = 0; j < 8; j++) part[j] += a[i + j] * element(row, bf16, i + j);
    for (int32_t i = whole; i < n; i++) part[i - whole] += a[i] * element(row, bf16, i);
    for (int32_t j = 0; j < 4; j++) part[j] += part[j + 4];
    return (part[0] + part[2]) + (part[1] + part[3]);
}

SAC_CLONES
static float dot(const float *a, const float *b, int32_t n) { return dot_of(a, b, false, n); }

SAC_CLONES
static void dots(float *products, float factor, const float *a, const float *row, int64_t stride,
                 int32_t count, int32_t n) {
    for (int32_t i = 0; i < count; i++) products[i] = factor * dot_of(a, row + i * stride, false, n);
}

SAC_CLONES
static void dots_bf16(float *products, float factor, const float *a, const uint16_t *row, int64_t stride,
                      int32_t count, int32_t n) {
    for (int32_t i = 0; i < count; i++) products[i] = factor * dot_of(a, row + i * stride, true, n);
}

SAC_CLONES
static void add(float *sum, float factor, const float *row, int32_t n) {
    for (int32_t i = 0; i < n; i++) sum[i] += factor * row[i];
}

SAC_CLONES
static void add_bf16(float *sum, float factor, const uint16_t *row, int32_t n) {
    for (int32_t i = 0; i < n; i++) sum[i] += factor * sac_float_of_bf16(row[i]);
}

float sac_row_dot(const float *a, const float *b, int32_t n) { return dot(a, b, n); }

void sac_row_dots(float *products, float factor, const float *a, const void *data, int64_t offset,
                  int64_t row_stride, int32_t count, int32_t n, int32_t dtype) {
    float room[SAC_NSA_MOST_DIMS];
    if (dtype == SAC_F32)
        dots(products, factor, a, (const float *)data + offset, row_stride, count, n);
    else if (dtype == SAC_BF16)
        dots_bf16(products, factor, a, (const uint16_t *)data + offset, row_stride, count, n);
    else
        for (int32_t i = 0; i < count; i++)
            products[i] = factor * dot(a, sac_row_floats(room, data, offset + i * row_stride, n, dtype), n);
}

void sac_row_add(float *sum, float factor, const float *row, int32_t n) { add(sum, factor, row, n); }

enum { ROWS_AT_ONCE = 8 }; /* between a load of the sums and a store */

/* One after the other, in fp32. */
INLINE float sum_of_rows(float sum, const void *row, bool bf16, int64_t stride, int32_t i) {
    for (int32_t r = 0; r < ROWS_AT_ONCE; r++)
        sum += bf16 ? sac_float_of_bf16(((const uint16_t *)row)[r * stride + i])
                    : ((const float *)row)[r * stride + i];
    return sum;
}

SAC_CLONES
static void add_rows(float *sum, const float *row, int64_t stride, int32_t count, int32_t n) {
    for (; count >= ROWS_AT_ONCE; count -= ROWS_AT_ONCE, row += ROWS_AT_ONCE * stride)
        for (int32_t i = 0; i < n; i++) sum[i] = sum_of_rows(sum[i], row, false, stride, i);
    for (; count > 0; count--, row += stride)
        for (int32_t i = 0; i < n; i++) sum[i] += row[i];
}

SAC_CLONES
static void add_rows_bf16(float *sum, const uint16_t *row, int64_t stride, int32_t count, int32_t n) {
    for (; count >= ROWS_AT_ONCE; count -= ROWS_AT_ONCE, row += ROWS_AT_ONCE * stride)
        for (int32_t i = 0; i < n; i++) sum[i] = sum_of_rows(sum[i], row, true, stride, i);
    for (; count > 0; count--, row += stride)
        for (int32_t i = 0; i < n; i++) sum[i] += sac_float_of_bf16(row[i]);
}

void sac_row_add_rows(float *sum, const void *data, int64_t offset, int64_t row_stride, int32_t count,
                      int32_t n, int32_t dtype) {
    if (dtype == SAC_F32)
        add_rows(sum, (const float *)data + offset, row_stride, count, n);
    else if (dtype == SAC_BF16)
        add_rows_bf16(sum, (const uint16_t *)data + offset, row_stride, count, n);
    else
        for (int32_t i = 0; i < count; i++) sac_row_add_from(sum, 1, data, offset + i * row_stride, n, dtype);
}

void sac_row_add_from(float *sum, float factor, const void *data, int64_t offset, int32_t n, int32_t dtype) {
    float row[SAC_NSA_MOST_DIMS];
    if (dtype == SAC_F32) {
        add(sum, factor, (const float *)data + offset, n);
    } else if (dtype == SAC_BF16) {
        add_bf16(sum, factor, (const uint16_t *)data + offset, n);
    } else {
        sac_row_load(row, data, offset, n, dtype);
        add(sum, factor, row, n);
    }
}

SAC_CLONES
static void mix(float *out, const float *a, const float *b, const float *c, const float w[3], int32_t n) {
    for (int32_t i = 0; i < n; i++) out[i] = w[0] * a[i] + w[1] * b[i] + w[2] * c[i];
}

SAC_CLONES
static void mix_bf16(uint16_t *out, const uint16_t *a, const uint16_t *b, const uint16_t *c, const float w[3],
                     int32_t n) {
    for (int32_t i = 0; i < n; i++)
        out[i] = sac_bf16_of_float(w[0] * sac_float_of_bf16(a[i]) + w[1] * sac_float_of_bf16(b[i]) +
                                   w[2] * sac_float_of_bf16(c[i]));
}

void sac_row_mix(void *out, const void *const rows[3], const float weight[3], int32_t n, int32_t dtype) {
    float sum[SAC_NSA_MOST_DIMS], row[3][SAC_NSA_MOST_DIMS];
    if (dtype == SAC_F32) {
        mix(out, rows[0], rows[1], rows[2], weight, n);
    } else if (dtype == SAC_BF16) {
        mix_bf16(out, rows[0], rows[1], rows[2], weight, n);
    } else {
        for (int c = 0; c < 3; c++) sac_row_load(row[c], rows[c], 0, n, dtype);
        mix(sum, row[0], row[1], row[2], weight, n);
        sac_row_store(out, 0, sum, n, dtype);
    }
}
