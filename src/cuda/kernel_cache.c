/* kernel_cache.c - from a spec to a loaded kernel: the context's list, then the pack that the build made, then what a
 * thread compiles ahead, then the disk, then the compiler. */
#include <stdlib.h>
#include <string.h>

#include "cuda/kernel_prefetch.h"
#include "cuda/nvrtc.h"
#include "cuda/runtime.h"

struct sac_kernel {
    sac_kernel_id id;
    int32_t device_id;
    bool captured; /* a graph may launch it, long after its last call here */
    size_t bytes;  /* of its cubin */
    CUmodule module;
    CUfunction function;
    sac_kernel *next;
};

static const void *find_in_pack(const sac_cubin_pack *pack, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, size_t *size) {
    char key[SAC_FILE_KEY_SIZE];
    return pack && sac_kernel_pack_key(key, device, spec) ? sac_cubin_pack_find(pack, key, size) : NULL;
}

saccade_status sac_kernel_cubin(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, void **cubin, size_t *size) {
    char architecture[SAC_ARCHITECTURE_SIZE], name[SAC_KERNEL_FILE_SIZE];
    const char *reason;
    sac_cuda *cuda = sac_cuda_made(ctx);
    const void *packed = find_in_pack(cuda->pack, device, spec, size);
    *cubin = packed ? malloc(*size) : NULL;
    if (packed && !*cubin) return sac_fail(SACCADE_OUT_OF_MEMORY, "%s", spec->source);
    if (packed) memcpy(*cubin, packed, *size);
    if (packed) return SACCADE_OK;

    if (!sac_nvrtc_get(&reason)) return sac_fail(SACCADE_COMPILE_FAILED, "%s: %s", spec->source, reason);
    const char *dir = sac_kernel_file_name(name, device, spec) ? ctx->cache_dir : NULL;
    *cubin = sac_prefetch_take(cuda->prefetches, device->id, sac_kernel_identify(spec), size);
    if (!*cubin) {
        *cubin = sac_file_cache_read(dir, name, size);
        if (*cubin) return SACCADE_OK;
        sac_kernel_architecture(architecture, device, spec);
        SAC_TRY(sac_kernel_compile(spec, architecture, cubin, size, NULL));
    }
    sac_file_cache_write(dir, name, *cubin, *size);
    return SACCADE_OK;
}

/* Loading is allowed while the stream captures a graph: it is no work of the stream's. */
static saccade_status load(sac_kernel *kernel, const sac_kernel_spec *spec, const void *cubin) {
    const sac_driver *driver = sac_driver_get(NULL);
    int mode = SAC_CU_CAPTURE_RELAXED;
    driver->exchange_capture_mode(&mode);
    saccade_status status = sac_driver_check(driver->module_load(&kernel->module, cubin), "loading a kernel");
    if (status == SACCADE_OK)
        status = sac_driver_check(driver->module_function(&kernel->function, kernel->module, spec->entry),
                                  spec->entry);
    if (status == SACCADE_OK)
        status = sac_driver_check(
            driver->function_set(kernel->function, SAC_CU_FUNCTION_DYNAMIC_SMEM, spec->smem_bytes),
            "giving a kernel its shared memory");
    if (status != SACCADE_OK && kernel->module) driver->module_unload(kernel->module);
    driver->exchange_capture_mode(&mode);
    return status;
}

/* The loaded kernel of this spec, moved to the front of the list. */
static sac_kernel *find_loaded(sac_cuda *cuda, sac_kernel_id id, int32_t device_id) {
    for (sac_kernel **link = &cuda->kernels; *link; link = &(*link)->next) {
        sac_kernel *kernel = *link;
        if (kernel->device_id != device_id || kernel->id.low != id.low || kernel->id.high != id.high)
            continue;
        *link = kernel->next;
        kernel->next = cuda->kernels;
        return cuda->kernels = kernel;
    }
    return NULL;
}

/* Loaded, in the pack, or on the disk? */
static bool is_at_hand(const saccade_context *ctx, const sac_cuda_device *device, const sac_kernel_spec *spec,
                       sac_kernel_id id) {
    char name[SAC_KERNEL_FILE_SIZE];
    sac_cuda *cuda = sac_cuda_made(ctx);
    size_t size;
    if (find_loaded(cuda, id, device->id) || find_in_pack(cuda->pack, device, spec, &size)) return true;
    return sac_kernel_file_name(name, device, spec) && sac_file_cache_holds(ctx->cache_dir, name);
}

