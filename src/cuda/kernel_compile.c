/* kernel_compile.c - a spec by itself: its identity, its keys, its machine code. Nothing is kept.
 *
 * A key covers all that the machine code depends on: the source and the headers it reaches, the defines by name, the
 * architecture, and on the disk also the compiler.
 */
#include "cuda/kernel_compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cuda/nvrtc.h"
#include "shared/embedded.h"

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

bool sac_kernel_file_name(char name[SAC_KERNEL_FILE_SIZE], const sac_cuda_device *device,
                          const sac_kernel_spec *spec) {
    char architecture[SAC_ARCHITECTURE_SIZE], compiler[16], key[SAC_FILE_KEY_SIZE];
    const sac_nvrtc *nvrtc = sac_nvrtc_get(NULL);
    if (!nvrtc) return false;
    sac_kernel_architecture(architecture, device, spec);
    snprintf(compiler, sizeof compiler, "%d", sac_nvrtc_version(nvrtc));
    if (!make_key(key, spec, architecture, compiler)) return false;
    snprintf(name, SAC_KERNEL_FILE_SIZE, "%s.cubin", key);
    return true;
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
