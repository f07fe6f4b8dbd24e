/* rows.h - rows of any dtype as floats, and the few sums over them that the stages need. */
#ifndef SAC_NSA_ROWS_H
#define SAC_NSA_ROWS_H

#include "shared/attention_args.h"

enum { SAC_NSA_MOST_DIMS = 256 };

/* n elements from element `offset` of data on. */
void sac_row_load(float *row, const void *data, int64_t offset, int32_t n, int32_t dtype);
void sac_row_store(void *data, int64_t offset, const float *row, int32_t n, int32_t dtype);

/* The same where they lie, if they are floats; else loaded into `room`. */
const float *sac_row_floats(float *room, const void *data, int64_t offset, int32_t n, int32_t dtype);

float sac_row_dot(const float *a, const float *b, int32_t n);
/* products[i] = factor * a . row i of so many, row_stride elements apart. */
void sac_row_dots(float *products, float factor, const float *a, const void *data, int64_t offset,
                  int64_t row_stride, int32_t count, int32_t n, int32_t dtype);
/* sum += factor * row */
void sac_row_add(float *sum, float factor, const float *row, int32_t n);
/* The same with n <= SAC_NSA_MOST_DIMS elements of data. */
void sac_row_add_from(float *sum, float factor, const void *data, int64_t offset, int32_t n, int32_t dtype);
/* sum += so many rows of it, row_stride elements apart. */
void sac_row_add_rows(float *sum, const void *data, int64_t offset, int64_t row_stride, int32_t count,
                      int32_t n, int32_t dtype);

/* out = the sum of three rows, each times its weight; n <= SAC_NSA_MOST_DIMS. */
void sac_row_mix(void *out, const void *const rows[3], const float weight[3], int32_t n, int32_t dtype);

size_t sac_dtype_bytes(int32_t dtype);

/* Element offset of row i and head h of batch entry b; packed tensors have no batch stride. */
static inline int64_t sac_view_offset(const sac_view *view, int32_t b, int64_t row, int32_t h) {
    return b * view->batch_stride + row * view->row_stride + h * view->head_stride;
}

#endif
