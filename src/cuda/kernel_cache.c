/* kernel_cache.c - from a spec to a loaded kernel: the context's list, then the pack that the build made, then the disk,
 * then the compiler.
 *
 * The list is looked up by the spec alone (the texts inside a running library do not change); a key covers all that the
 * machine code depends on: the source and the headers it reaches, the defines by name, the architecture, and on the disk
 * also the compiler.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file_cache.h"
#include "cuda/kernel_prefetch.h"
#include "cuda/nvrtc.h"
#include "shared/embedded.h"

struct sac_kernel {
    sac_kernel_id id;
    int32_t device_id;
    bool captured; /* a graph may launch it, long after its last call here */
    size_t bytes;  /* of its cubin */
    CUmodule module;
    CUfunction function;
    sac_kernel *next;
};

void sac_kernel_define(sac_kernel_spec *spec, const char *name, int32_t value) {
    spec->defines[spec->num_defines].name = name;
    spec->defines[spec->num_defines].value = value;
    spec->num_defines++;
}

/* The compiler's command line: "-DHEAD_DIM=128" and so on. */
enum { OPTION_SIZE = 64, FIXED_OPTIONS = 4 };
typedef struct options {
    char text[FIXED_OPTIONS + SAC_MAX_DEFINES][OPTION_SIZE];
    const char *list[FIXED_OPTIONS + SAC_MAX_DEFINES];
    int count;
} options;

static void make_options(options *o, const sac_kernel_spec *spec, const char *architecture) {
    o->count = 0;
    snprintf(o->text[o->count++], OPTION_SIZE, "--gpu-architecture=%s", architecture);
    snprintf(o->text[o->count++], OPTION_SIZE, "--std=c++17");
    snprintf(o->text[o->count++], OPTION_SIZE, "--ptxas-options=-v");
    snprintf(o->text[o->count++], OPTION_SIZE, "-DNUM_THREADS=%d", spec->threads);
    for (int i = 0; i < spec->num_defines; i++)
        snprintf(o->text[o->count++], OPTION_SIZE, "-D%s=%d", spec->defines[i].name, spec->defines[i].value);
    for (int i = 0; i < o->count; i++) o->list[i] = o->text[i];
}

/* The headers that its compiler will read, in an array to be freed; NULL: out of memory. */
static const sac_embedded_file **headers_of(const sac_kernel_spec *spec, size_t *count) {
    const sac_embedded_file **list = calloc(sac_embedded_count, sizeof *list);
    const char *source = sac_embedded_text(spec->source, NULL);
    *count = 0;
    if (list && source) sac_embedded_add_includes(source, list, count);
    if (list && spec->modifiers) sac_embedded_add_includes(spec->modifiers, list, count);
    return list;
}

saccade_status sac_kernel_compile(const sac_kernel_spec *spec, const char *architecture, void **cubin,
                                  size_t *size, char **log) {
    const char *reason;
    const sac_nvrtc *nvrtc = sac_nvrtc_get(&reason);
    if (!nvrtc) return sac_fail(SACCADE_COMPILE_FAILED, "%s: %s", spec->source, reason);
    size_t count;
    const sac_embedded_file **headers = headers_of(spec, &count);
    const char **names = headers ? calloc(2 * (count + 1), sizeof *names) : NULL;
    if (!names) {
        free(headers);
        return sac_fail(SACCADE_OUT_OF_MEMORY, "%s: the list of headers", spec->source);
    }
    const char **texts = names + count + 1;
    for (size_t i = 0; i < count; i++) {
        names[i] = headers[i]->path;
        texts[i] = headers[i]->text;
    }
    names[count] = "modifiers.h";
    texts[count] = spec->modifiers ? spec->modifiers : "";

    options o;
    make_options(&o, spec, architecture);
    const char *source = sac_embedded_text(spec->source, NULL);
    saccade_status status =
        sac_nvrtc_compile(nvrtc,
                          &(sac_nvrtc_source){.name = spec->source,
                                              .text = source ? source : "#error not in the library",
                                              .num_headers = (int)count + 1,
                                              .header_names = names,
                                              .header_texts = texts,
                                              .num_options = o.count,
                                              .options = o.list},
                          cubin, size, log);
    free(names);
    free(headers);
    return status;
}

/* compiler "": of whichever. False: out of memory. */
static bool make_key(char text[SAC_FILE_KEY_SIZE], const sac_kernel_spec *spec, const char *architecture,
                     const char *compiler) {
    options o;
    make_options(&o, spec, architecture);
    size_t count;
    const sac_embedded_file **headers = headers_of(spec, &count);
    sac_file_key *key = headers ? sac_file_key_new() : NULL;
    for (size_t i = 0; i < count; i++) sac_file_key_add(key, headers[i]->text);
    free(headers);
    sac_file_key_add(key, sac_embedded_text(spec->source, NULL));
    sac_file_key_add(key, spec->modifiers ? spec->modifiers : "");
    sac_file_key_add(key, compiler);
    for (int i = 0; i < o.count; i++) sac_file_key_add(key, o.list[i]);
    return sac_file_key_finish(key, text);
}

void sac_kernel_architecture(char text[SAC_ARCHITECTURE_SIZE], const sac_cuda_device *device,
                             const sac_kernel_spec *spec) {
    snprintf(text, SAC_ARCHITECTURE_SIZE, "sm_%d%s", device->compute_capability,
             spec->arch_specific ? "a" : "");
}

