/* test_tensor.c - layouts, poison and guard zones. */
#include "support/test_tensor.h"

#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/cmocka_all.h"

enum { GUARD = 512, POISON = 0xff }; /* bytes */

DLDataType test_dtype(sac_dtype dtype) {
    switch (dtype) {
    case SAC_F16:
        return SACCADE_F16;
    case SAC_BF16:
        return SACCADE_BF16;
    case SAC_F64:
        return SACCADE_F64;
    default:
        return SACCADE_F32;
    }
}

double test_unit_roundoff(DLDataType dtype) {
    return dtype.code == kDLBfloat ? 0x1p-8 : dtype.bits == 16 ? 0x1p-11 : 0x1p-24;
}

int64_t test_shape_size(const test_shape *shape) {
    int64_t size = shape->ndim > 0;
    for (int d = 0; d < shape->ndim; d++) size *= shape->extent[d];
    return size;
}

/* Dimensions from the fastest to the slowest. */
static void memory_order(test_layout layout, int ndim, int *order) {
    for (int d = 0; d < ndim; d++) order[d] = ndim - 1 - d;
    if (ndim < 3) return;
    if (layout == LAYOUT_HEADS_FIRST) {
        order[1] = ndim - 3;
        order[2] = ndim - 2;
    } else if (layout == LAYOUT_SEQUENCE_FIRST && ndim == 4) {
        order[2] = 0;
        order[3] = 1;
    }
}

/* Elements between the end of one row of heads and the start of the next. */
static int64_t row_gap(test_layout layout, int64_t row) {
    switch (layout) {
    case LAYOUT_INTERLEAVED:
        return 2 * row;
    case LAYOUT_WIDE:
        return 40;
    case LAYOUT_ODD:
        return 3;
    default:
        return 0;
    }
}

/* Elements before the first. */
static int64_t start_of(test_layout layout, int64_t row) {
    return layout == LAYOUT_INTERLEAVED ? row : layout == LAYOUT_WIDE ? 16 : layout == LAYOUT_ODD;
}

void test_tensor_make(test_tensor *t, const test_device *device, DLDataType dtype, const test_shape *shape,
                      test_layout layout) {
    int order[4];
    int64_t size = 1, row = 1, element = dtype.bits / 8;
    memset(t, 0, sizeof *t);
    if (shape->ndim == 0) return;
    memory_order(layout, shape->ndim, order);
    for (int i = 0; i < shape->ndim; i++) {
        bool heads = shape->ndim >= 3 && order[i] == shape->ndim - 2;
        t->shape[order[i]] = shape->extent[order[i]];
        t->strides[order[i]] = heads && layout == LAYOUT_ONE_HEAD ? 0 : size;
        if (t->strides[order[i]]) size *= shape->extent[order[i]];
        if (!heads) continue;
        row = size;
        size += row_gap(layout, row);
    }
    t->device = device;
    t->bytes = (size_t)((start_of(layout, row) + size) * element) + 2 * GUARD;
    t->image = malloc(t->bytes);
    t->memory = device->alloc(t->bytes);
    assert_true(t->image && t->memory);
    memset(t->image, POISON, t->bytes);
    device->upload(t->memory, t->image, t->bytes);
    t->tensor = (DLTensor){.data = t->memory,
                           .device = device->device,
                           .ndim = shape->ndim,
                           .dtype = dtype,
                           .shape = t->shape,
                           .strides = t->strides,
                           .byte_offset = GUARD + (uint64_t)(start_of(layout, row) * element)};
}

void test_tensor_free(test_tensor *t) {
    if (!t->memory) return;
    t->device->free(t->memory);
    free(t->image);
    memset(t, 0, sizeof *t);
}

DLTensor *test_tensor_or_null(test_tensor *t) { return t->memory ? &t->tensor : NULL; }

void test_tensors_take_data(test_tensor *tensors, int count, void **data) {
    for (int i = 0; i < count; i++) {
        data[i] = tensors[i].tensor.data;
        tensors[i].tensor.data = NULL;
    }
}

void test_tensors_give_data(test_tensor *tensors, int count, void *const *data) {
    for (int i = 0; i < count; i++) tensors[i].tensor.data = data[i];
}

static int64_t count_of(const test_tensor *t) {
    int64_t count = t->memory != NULL;
    for (int d = 0; d < t->tensor.ndim; d++) count *= t->shape[d];
    return count;
}

/* Elements of the last dimension, which lie side by side. */
static int32_t row_length(const test_tensor *t) { return (int32_t)t->shape[t->tensor.ndim - 1]; }

/* The row that begins with the index-th element, counted in row-major order, in a copy of the memory. */
static uint8_t *row_at(const test_tensor *t, uint8_t *copy, int64_t index) {
    int64_t offset = 0;
    for (int d = t->tensor.ndim - 1; d >= 0; d--) {
        offset += index % t->shape[d] * t->strides[d];
        index /= t->shape[d];
    }
    return copy + t->tensor.byte_offset + offset * (t->tensor.dtype.bits / 8);
}

static sac_dtype format_of(DLDataType dtype) {
    if (dtype.code == kDLBfloat) return SAC_BF16;
    return dtype.bits == 16 ? SAC_F16 : dtype.bits == 32 ? SAC_F32 : SAC_F64;
}

static void store(uint8_t *at, DLDataType dtype, const double *values, int32_t n) {
    if (dtype.code == kDLInt)
        for (int32_t i = 0; i < n; i++) ((int32_t *)at)[i] = (int32_t)values[i];
    else
        sac_number_write(at, format_of(dtype), 0, values, n);
}

static void load(double *values, DLDataType dtype, const uint8_t *at, int32_t n) {
    if (dtype.code == kDLInt)
        for (int32_t i = 0; i < n; i++) values[i] = ((const int32_t *)at)[i];
    else
        sac_number_read(values, at, format_of(dtype), 0, n);
}

void test_tensor_write(test_tensor *t, const double *values) {
    int64_t count = count_of(t);
    for (int64_t i = 0; i < count; i += row_length(t))
        store(row_at(t, t->image, i), t->tensor.dtype, values + i, row_length(t));
    if (t->memory) t->device->upload(t->memory, t->image, t->bytes);
}

static void fail_where_they_differ(const test_tensor *t, const uint8_t *now, const char *name) {
    if (memcmp(now, t->image, t->bytes) == 0) return;
    size_t i = 0;
    while (now[i] == t->image[i]) i++;
    fail_msg(
        "%s: byte %td from its first element is no part of the tensor, but has changed from %02x to %02x",
        name, (ptrdiff_t)i - (ptrdiff_t)t->tensor.byte_offset, t->image[i], now[i]);
}

void test_tensor_read(test_tensor *t, const char *name, double *values) {
    int64_t count = count_of(t);
    if (!t->memory) return;
    uint8_t *now = malloc(t->bytes);
    assert_non_null(now);
    t->device->download(now, t->memory, t->bytes);
    for (int64_t i = 0; i < count; i += row_length(t)) {
        uint8_t *at = row_at(t, now, i);
        load(values + i, t->tensor.dtype, at, row_length(t));
        memcpy(at, row_at(t, t->image, i), (size_t)row_length(t) * (t->tensor.dtype.bits / 8));
    }
    fail_where_they_differ(t, now, name);
    free(now);
}

void test_tensor_unchanged(test_tensor *t, const char *name) {
    if (!t->memory) return;
    uint8_t *now = malloc(t->bytes);
    assert_non_null(now);
    t->device->download(now, t->memory, t->bytes);
    fail_where_they_differ(t, now, name);
    free(now);
}
