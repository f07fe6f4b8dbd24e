/* tensor.c - checking one tensor. */
#include "mask/tensor.h"

#include "base/error.h"
#include "base/tensor_check.h"

saccade_status sac_host_tensor_of(sac_mask_tensor *host, const char *name, const DLTensor *tensor,
                                  DLDataType dtype, int32_t ndim) {
    const DLDevice cpu = {kDLCPU, tensor ? tensor->device.device_id : 0}; /* whatever its number */
    return sac_mask_tensor_of(host, name, tensor, cpu, dtype, ndim);
}

saccade_status sac_mask_tensor_of(sac_mask_tensor *checked, const char *name, const DLTensor *tensor,
                                  DLDevice device, DLDataType dtype, int32_t ndim) {
    const sac_tensor_spec spec = {
        .name = name, .dtype = dtype, .device = device, .ndim = ndim, .extent = {-1, -1, -1, -1}};
    SAC_TRY(sac_tensor_check(tensor, &spec));
    for (int32_t d = 0; d < ndim; d++) {
        checked->extent[d] = tensor->shape[d];
        checked->stride[d] = sac_tensor_stride(tensor, d);
    }
    checked->data = sac_tensor_data(tensor);
    return SACCADE_OK;
}

saccade_status sac_tensor_extent(const sac_mask_tensor *tensor, const char *name, int d, int64_t wanted,
                                 bool may_be_one) {
    int64_t found = tensor->extent[d];
    if (found == wanted || (may_be_one && found == 1)) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: shape[%d] is %lld, but the mask has %lld%s", name, d,
                    (long long)found, (long long)wanted, may_be_one && wanted != 1 ? " (or 1)" : "");
}
