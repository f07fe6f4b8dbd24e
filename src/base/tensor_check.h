/* tensor_check.h - one way to check a DLTensor, with messages that name it. */
#ifndef SAC_BASE_TENSOR_CHECK_H
#define SAC_BASE_TENSOR_CHECK_H

#include <saccade/status.h>
#include <saccade/tensor.h>
#include <stdbool.h>

bool sac_same_dtype(DLDataType a, DLDataType b);

/* What a tensor must be. extent -1: any, and what messages call it. */
typedef struct sac_tensor_spec {
    const char *name;
    DLDataType dtype;
    DLDevice device;
    int ndim;
    int64_t extent[4];
    const char *const *letters; /* of extents that may be any; NULL: "any" */
    bool written;               /* must not overlap itself: no stride 0 */
    bool contiguous;            /* row behind row, without gaps */
    bool without_data;          /* the data pointer is not looked at */
} sac_tensor_spec;

/* Also: the last dimension is contiguous, the data pointer is there unless the tensor is empty, and it is aligned
 * to its element. */
saccade_status sac_tensor_check(const DLTensor *tensor, const sac_tensor_spec *spec);

/* First element; NULL stays NULL. */
void *sac_tensor_data(const DLTensor *tensor);

/* The same for options that decide what a call takes. shapes_only: one that has no data yet is given all the same, and
 * gets an address that nobody may touch. */
void *sac_tensor_place(const DLTensor *tensor, bool shapes_only);

/* Stride of a dimension in elements, whether or not strides are given. */
int64_t sac_tensor_stride(const DLTensor *tensor, int dimension);

#endif
