/* saccade/tensor.h - tensors are DLPack's DLTensor: PyTorch, JAX, NumPy and CuPy already speak it.
 *
 * Strides count elements; NULL strides mean row-major. Any strides are accepted as long as the last dimension
 * is contiguous (stride 1, or extent <= 1) and none is negative, so sbhd layouts, slices of an interleaved qkv and
 * broadcasts (stride 0) of inputs work without a copy. Outputs must overlap
 * neither themselves nor another tensor of the call: a stride of 0 is refused, the rest trusted.
 *
 * One line makes a tensor from a pointer and a shape, in C, alive until the enclosing block ends (the branch of an if
 * is a block of its own, braces or not):
 *     saccade_attention_forward(ctx, SACCADE_TENSOR(q, SACCADE_BF16, 1, 2048, 8, 64), ...);
 */
#ifndef SACCADE_TENSOR_H
#define SACCADE_TENSOR_H

#include <dlpack/dlpack.h>
#include <stdint.h>

#ifdef __cplusplus
#define SACCADE_DTYPE_(code_, bits_) (DLDataType{code_, bits_, 1})
#else
#define SACCADE_DTYPE_(code_, bits_) ((DLDataType){.code = (code_), .bits = (bits_), .lanes = 1})
#endif
#define SACCADE_F64 SACCADE_DTYPE_(kDLFloat, 64)
#define SACCADE_F32 SACCADE_DTYPE_(kDLFloat, 32)
#define SACCADE_F16 SACCADE_DTYPE_(kDLFloat, 16)
#define SACCADE_BF16 SACCADE_DTYPE_(kDLBfloat, 16)
#define SACCADE_I64 SACCADE_DTYPE_(kDLInt, 64)
#define SACCADE_I32 SACCADE_DTYPE_(kDLInt, 32)
#define SACCADE_I16 SACCADE_DTYPE_(kDLInt, 16)
#define SACCADE_I8 SACCADE_DTYPE_(kDLInt, 8)
#define SACCADE_U8 SACCADE_DTYPE_(kDLUInt, 8)

/* A row-major host tensor: SACCADE_TENSOR(pointer, dtype, extents...). */
#define SACCADE_TENSOR(pointer, dtype_, ...)                                                                 \
    SACCADE_TENSOR_ON(((DLDevice){kDLCPU, 0}), pointer, dtype_, __VA_ARGS__)

/* The same on any DLPack device: SACCADE_TENSOR_ON(((DLDevice){kDLCUDA, 0}), pointer, dtype, extents...). */
#define SACCADE_TENSOR_ON(device_, pointer, dtype_, ...)                                                     \
    (&(DLTensor){.data = (void *)(pointer),                                                                  \
                 .device = device_,                                                                          \
                 .ndim = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                          \
                 .dtype = dtype_,                                                                            \
                 .shape = (int64_t[]){__VA_ARGS__}})

#endif
