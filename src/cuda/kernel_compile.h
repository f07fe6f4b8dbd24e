/* kernel_compile.h - what a spec alone says: which kernel it is, where its machine code may be found, and that code. */
#ifndef SAC_CUDA_KERNEL_COMPILE_H
#define SAC_CUDA_KERNEL_COMPILE_H

#include "base/file_cache.h"
#include "cuda/cuda.h"

/* By a hash of the spec alone: the texts inside a running library do not change. */
typedef struct sac_kernel_id {
    uint64_t low, high;
} sac_kernel_id;
sac_kernel_id sac_kernel_identify(const sac_kernel_spec *spec);

/* "sm_90a" */
enum { SAC_ARCHITECTURE_SIZE = 16 };
void sac_kernel_architecture(char text[SAC_ARCHITECTURE_SIZE], const sac_cuda_device *device,
                             const sac_kernel_spec *spec);

/* The key of a spec in a pack. False: out of memory. */
bool sac_kernel_pack_key(char text[SAC_FILE_KEY_SIZE], const sac_cuda_device *device,
                         const sac_kernel_spec *spec);

/* Its name in the disk cache. False: it has none, for want of memory or of a compiler. */
enum { SAC_KERNEL_FILE_SIZE = SAC_FILE_KEY_SIZE + 8 };
bool sac_kernel_file_name(char name[SAC_KERNEL_FILE_SIZE], const sac_cuda_device *device,
                          const sac_kernel_spec *spec);

#endif
