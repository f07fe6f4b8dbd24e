/* tensor_map.h - the copy engine's description of a tensor, made by the driver. */
#ifndef SAC_CUDA_TENSOR_MAP_H
#define SAC_CUDA_TENSOR_MAP_H

#include "cuda/driver.h"
#include "cuda/kernels/tensor_map.h"
#include "shared/attention_args.h"

/* What a map needs to know beside the view: extents, and the rows of one box (64 columns wide). */
typedef struct sac_tensor_extent {
    int64_t columns, rows, heads, batch;
    int32_t box_rows;  /* at most 256 */
    int32_t box_heads; /* 0: one. Else so many neighbours lie beside each other in the box, of each row */
} sac_tensor_extent;

/* (column, row, head, batch) coordinates, or with box_heads (column, head, row, batch), over 16-bit elements, 128-byte
 * swizzle, zeros outside. A tensor without elements gets no map: nothing may be loaded from it. */
saccade_status sac_tensor_map_make(sac_tensor_map *map, const sac_view *view,
                                   const sac_tensor_extent *extent);

#endif
