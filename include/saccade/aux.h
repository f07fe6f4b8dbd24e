/* saccade/aux.h - the extra inputs of a modifier, as its text reads them, on host and device.
 *
 * Inside a modifier's text:
 *   aux_f32(slot, i)   element i (flat, row-major) of auxiliary tensor `slot`; also aux_f16, aux_bf16 (read as
 *                      float), aux_i32, aux_i64, aux_u8. slot is a number, or in text the tensor's name.
 *   aux_size(slot, d)  its extent along dimension d (0 beyond its rank)
 *   scalar(slot)       a float that may change from call to call
 *   aux_grad(slot, i, x)  in a score_mod's backward text: adds x to the gradient of element i
 * Contents, extents and scalars are data: changing them never recompiles anything.
 * This file is compiled by the C compiler, by libtcc and by NVRTC, and includes nothing there.
 */
#ifndef SACCADE_AUX_H
#define SACCADE_AUX_H

#if !defined(__CUDACC_RTC__) && !defined(__TINYC__)
#include <stdint.h>
#endif

#define SACCADE_MAX_AUX 16
#define SACCADE_MAX_AUX_DIMS 4

typedef struct saccade_aux_slot {
    const void *data; /* contiguous */
    float *grad;      /* fp32, same shape; NULL: not asked for */
    int64_t extent[SACCADE_MAX_AUX_DIMS];
} saccade_aux_slot;

typedef struct saccade_aux {
    saccade_aux_slot tensor[SACCADE_MAX_AUX];
    float scalar[SACCADE_MAX_AUX];
} saccade_aux;

#endif
