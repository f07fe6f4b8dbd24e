/* test_tensor.h - tensors of any layout between guard zones, in the memory of any device.
 *
 * Every byte starts as 0xff, which is NaN in all floating-point formats: the elements of an output until they are
 * written, the gaps that strides leave, and the zones before and after. Reading a tensor back also checks that
 * nothing but its elements has changed.
 */
#ifndef TEST_TENSOR_H
#define TEST_TENSOR_H

#include <saccade/tensor.h>
#include <stdbool.h>

#include "shared/types.h"
#include "support/device.h"

/* How a (B, N, H, D) or (T, H, D) tensor lies in memory. */
typedef enum test_layout {
    LAYOUT_ROW_MAJOR,
    LAYOUT_HEADS_FIRST,    /* (B, H, N, D) */
    LAYOUT_SEQUENCE_FIRST, /* (N, B, H, D) */
    LAYOUT_INTERLEAVED,    /* a third of each row, as q, k, v of one projection */
    LAYOUT_WIDE,           /* part of wider rows, still aligned to 16 bytes */
    LAYOUT_ODD,            /* rows and start aligned to nothing but the element */
    LAYOUT_ONE_HEAD,       /* stride 0: all heads are the same memory; inputs only */
    NUM_LAYOUTS,
    LAYOUT_MIXED = NUM_LAYOUTS /* every operand another of the layouts */
} test_layout;

typedef struct test_shape {
    int ndim; /* 0: no tensor */
    int64_t extent[4];
} test_shape;

typedef struct test_tensor {
    DLTensor tensor;
    int64_t shape[4], strides[4];
    const test_device *device;
    size_t bytes;
    char *memory;   /* on the device; NULL: no tensor */
    uint8_t *image; /* on the host: what memory holds before the call */
} test_tensor;

DLDataType test_dtype(sac_dtype dtype);

/* What storing a number in the dtype takes from it at most, relative to it. */
double test_unit_roundoff(DLDataType dtype);

int64_t test_shape_size(const test_shape *shape);

void test_tensor_make(test_tensor *t, const test_device *device, DLDataType dtype, const test_shape *shape,
                      test_layout layout);
void test_tensor_free(test_tensor *t);

/* NULL where there is no tensor: as parameters take it. */
DLTensor *test_tensor_or_null(test_tensor *t);

/* Takes the data pointers of tensors away, so that they are what is known before there is memory for them; and gives
 * them back. */
void test_tensors_take_data(test_tensor *tensors, int count, void **data);
void test_tensors_give_data(test_tensor *tensors, int count, void *const *data);

/* Elements in row-major order, rounded to the dtype. */
void test_tensor_write(test_tensor *t, const double *values);
/* The same back. Fails the test where a byte outside the elements has changed. */
void test_tensor_read(test_tensor *t, const char *name, double *values);
/* Fails the test where any byte has changed. */
void test_tensor_unchanged(test_tensor *t, const char *name);

#endif
