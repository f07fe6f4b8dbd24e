/* fill_args.h - what attn_fill.cu is told: rows of one tensor that belong to no sequence become zero. */
#ifndef SAC_KERNELS_FILL_ARGS_H
#define SAC_KERNELS_FILL_ARGS_H

#include "shared/types.h" /* first: NVRTC has no stdint.h */
#include "shared/attention_args.h"

enum { SAC_FILL_ROWS = 4 }; /* a warp */

typedef struct sac_fill_args {
    sac_view view;
    sac_row_view lse; /* these rows' -inf; data NULL: none */
    sac_lengths len;
    int64_t total; /* rows */
    int32_t batch, num_heads, row_bytes, element_bytes;
} sac_fill_args;

#endif
