/* runtime.h - what the GPU backends keep with a context: devices and loaded kernels. */
#ifndef SAC_CUDA_RUNTIME_H
#define SAC_CUDA_RUNTIME_H

#include "base/context.h"
#include "base/file_cache.h"
#include "cuda/cubin_pack.h"
#include "cuda/cuda.h"

enum { SAC_MAX_DEVICES = 64 };

/* Of the cubins of loaded kernels, by default: some 800 kernels. On the device they take about as much. */
#define SAC_LOADED_BYTES ((size_t)48 << 20)

typedef struct sac_kernel sac_kernel;
typedef struct sac_mask_copy sac_mask_copy;
typedef struct sac_prefetch sac_prefetch;

typedef struct sac_cuda {
    sac_cuda_device devices[SAC_MAX_DEVICES];
    bool known[SAC_MAX_DEVICES]; /* properties were read, primary context retained */
    sac_cuda_facts facts;
    sac_kernel *kernels;        /* loaded; a list, the last used first */
    sac_mask_copy *masks;       /* copies of block masks, likewise */
    const sac_cubin_pack *pack; /* the library's; NULL: none */
    size_t most_loaded_bytes;
    sac_prefetch
        *prefetches; /* kernels that threads compile ahead of their use, and those that were asked about */
} sac_cuda;

/* The state of this context, made when first asked for; NULL: out of memory. */
sac_cuda *sac_cuda_of(saccade_context *ctx);

/* "sm_90a" */
enum { SAC_ARCHITECTURE_SIZE = 16 };
void sac_kernel_architecture(char text[SAC_ARCHITECTURE_SIZE], const sac_cuda_device *device,
                             const sac_kernel_spec *spec);

/* By a hash of the spec alone: the texts inside a running library do not change. */
typedef struct sac_kernel_id {
    uint64_t low, high;
} sac_kernel_id;
sac_kernel_id sac_kernel_identify(const sac_kernel_spec *spec);

/* Loaded, in the pack, or on the disk? */
bool sac_kernel_is_at_hand(saccade_context *ctx, const sac_cuda_device *device, const sac_kernel_spec *spec);

/* Machine code for the device, to be freed: from the pack, the disk, or compiled and left there. Needs no driver. */
saccade_status sac_kernel_cubin(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, void **cubin, size_t *size);

/* The key of a spec in a pack. False: out of memory. */
bool sac_kernel_pack_key(char text[SAC_FILE_KEY_SIZE], const sac_cuda_device *device,
                         const sac_kernel_spec *spec);

/* Of the cubins of all loaded kernels. A kernel that would pass most_loaded_bytes makes those unload that were longest
 * unused, but none that a graph holds. */
size_t sac_kernels_bytes(const sac_cuda *cuda);

/* Unloads every kernel of the context. */
void sac_kernels_unload(sac_cuda *cuda);

#endif
