/* tensor_map.c - calling cuTensorMapEncodeTiled. */
#include "cuda/tensor_map.h"

enum {                   /* values of the driver's interface */
       TYPE_16_BITS = 1, /* CU_TENSOR_MAP_DATA_TYPE_UINT16: the copy does not look inside */
       INTERLEAVE_NONE = 0,
       SWIZZLE_128_BYTES = 3,
       L2_PROMOTION_256_BYTES = 3,
       FILL_ZEROS = 0,
};
enum { ELEMENT_BYTES = 2, PANEL_COLUMNS = 64, STRIDE_UNIT = 16 };

/* A dimension of one element is never stepped along, and callers may leave any stride there. */
static uint64_t stride_bytes(int64_t stride, int64_t extent) {
    return extent > 1 ? (uint64_t)stride * ELEMENT_BYTES : STRIDE_UNIT;
}

saccade_status sac_tensor_map_make(sac_tensor_map *map, const sac_view *view,
                                   const sac_tensor_extent *extent) {
    const int rows = extent->box_heads ? 2 : 1, heads = 3 - rows; /* their places among the coordinates */
    uint64_t extents[4] = {(uint64_t)extent->columns, 0, 0, (uint64_t)extent->batch};
    uint64_t strides[3] = {0, 0, stride_bytes(view->batch_stride, extent->batch)};
    uint32_t box[4] = {PANEL_COLUMNS, 1, 1, 1};
    const uint32_t every[4] = {1, 1, 1, 1};
    extents[rows] = (uint64_t)extent->rows;
    extents[heads] = (uint64_t)extent->heads;
    strides[rows - 1] = stride_bytes(view->row_stride, extent->rows);
    strides[heads - 1] = stride_bytes(view->head_stride, extent->heads);
    box[rows] = (uint32_t)extent->box_rows;
    if (extent->box_heads) box[heads] = (uint32_t)extent->box_heads;
    if (extent->columns * extent->rows * extent->heads * extent->batch == 0) return SACCADE_OK;
    return sac_driver_check(sac_driver_get(NULL)->encode_tiled(
                                map, TYPE_16_BITS, 4, view->data, extents, strides, box, every,
                                INTERLEAVE_NONE, SWIZZLE_128_BYTES, L2_PROMOTION_256_BYTES, FILL_ZEROS),
                            "describing a tensor to the copy engine");
}
