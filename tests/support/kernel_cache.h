/* kernel_cache.h - a context with a cache folder of its own and a small kernel, for tests of where kernels come
 * from. */
#ifndef TEST_KERNEL_CACHE_H
#define TEST_KERNEL_CACHE_H

#include "cuda/runtime.h"

typedef struct kernel_cache {
    char dir[64];
    saccade_context *ctx; /* keeps its kernels there */
    sac_cuda_device device;
    sac_kernel_spec spec; /* a kernel that is quickly compiled */
} kernel_cache;

/* False: there is no folder, or no context. */
bool kernel_cache_make(kernel_cache *cache);

/* Removes the folder too. False: it is still there. */
bool kernel_cache_free(kernel_cache *cache);

#endif
