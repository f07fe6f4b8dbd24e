/* kernel_cache.c - from a spec to a loaded kernel: the context's list, then the pack that the build made, then the disk,
 * then the compiler.
 *
 * The list is looked up by the spec alone (the texts inside a running library do not change); a key covers all that the
 * machine code depends on: the texts, the defines by name, the architecture, and on the disk also the compiler.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file_cache.h"
#include "cuda/nvrtc.h"
#include "cuda/runtime.h"
#include "shared/embedded.h"

struct sac_kernel {
    XXH128_hash_t id;
    int32_t device_id;
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

/* Kernels include each other's headers, never each other. */
static bool is_header(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot && strcmp(dot, ".cu") != 0;
}

saccade_status sac_kernel_compile(const sac_kernel_spec *spec, const char *architecture, void **cubin,
                                  size_t *size, char **log) {
    const char *reason;
    const sac_nvrtc *nvrtc = sac_nvrtc_get(&reason);
    if (!nvrtc) return sac_fail(SACCADE_COMPILE_FAILED, "%s: %s", spec->source, reason);
    const char **names = calloc(2 * (sac_embedded_count + 1), sizeof *names),
               **texts = names + sac_embedded_count + 1;
    if (!names) return sac_fail(SACCADE_OUT_OF_MEMORY, "%s: the list of headers", spec->source);
    int num_headers = 0;
    for (size_t i = 0; i < sac_embedded_count; i++) {
        if (!is_header(sac_embedded_files[i].path)) continue;
        names[num_headers] = sac_embedded_files[i].path;
        texts[num_headers++] = sac_embedded_files[i].text;
    }
    names[num_headers] = "modifiers.h";
    texts[num_headers++] = spec->modifiers ? spec->modifiers : "";

    options o;
    make_options(&o, spec, architecture);
    const char *source = sac_embedded_text(spec->source, NULL);
    saccade_status status =
        sac_nvrtc_compile(nvrtc,
                          &(sac_nvrtc_source){.name = spec->source,
                                              .text = source ? source : "#error not in the library",
                                              .num_headers = num_headers,
                                              .header_names = names,
                                              .header_texts = texts,
                                              .num_options = o.count,
                                              .options = o.list},
                          cubin, size, log);
    free(names);
    return status;
}

/* compiler "": of whichever. False: out of memory. */
static bool make_key(char text[SAC_FILE_KEY_SIZE], const sac_kernel_spec *spec, const char *architecture,
                     const char *compiler) {
    options o;
    make_options(&o, spec, architecture);
    sac_file_key *key = sac_file_key_new();
    for (size_t i = 0; i < sac_embedded_count; i++)
        if (is_header(sac_embedded_files[i].path)) sac_file_key_add(key, sac_embedded_files[i].text);
    sac_file_key_add(key, sac_embedded_text(spec->source, NULL));
    sac_file_key_add(key, spec->modifiers ? spec->modifiers : "");
    sac_file_key_add(key, compiler);
    for (int i = 0; i < o.count; i++) sac_file_key_add(key, o.list[i]);
    return sac_file_key_finish(key, text);
}

static void architecture_of(char text[16], const sac_cuda_device *device, const sac_kernel_spec *spec) {
    snprintf(text, 16, "sm_%d%s", device->compute_capability, spec->arch_specific ? "a" : "");
}

bool sac_kernel_pack_key(char text[SAC_FILE_KEY_SIZE], const sac_cuda_device *device,
                         const sac_kernel_spec *spec) {
    char architecture[16];
    architecture_of(architecture, device, spec);
    return make_key(text, spec, architecture, "");
}

static saccade_status cubin_from_pack(const sac_cubin_pack *pack, const sac_cuda_device *device,
                                      const sac_kernel_spec *spec, void **cubin, size_t *size) {
    char key[SAC_FILE_KEY_SIZE];
    const void *found =
        pack && sac_kernel_pack_key(key, device, spec) ? sac_cubin_pack_find(pack, key, size) : NULL;
    *cubin = NULL;
    if (!found) return SACCADE_OK;
    if (!(*cubin = malloc(*size))) return sac_fail(SACCADE_OUT_OF_MEMORY, "%s", spec->source);
    memcpy(*cubin, found, *size);
    return SACCADE_OK;
}

