/* tensor.c - checking one tensor. */
#include "mask/tensor.h"

#include <stdio.h>

#include "base/dtype.h"
#include "base/error.h"

/* "i32"; 16 bytes are enough for any. */
static void dtype_text(DLDataType dtype, char text[16]) {
    const char *code = dtype.code == kDLInt      ? "i"
                       : dtype.code == kDLUInt   ? "u"
                       : dtype.code == kDLBfloat ? "bf"
                                                 : "f";
    snprintf(text, 16, dtype.lanes == 1 ? "%s%d" : "%s%dx%d", code, dtype.bits, dtype.lanes);
}

saccade_status sac_host_tensor_of(sac_mask_tensor *host, const char *name, const DLTensor *tensor,
                                  DLDataType dtype, int32_t ndim) {
    const DLDevice cpu = {kDLCPU, tensor ? tensor->device.device_id : 0}; /* whatever its number */
    return sac_mask_tensor_of(host, name, tensor, cpu, dtype, ndim);
}

saccade_status sac_mask_tensor_of(sac_mask_tensor *checked, const char *name, const DLTensor *tensor,
                                  DLDevice device, DLDataType dtype, int32_t ndim) {
    if (!tensor) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", name);
    if (tensor->device.device_type != device.device_type || tensor->device.device_id != device.device_id)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: lies on device %s:%d, but is read on %s:%d", name,
                        sac_device_text(tensor->device), tensor->device.device_id, sac_device_text(device),
                        device.device_id);
    if (tensor->dtype.code != dtype.code || tensor->dtype.bits != dtype.bits ||
        tensor->dtype.lanes != dtype.lanes) {
        char found[16], wanted[16];
        dtype_text(tensor->dtype, found);
        dtype_text(dtype, wanted);
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: dtype is %s, not %s", name, found, wanted);
    }
    if (tensor->ndim != ndim)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: has %d dimensions, not %d", name, tensor->ndim, ndim);
    int64_t count = 1;
    for (int32_t d = ndim - 1; d >= 0; d--) {
        if (tensor->shape[d] < 0)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: shape[%d] is %lld", name, d,
                            (long long)tensor->shape[d]);
        checked->extent[d] = tensor->shape[d];
        checked->stride[d] = tensor->strides ? tensor->strides[d] : count;
        count *= tensor->shape[d];
    }
    if (checked->extent[ndim - 1] > 1 && checked->stride[ndim - 1] != 1)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "%s: the last dimension's stride is %lld, but it must be contiguous", name,
                        (long long)checked->stride[ndim - 1]);
    if (count > 0 && !tensor->data) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: data is NULL", name);
    checked->data = (char *)tensor->data + tensor->byte_offset;
    if ((uintptr_t)checked->data % (dtype.bits / 8u))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: data is not aligned to its elements of %d bits", name,
                        dtype.bits);
    return SACCADE_OK;
}

saccade_status sac_tensor_extent(const sac_mask_tensor *tensor, const char *name, int d, int64_t wanted,
                                 bool may_be_one) {
    int64_t found = tensor->extent[d];
    if (found == wanted || (may_be_one && found == 1)) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: shape[%d] is %lld, but the mask has %lld%s", name, d,
                    (long long)found, (long long)wanted, may_be_one && wanted != 1 ? " (or 1)" : "");
}
