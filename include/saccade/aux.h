/* saccade/aux.h - the extra inputs of a modifier, as its text reads them, on host and device.
 *
 * Contents, extents and scalars are data: changing them never recompiles anything.
 * This file is compiled by the C compiler, and at run time by the C compiler, libtcc and NVRTC, to which the
 * fixed-width types are known already.
 */
#ifndef SACCADE_AUX_H
#define SACCADE_AUX_H

#if !defined(__CUDACC_RTC__)
#include <stdint.h>
#endif

#define SACCADE_MAX_AUX 16
#define SACCADE_MAX_AUX_DIMS 4

typedef struct saccade_aux_slot {
    const void *data;                     /* contiguous, row-major */
    float *grad;                          /* fp32, same shape; NULL: not asked for */
    int64_t count;                        /* elements: 1 for a tensor without dimensions */
    int64_t extent[SACCADE_MAX_AUX_DIMS]; /* 0 beyond the rank */
} saccade_aux_slot;

typedef struct saccade_aux {
    saccade_aux_slot tensor[SACCADE_MAX_AUX];
    float scalar[SACCADE_MAX_AUX];
} saccade_aux;

#endif
