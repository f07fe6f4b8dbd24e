/* runtime.h - what the GPU backends keep with a context: devices and loaded kernels. */
#ifndef SAC_CUDA_RUNTIME_H
#define SAC_CUDA_RUNTIME_H

#include "base/context.h"
#include "base/file_cache.h"
#include "cuda/cubin_pack.h"
#include "cuda/cuda.h"

enum { SAC_MAX_DEVICES = 64 };

typedef struct sac_kernel sac_kernel;
typedef struct sac_mask_copy sac_mask_copy;

typedef struct sac_cuda {
    sac_cuda_device devices[SAC_MAX_DEVICES];
    bool known[SAC_MAX_DEVICES]; /* properties were read, primary context retained */
    sac_cuda_facts facts;
    sac_kernel *kernels;        /* loaded; a list, the last used first */
    sac_mask_copy *masks;       /* copies of block masks, likewise */
    const sac_cubin_pack *pack; /* the library's; NULL: none */
} sac_cuda;

/* The state of this context, made when first asked for; NULL: out of memory. */
sac_cuda *sac_cuda_of(saccade_context *ctx);

/* Machine code for the device, to be freed: from the pack, the disk, or compiled and left there. Needs no driver. */
saccade_status sac_kernel_cubin(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, void **cubin, size_t *size);

/* The key of a spec in a pack. False: out of memory. */
bool sac_kernel_pack_key(char text[SAC_FILE_KEY_SIZE], const sac_cuda_device *device,
                         const sac_kernel_spec *spec);

/* Unloads every kernel of the context. */
void sac_kernels_unload(sac_cuda *cuda);

#endif