saccade_status sac_kernel_cubin(saccade_context *ctx, const sac_cuda_device *device,
                                const sac_kernel_spec *spec, void **cubin, size_t *size) {
    char architecture[16], compiler[16], key[SAC_FILE_KEY_SIZE], name[SAC_FILE_KEY_SIZE + 8];
    const char *reason;
    saccade_status status = cubin_from_pack(sac_cuda_of(ctx)->pack, device, spec, cubin, size);
    if (status != SACCADE_OK || *cubin) return status;
    const sac_nvrtc *nvrtc = sac_nvrtc_get(&reason);
    if (!nvrtc) return sac_fail(SACCADE_COMPILE_FAILED, "%s: %s", spec->source, reason);
    architecture_of(architecture, device, spec);
    snprintf(compiler, sizeof compiler, "%d", sac_nvrtc_version(nvrtc));
    const char *dir = make_key(key, spec, architecture, compiler) ? ctx->cache_dir : NULL;
    snprintf(name, sizeof name, "%s.cubin", key);
    *cubin = sac_file_cache_read(dir, name, size);
    if (*cubin) return SACCADE_OK;
    status = sac_kernel_compile(spec, architecture, cubin, size, NULL);
    if (status == SACCADE_OK) sac_file_cache_write(dir, name, *cubin, *size);
    return status;
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

static XXH128_hash_t identify(const sac_kernel_spec *spec) {
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
    return spec->modifiers ? chain(id, spec->modifiers, strlen(spec->modifiers)) : id;
}

/* The loaded kernel of this spec, moved to the front of the list. */
static sac_kernel *find_loaded(sac_cuda *cuda, XXH128_hash_t id, int32_t device_id) {
    for (sac_kernel **link = &cuda->kernels; *link; link = &(*link)->next) {
        sac_kernel *kernel = *link;
        if (kernel->device_id != device_id || !XXH128_isEqual(kernel->id, id)) continue;
        *link = kernel->next;
        kernel->next = cuda->kernels;
        return cuda->kernels = kernel;
    }
    return NULL;
}

static saccade_status get_kernel(saccade_context *ctx, const sac_cuda_device *device,
                                 const sac_kernel_spec *spec, sac_kernel **result) {
    sac_cuda *cuda = sac_cuda_of(ctx);
    XXH128_hash_t id = identify(spec);
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
    kernel->next = cuda->kernels;
    *result = cuda->kernels = kernel;
    return SACCADE_OK;
}

void sac_kernels_unload(sac_cuda *cuda) {
    const sac_driver *driver = sac_driver_get(NULL);
    for (sac_kernel *kernel = cuda->kernels, *next; kernel; kernel = next) {
        CUcontext ours;
        next = kernel->next;
        driver->context_push(cuda->devices[kernel->device_id].context);
        driver->module_unload(kernel->module);
        driver->context_pop(&ours);
        free(kernel);
    }
    cuda->kernels = NULL;
}

saccade_status sac_kernel_launch(saccade_context *ctx, const sac_cuda_device *device,
                                 const sac_kernel_spec *spec, int64_t num_ctas, void **params) {
    if (num_ctas == 0) return SACCADE_OK;
    if (num_ctas > INT32_MAX)
        return sac_fail(SACCADE_UNSUPPORTED, "%s: %lld CTAs are above 2^31 - 1", spec->entry,
                        (long long)num_ctas);
    sac_kernel *kernel;
    saccade_status status = get_kernel(ctx, device, spec, &kernel);
    if (status != SACCADE_OK) return status;
    return sac_driver_check(
        sac_driver_get(NULL)->launch(kernel->function, (unsigned)num_ctas, 1, 1, (unsigned)spec->threads, 1,
                                     1, (unsigned)spec->smem_bytes, ctx->stream, params, NULL),
        spec->entry);
}
