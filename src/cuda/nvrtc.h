/* nvrtc.h - NVIDIA's run-time compiler, opened when first needed. It needs no GPU. */
#ifndef SAC_CUDA_NVRTC_H
#define SAC_CUDA_NVRTC_H

#include <stddef.h>

#include "base/error.h"

/* Looked for in this order: $SACCADE_NVRTC (a library, or a folder that holds it: that of PyPI's
 * nvidia-cuda-nvrtc, say), what the process has loaded or the loader finds, $CUDA_HOME, /usr/local/cuda. */
typedef struct sac_nvrtc sac_nvrtc;

/* The compiler of this process; NULL, and *reason (a constant text), where there is none. */
const sac_nvrtc *sac_nvrtc_get(const char **reason);

/* 1300 for 13.0. */
int sac_nvrtc_version(const sac_nvrtc *nvrtc);

/* One source text to a cubin. `headers` are found by #include under their names. */
typedef struct sac_nvrtc_source {
    const char *name, *text;
    int num_headers;
    const char *const *header_names, *const *header_texts;
    int num_options;
    const char *const *options;
} sac_nvrtc_source;

/* *cubin and, unless NULL, *log (registers and spills, when asked for by an option) are to be freed.
 * Errors: COMPILE_FAILED with the compiler's log. */
saccade_status sac_nvrtc_compile(const sac_nvrtc *nvrtc, const sac_nvrtc_source *source, void **cubin,
                                 size_t *cubin_size, char **log);

#endif
