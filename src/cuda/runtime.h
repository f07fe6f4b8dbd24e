/* runtime.h - what the GPU backends keep with a context: devices and loaded kernels. */
#ifndef SAC_CUDA_RUNTIME_H
#define SAC_CUDA_RUNTIME_H

#include "base/context.h"
#include "cuda/cubin_pack.h"
#include "cuda/kernel_prefetch.h"

enum { SAC_MAX_DEVICES = 64 };

/* Of the cubins of loaded kernels, by default: some 800 kernels. On the device they take about as much. */
#define SAC_LOADED_BYTES ((size_t)48 << 20)

typedef struct sac_kernel sac_kernel;
typedef struct sac_mask_copy sac_mask_copy;

typedef struct sac_cuda {
    sac_cuda_device devices[SAC_MAX_DEVICES];
    bool known[SAC_MAX_DEVICES]; /* properties were read, primary context retained */
    sac_cuda_facts facts;
    sac_kernel *kernels;        /* loaded; a list, the last used first */
    sac_mask_copy *masks;       /* copies of block masks, likewise */
    const sac_cubin_pack *pack; /* the library's; NULL: none */
    size_t most_loaded_bytes;
    sac_prefetch *prefetches; /* kernels that threads compile ahead of their use, and those asked about */
} sac_cuda;

/* The state of this context, made when first asked for; NULL: out of memory. */
sac_cuda *sac_cuda_of(saccade_context *ctx);

/* The same for those who stand below it: whoever has a device of this context has asked for it. */
static inline sac_cuda *sac_cuda_made(const saccade_context *ctx) { return ctx->state[SAC_STATE_CUDA].data; }

/* Machine code for the device, to be freed: from the pack, the disk, or compiled and left there. Needs no driver. */
saccade_status sac_kernel_cubin(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, void **cubin, size_t *size);

/* Of the cubins of all loaded kernels. A kernel that would pass most_loaded_bytes makes those unload that were longest
 * unused, but none that a graph holds. */
size_t sac_kernels_bytes(const sac_cuda *cuda);

/* Unloads every kernel of the context. */
void sac_kernels_unload(sac_cuda *cuda);

#endif