saccade_status sac_kernel_prefetch(saccade_context *ctx, const sac_cuda_device *device,
                                   const sac_kernel_spec *spec, int64_t num_ctas, void **params) {
    (void)num_ctas, (void)params;
    sac_cuda *cuda = sac_cuda_made(ctx);
    const sac_kernel_id id = sac_kernel_identify(spec);
    if (!sac_prefetch_noted(cuda->prefetches, device->id, id))
        sac_prefetch_note(&cuda->prefetches, device, spec, id, !is_at_hand(ctx, device, spec, id));
    return SACCADE_OK;
}

static void unload(const sac_cuda *cuda, sac_kernel *kernel) {
    const sac_driver *driver = sac_driver_get(NULL);
    CUcontext ours;
    driver->context_push(cuda->devices[kernel->device_id].context);
    driver->context_sync(); /* it may still run */
    driver->module_unload(kernel->module);
    driver->context_pop(&ours);
    free(kernel);
}

/* The longest unused go until the rest fits; the first was loaded for the call at hand. */
static void unload_beyond(sac_cuda *cuda, size_t most) {
    size_t total = cuda->kernels->bytes;
    for (sac_kernel **link = &cuda->kernels->next; *link;) {
        sac_kernel *kernel = *link;
        if (kernel->captured || total + kernel->bytes <= most) {
            total += kernel->bytes;
            link = &kernel->next;
        } else {
            *link = kernel->next;
            unload(cuda, kernel);
        }
    }
}

void sac_kernels_unload(sac_cuda *cuda) {
    for (sac_kernel *kernel = cuda->kernels, *next; kernel; kernel = next) {
        next = kernel->next;
        unload(cuda, kernel);
    }
    cuda->kernels = NULL;
}

size_t sac_kernels_bytes(const sac_cuda *cuda) {
    size_t total = 0;
    for (const sac_kernel *kernel = cuda->kernels; kernel; kernel = kernel->next) total += kernel->bytes;
    return total;
}

static saccade_status get_kernel(saccade_context *ctx, const sac_cuda_device *device,
                                 const sac_kernel_spec *spec, bool capturing, sac_kernel **result) {
    sac_cuda *cuda = sac_cuda_made(ctx);
    sac_kernel_id id = sac_kernel_identify(spec);
    *result = find_loaded(cuda, id, device->id);
    if (*result) return SACCADE_OK;

    void *cubin = NULL;
    size_t size;
    SAC_TRY(sac_kernel_cubin(ctx, device, spec, &cubin, &size));
    sac_kernel *kernel = calloc(1, sizeof *kernel);
    saccade_status status =
        kernel ? load(kernel, spec, cubin) : sac_fail(SACCADE_OUT_OF_MEMORY, "%s", spec->source);
    free(cubin);
    if (status != SACCADE_OK) {
        free(kernel);
        return status;
    }
    kernel->id = id;
    kernel->device_id = device->id;
    kernel->bytes = size;
    kernel->next = cuda->kernels;
    *result = cuda->kernels = kernel;
    if (!capturing) unload_beyond(cuda, cuda->most_loaded_bytes); /* it waits, which a capture forbids */
    return SACCADE_OK;
}

static bool is_capturing(const saccade_context *ctx) {
    int state = 0;
    return sac_driver_get(NULL)->stream_is_capturing(ctx->stream, &state) == 0 && state != 0;
}

saccade_status sac_kernel_launch(saccade_context *ctx, const sac_cuda_device *device,
                                 const sac_kernel_spec *spec, int64_t num_ctas, void **params) {
    if (num_ctas == 0) return SACCADE_OK;
    if (num_ctas > INT32_MAX)
        return sac_fail(SACCADE_UNSUPPORTED, "%s: %lld CTAs are above 2^31 - 1", spec->entry,
                        (long long)num_ctas);
    sac_kernel *kernel;
    const bool capturing = is_capturing(ctx);
    SAC_TRY(get_kernel(ctx, device, spec, capturing, &kernel));
    kernel->captured = kernel->captured || capturing;
    return sac_driver_check(
        sac_driver_get(NULL)->launch(kernel->function, (unsigned)num_ctas, 1, 1, (unsigned)spec->threads, 1,
                                     1, (unsigned)spec->smem_bytes, ctx->stream, params, NULL),
        spec->entry);
}
