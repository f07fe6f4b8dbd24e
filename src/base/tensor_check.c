/* tensor_check.c - shapes, strides and dtypes against what an argument must be. */
#include "base/tensor_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"

bool sac_same_dtype(DLDataType a, DLDataType b) {
    return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

void *sac_tensor_data(const DLTensor *tensor) {
    return tensor && tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
}

void *sac_tensor_place(const DLTensor *tensor, bool shapes_only) {
    static char nowhere[64] __attribute__((aligned(64)));
    void *data = sac_tensor_data(tensor);
    return data || !tensor || !shapes_only ? data : nowhere;
}

int64_t sac_tensor_stride(const DLTensor *tensor, int dimension) {
    if (tensor->strides) return tensor->strides[dimension];
    int64_t stride = 1;
    for (int d = tensor->ndim - 1; d > dimension; d--) stride *= tensor->shape[d];
    return stride;
}

static bool is_empty(const DLTensor *tensor) {
    for (int d = 0; d < tensor->ndim; d++)
        if (tensor->shape[d] == 0) return true;
    return false;
}

/* "(2, 128, 8, 64)"; with letters, -1 is printed as its letter. */
static const char *shape_text(char *text, size_t size, const int64_t *shape, int ndim,
                              const char *const *letters) {
    size_t used = (size_t)snprintf(text, size, "(");
    for (int d = 0; d < ndim && used < size; d++) {
        const char *comma = d ? ", " : "";
        if (letters && shape[d] < 0)
            used += (size_t)snprintf(text + used, size - used, "%s%s", comma, letters[d]);
        else
            used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, comma, shape[d]);
    }
    if (used < size) snprintf(text + used, size - used, ")");
    return text;
}

static saccade_status check_shape(const DLTensor *tensor, const sac_tensor_spec *spec) {
    bool same = tensor->ndim == spec->ndim;
    if (tensor->ndim > 0 && !tensor->shape)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: has %d dimensions, but shape is NULL", spec->name,
                        tensor->ndim);
    for (int d = 0; same && d < spec->ndim; d++)
        same = tensor->shape[d] >= 0 && (spec->extent[d] < 0 || tensor->shape[d] == spec->extent[d]);
    if (same) return SACCADE_OK;
    static const char *const any[] = {"any", "any", "any", "any"};
    char found[128], expected[128];
    int shown = tensor->ndim < 0 ? 0 : tensor->ndim > 6 ? 6 : tensor->ndim;
    return sac_fail(
        SACCADE_INVALID_ARGUMENT, "%s: shape is %s, expected %s", spec->name,
        shape_text(found, sizeof found, tensor->shape, shown, NULL),
        shape_text(expected, sizeof expected, spec->extent, spec->ndim, spec->letters ? spec->letters : any));
}

static saccade_status check_strides(const DLTensor *tensor, const sac_tensor_spec *spec) {
    int last = spec->ndim - 1;
    int64_t contiguous = 1;
    if (last < 0 || !tensor->strides || is_empty(tensor)) return SACCADE_OK;
    if (tensor->shape[last] > 1 && tensor->strides[last] != 1)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "%s: the last dimension has stride %" PRId64 ", it must be contiguous", spec->name,
                        tensor->strides[last]);
    for (int d = 0; d < last; d++) {
        if (tensor->strides[d] < 0)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: stride %" PRId64 " of dimension %d is negative",
                            spec->name, tensor->strides[d], d);
        if (spec->written && tensor->shape[d] > 1 && tensor->strides[d] == 0)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "%s: an output must not overlap itself, but dimension %d has stride 0",
                            spec->name, d);
    }
    for (int d = last; spec->contiguous && d >= 0; contiguous *= tensor->shape[d--])
        if (tensor->shape[d] > 1 && tensor->strides[d] != contiguous)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "%s: must be contiguous, but dimension %d has stride %" PRId64
                            " instead of %" PRId64,
                            spec->name, d, tensor->strides[d], contiguous);
    return SACCADE_OK;
}

/* A tensor that no address space could hold has no offset, and no workspace made of its sizes, that overflows. */
static saccade_status check_span(const DLTensor *tensor, const sac_tensor_spec *spec) {
    const int64_t most = (INT64_C(1) << 56) / (spec->dtype.bits / 8);
    int64_t end = 1; /* one past the last element */
    if (tensor->strides && is_empty(tensor)) return SACCADE_OK;
    for (int d = spec->ndim - 1; d >= 0; d--) {
        const int64_t extent = tensor->shape[d] > 1 ? tensor->shape[d] : 1;
        int64_t reach;
        if (__builtin_mul_overflow(extent - 1, tensor->strides ? tensor->strides[d] : end, &reach) ||
            __builtin_add_overflow(end, reach, &end) || end > most)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "%s: dimension %d, of extent %" PRId64 ", reaches beyond 2^56 bytes", spec->name,
                            d, tensor->shape[d]);
    }
    return SACCADE_OK;
}

saccade_status sac_tensor_check(const DLTensor *tensor, const sac_tensor_spec *spec) {
    if (!tensor) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", spec->name);
    if (!sac_same_dtype(tensor->dtype, spec->dtype))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: dtype is %s, expected %s", spec->name,
                        sac_dtype_text(tensor->dtype), sac_dtype_text(spec->dtype));
    if (tensor->device.device_type != spec->device.device_type ||
        tensor->device.device_id != spec->device.device_id)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is on device %s:%d, expected %s:%d", spec->name,
                        sac_device_text(tensor->device), tensor->device.device_id,
                        sac_device_text(spec->device), spec->device.device_id);
    saccade_status status = check_shape(tensor, spec);
    if (status == SACCADE_OK) status = check_strides(tensor, spec);
    if (status == SACCADE_OK) status = check_span(tensor, spec);
    if (status != SACCADE_OK || spec->without_data || is_empty(tensor)) return status;
    if (!tensor->data) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: data is NULL", spec->name);
    if ((uintptr_t)sac_tensor_data(tensor) % (spec->dtype.bits / 8u))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: data is not aligned to its %d-byte elements",
                        spec->name, spec->dtype.bits / 8);
    return SACCADE_OK;
}
