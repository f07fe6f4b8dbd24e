/* nvrtc.c - finding libnvrtc, and one compilation. */
#include "cuda/nvrtc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct program *nvrtcProgram;

#define NVRTC_TABLE(ROW)                                                                                     \
    ROW(version, "nvrtcVersion", (int *, int *))                                                             \
    ROW(create, "nvrtcCreateProgram",                                                                        \
        (nvrtcProgram *, const char *, const char *, int, const char *const *, const char *const *))         \
    ROW(compile, "nvrtcCompileProgram", (nvrtcProgram, int, const char *const *))                            \
    ROW(log_size, "nvrtcGetProgramLogSize", (nvrtcProgram, size_t *))                                        \
    ROW(log, "nvrtcGetProgramLog", (nvrtcProgram, char *))                                                   \
    ROW(cubin_size, "nvrtcGetCUBINSize", (nvrtcProgram, size_t *))                                           \
    ROW(cubin, "nvrtcGetCUBIN", (nvrtcProgram, char *))                                                      \
    ROW(destroy, "nvrtcDestroyProgram", (nvrtcProgram *))

struct sac_nvrtc {
#define MEMBER(name, symbol, arguments) int(*name) arguments;
    NVRTC_TABLE(MEMBER)
#undef MEMBER
    int number;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static sac_nvrtc compiler;
static char missing[512]; /* why there is no compiler; empty: there is one */

static void *open_in_folder(const char *folder, const char *below) {
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    char path[4096];
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++) {
        snprintf(path, sizeof path, "%s%s%s%s", folder, below, *folder ? "/" : "", names[i]);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    return library;
}

static void *open_library(void) {
    const char *asked = getenv("SACCADE_NVRTC"), *home = getenv("CUDA_HOME");
    if (asked && *asked) { /* that one or none */
        void *library = open_in_folder(asked, "");
        return library ? library : dlopen(asked, RTLD_NOW | RTLD_LOCAL);
    }
    void *library = open_in_folder("", "");
    if (!library && home && *home) library = open_in_folder(home, "/lib64");
    return library ? library : open_in_folder("/usr/local/cuda", "/lib64");
}

static void open_compiler(void) {
    void *library = open_library();
    if (!library) {
        snprintf(missing, sizeof missing,
                 "no libnvrtc (CUDA 12 or 13) to compile kernels with; $SACCADE_NVRTC may name its folder");
        return;
    }
#define FIND(name, symbol, arguments)                                                                        \
    if (!(compiler.name = (int(*) arguments)dlsym(library, symbol))) {                                       \
        snprintf(missing, sizeof missing, "libnvrtc is too old: it lacks %s", symbol);                       \
        return;                                                                                              \
    }
    NVRTC_TABLE(FIND)
#undef FIND
    int major = 0, minor = 0;
    compiler.version(&major, &minor);
    compiler.number = major * 100 + minor;
    if (major < 12)
        snprintf(missing, sizeof missing, "libnvrtc is version %d.%d; needed: 12.0", major, minor);
}

const sac_nvrtc *sac_nvrtc_get(const char **reason) {
    pthread_once(&once, open_compiler);
    if (reason) *reason = missing;
    return *missing ? NULL : &compiler;
}

int sac_nvrtc_version(const sac_nvrtc *nvrtc) { return nvrtc->number; }

static char *program_log(const sac_nvrtc *nvrtc, nvrtcProgram program) {
    size_t size = 0;
    nvrtc->log_size(program, &size);
    char *log = calloc(size + 1, 1);
    if (log) nvrtc->log(program, log);
    return log;
}

saccade_status sac_nvrtc_compile(const sac_nvrtc *nvrtc, const sac_nvrtc_source *source, void **cubin,
                                 size_t *cubin_size, char **log) {
    nvrtcProgram program = NULL;
    if (nvrtc->create(&program, source->text, source->name, source->num_headers, source->header_texts,
                      source->header_names) != 0)
        return sac_fail(SACCADE_COMPILE_FAILED, "%s: libnvrtc makes no program of it", source->name);

    int failed = nvrtc->compile(program, source->num_options, source->options);
    char *text = program_log(nvrtc, program);
    saccade_status status = SACCADE_OK;
    *cubin = NULL;
    if (failed)
        status = sac_fail(SACCADE_COMPILE_FAILED, "%s, %s: %s", source->name, source->options[0],
                          text ? text : "");
    else if (nvrtc->cubin_size(program, cubin_size) != 0 || *cubin_size == 0)
        status = sac_fail(SACCADE_COMPILE_FAILED, "%s: libnvrtc gives no machine code for %s", source->name,
                          source->options[0]);
    else if (!(*cubin = malloc(*cubin_size)))
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "%s: %zu bytes of machine code", source->name, *cubin_size);
    else
        nvrtc->cubin(program, *cubin);
    nvrtc->destroy(&program);
    if (log && status == SACCADE_OK)
        *log = text;
    else
        free(text);
    return status;
}