bool sac_kernel_pack_key(char text[SAC_FILE_KEY_SIZE], const sac_cuda_device *device,
                         const sac_kernel_spec *spec) {
    char architecture[SAC_ARCHITECTURE_SIZE];
    sac_kernel_architecture(architecture, device, spec);
    return make_key(text, spec, architecture, "");
}

static const void *find_in_pack(const sac_cubin_pack *pack, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, size_t *size) {
    char key[SAC_FILE_KEY_SIZE];
    return pack && sac_kernel_pack_key(key, device, spec) ? sac_cubin_pack_find(pack, key, size) : NULL;
}

/* Where the disk cache keeps it. NULL: nowhere. */
static const char *file_of(char name[SAC_FILE_KEY_SIZE + 8], const saccade_context *ctx,
                           const sac_nvrtc *nvrtc, const sac_cuda_device *device,
                           const sac_kernel_spec *spec) {
    char architecture[SAC_ARCHITECTURE_SIZE], compiler[16], key[SAC_FILE_KEY_SIZE];
    sac_kernel_architecture(architecture, device, spec);
    snprintf(compiler, sizeof compiler, "%d", sac_nvrtc_version(nvrtc));
    if (!make_key(key, spec, architecture, compiler)) return NULL;
    snprintf(name, SAC_FILE_KEY_SIZE + 8, "%s.cubin", key);
    return ctx->cache_dir;
}

saccade_status sac_kernel_cubin(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, void **cubin, size_t *size) {
    char architecture[SAC_ARCHITECTURE_SIZE], name[SAC_FILE_KEY_SIZE + 8];
    const char *reason;
    sac_cuda *cuda = sac_cuda_of(ctx);
    const void *packed = find_in_pack(cuda->pack, device, spec, size);
    *cubin = packed ? malloc(*size) : NULL;
    if (packed && !*cubin) return sac_fail(SACCADE_OUT_OF_MEMORY, "%s", spec->source);
    if (packed) memcpy(*cubin, packed, *size);
    if (packed) return SACCADE_OK;

    const sac_nvrtc *nvrtc = sac_nvrtc_get(&reason);
    if (!nvrtc) return sac_fail(SACCADE_COMPILE_FAILED, "%s: %s", spec->source, reason);
    const char *dir = file_of(name, ctx, nvrtc, device, spec);
    *cubin = sac_prefetch_take(cuda, device, spec, size);
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

/* Chained: each part is hashed with what came before as its seed. */
static XXH128_hash_t chain(XXH128_hash_t id, const void *data, size_t size) {
    return XXH3_128bits_withSeed(data, size, id.low64 ^ id.high64);
}

sac_kernel_id sac_kernel_identify(const sac_kernel_spec *spec) {
    int32_t numbers[4 + SAC_MAX_DEFINES] = {spec->threads, spec->smem_bytes, spec->arch_specific,
                                            spec->num_defines};
    XXH128_hash_t id = {0};
    for (int i = 0; i < spec->num_defines; i++) {
        numbers[4 + i] = spec->defines[i].value;
        id = chain(id, spec->defines[i].name, strlen(spec->defines[i].name));
    }
    id = chain(id, numbers, sizeof numbers);
    id = chain(id, spec->source, strlen(spec->source));
    id = chain(id, spec->entry, strlen(spec->entry));
    if (spec->modifiers) id = chain(id, spec->modifiers, strlen(spec->modifiers));
    return (sac_kernel_id){id.low64, id.high64};
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

bool sac_kernel_is_at_hand(saccade_context *ctx, const sac_cuda_device *device, const sac_kernel_spec *spec) {
    char name[SAC_FILE_KEY_SIZE + 8];
    sac_cuda *cuda = sac_cuda_of(ctx);
    size_t size;
    if (find_loaded(cuda, sac_kernel_identify(spec), device->id) ||
        find_in_pack(cuda->pack, device, spec, &size))
        return true;
    const sac_nvrtc *nvrtc = sac_nvrtc_get(NULL);
    const char *dir = nvrtc ? file_of(name, ctx, nvrtc, device, spec) : NULL;
    return sac_file_cache_holds(dir, name);
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
    sac_cuda *cuda = sac_cuda_of(ctx);
    sac_kernel_id id = sac_kernel_identify(spec);
    *result = find_loaded(cuda, id, device->id);
    if (*result) return SACCADE_OK;

    void *cubin = NULL;
    size_t size;
    saccade_status status = sac_kernel_cubin(ctx, device, spec, &cubin, &size);
    if (status != SACCADE_OK) return status;
    sac_kernel *kernel = calloc(1, sizeof *kernel);
    status = kernel ? load(kernel, spec, cubin) : sac_fail(SACCADE_OUT_OF_MEMORY, "%s", spec->source);
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
    saccade_status status = get_kernel(ctx, device, spec, capturing, &kernel);
    if (status != SACCADE_OK) return status;
    kernel->captured = kernel->captured || capturing;
    return sac_driver_check(
        sac_driver_get(NULL)->launch(kernel->function, (unsigned)num_ctas, 1, 1, (unsigned)spec->threads, 1,
                                     1, (unsigned)spec->smem_bytes, ctx->stream, params, NULL),
        spec->entry);
}
