/* gpu.h - the tensors of a computation in the memory of the first NVIDIA GPU, for --backend cuda... */
#ifndef GPU_H
#define GPU_H

#include <saccade/tensor.h>
#include <stdbool.h>

/* Copies of tensors, each made when it is first asked for. */
typedef struct gpu_copies gpu_copies;

/* Opens the GPU if *backend means one of its backends; "cuda", the best of them, becomes NULL. Else *copies is NULL.
 * False after a message: there is no GPU. */
bool gpu_enter(const char **backend, gpu_copies **copies);
void gpu_copies_free(gpu_copies *copies);

/* The copy of a tensor, with its values; NULL stays NULL. NULL copies: the tensor itself. */
DLTensor *gpu_copy_of(gpu_copies *copies, const DLTensor *tensor);

/* Waits for everything queued. False after a message: it failed there. */
bool gpu_wait(const gpu_copies *copies);

/* Brings a tensor's values back from its copy, if it has one. False after a message. */
bool gpu_copy_back(const gpu_copies *copies, DLTensor *tensor);

/* Ends the copy of a tensor, before the tensor itself ends. */
void gpu_forget(gpu_copies *copies, const DLTensor *tensor);

#endif
