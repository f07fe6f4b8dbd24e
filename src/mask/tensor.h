/* tensor.h - the tensors that masks are made from and written to: on the host, last dimension contiguous. */
#ifndef SAC_MASK_TENSOR_H
#define SAC_MASK_TENSOR_H

#include <saccade/tensor.h>
#include <saccade/status.h>

enum { SAC_MAX_TENSOR_DIMS = 4 };

typedef struct sac_host_tensor {
    void *data;
    int64_t extent[SAC_MAX_TENSOR_DIMS], stride[SAC_MAX_TENSOR_DIMS]; /* elements */
} sac_host_tensor;

/* Checks that `tensor` (called `name` in messages) is there, on the host, of that dtype and rank, and contiguous in
 * its last dimension. */
saccade_status sac_host_tensor_of(sac_host_tensor *host, const char *name, const DLTensor *tensor,
                                  DLDataType dtype, int32_t ndim);

/* Offset, in elements, of (i, j, k, 0) in a tensor of rank 4. */
static inline int64_t sac_host_row(const sac_host_tensor *host, int64_t i, int64_t j, int64_t k) {
    return i * host->stride[0] + j * host->stride[1] + k * host->stride[2];
}

#endif
