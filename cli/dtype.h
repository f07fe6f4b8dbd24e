/* dtype.h - element types: their names in files and in messages, and their values as float. */
#ifndef DTYPE_H
#define DTYPE_H

#include <saccade/tensor.h>
#include <stdbool.h>
#include <stddef.h>

/* "BF16" in a safetensors header; BOOL reads as uint8. False: unknown, or not served here. */
bool dtype_from_file_name(const char *name, DLDataType *dtype);
const char *dtype_file_name(DLDataType dtype);

/* "bf16", as options and tables spell it; "?" for any other than the types above. */
const char *dtype_name(DLDataType dtype);
bool dtype_from_name(const char *name, DLDataType *dtype);

size_t dtype_bytes(DLDataType dtype);
bool dtype_equal(DLDataType a, DLDataType b);
bool dtype_is_float(DLDataType dtype);

/* Element conversions of the floating types; rounding is to nearest even. */
void dtype_load(DLDataType dtype, const void *from, size_t count, float *to);
void dtype_store(DLDataType dtype, const float *from, size_t count, void *to);
double dtype_value(DLDataType dtype, const void *data, size_t index);

/* x as it reads back after being stored: the rounding of one intermediate result. */
float dtype_round(DLDataType dtype, float x);

size_t tensor_elements(const DLTensor *tensor);

#endif
