/* tensor.h - the tensors that masks are made from and written to: last dimension contiguous. */
#ifndef SAC_MASK_TENSOR_H
#define SAC_MASK_TENSOR_H

#include <saccade/tensor.h>
#include <saccade/status.h>
#include <stdbool.h>

enum { SAC_MAX_TENSOR_DIMS = 4 };

typedef struct sac_mask_tensor {
    void *data;
    int64_t extent[SAC_MAX_TENSOR_DIMS], stride[SAC_MAX_TENSOR_DIMS]; /* elements */
} sac_mask_tensor;

/* Checks that `tensor` (called `name` in messages) is there, on the device, of that dtype and rank, and contiguous in
 * its last dimension. */
saccade_status sac_mask_tensor_of(sac_mask_tensor *checked, const char *name, const DLTensor *tensor,
                                  DLDevice device, DLDataType dtype, int32_t ndim);

/* The same, on the host. */
saccade_status sac_host_tensor_of(sac_mask_tensor *host, const char *name, const DLTensor *tensor,
                                  DLDataType dtype, int32_t ndim);

/* Checks one extent of it: the mask's, or 1 where that may be shared. */
saccade_status sac_tensor_extent(const sac_mask_tensor *tensor, const char *name, int d, int64_t wanted,
                                 bool may_be_one);

/* Offset, in elements, of (i, j, k, 0) in a tensor of rank 4. */
static inline int64_t sac_tensor_row(const sac_mask_tensor *tensor, int64_t i, int64_t j, int64_t k) {
    return i * tensor->stride[0] + j * tensor->stride[1] + k * tensor->stride[2];
}

#endif
