/* kernel_cache.c - see kernel_cache.h. */
#include "support/kernel_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool kernel_cache_make(kernel_cache *cache) {
    strcpy(cache->dir, "/tmp/saccade-kernels-XXXXXX");
    cache->device = (sac_cuda_device){.compute_capability = 90};
    cache->spec = (sac_kernel_spec){
        .source = "cuda/kernels/attn_bwd_dsink.cu", .entry = "attn_bwd_dsink", .threads = 64};
    const saccade_context_params params = {.cache_dir = cache->dir};
    return mkdtemp(cache->dir) && saccade_context_create(&cache->ctx, &params) == SACCADE_OK &&
           sac_cuda_of(cache->ctx);
}

bool kernel_cache_free(kernel_cache *cache) {
    char command[96];
    chmod(cache->dir, 0700);
    snprintf(command, sizeof command, "rm -rf %s", cache->dir);
    saccade_context_destroy(cache->ctx);
    return system(command) == 0;
}
