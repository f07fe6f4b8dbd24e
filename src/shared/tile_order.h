/* tile_order.h - the order in which query tiles are handed out to the CTAs of a grid.
 *
 * Heads (those of all batches) come in sections, one section after the other; inside a section the last tile of every
 * head comes first, then the one before. Under a causal mask that is longest first, so that the CTAs end together;
 * sections keep the keys and values at work at a time few enough for the L2.
 */
#ifndef SAC_TILE_ORDER_H
#define SAC_TILE_ORDER_H

#include "shared/types.h"

typedef struct sac_tile_order {
    int32_t num_tiles;     /* query tiles of one head */
    int32_t num_heads;     /* batch * heads */
    int32_t section_heads; /* heads a section; the last section may have fewer */
    int32_t total;         /* num_tiles * num_heads */
} sac_tile_order;

typedef struct sac_tile_place {
    int32_t head, tile;
} sac_tile_place;

/* The tile that is handed out as the index-th. */
SAC_FN sac_tile_place sac_tile_place_of(const sac_tile_order *order, int32_t index) {
    int32_t first = index / (order->section_heads * order->num_tiles) * order->section_heads;
    int32_t heads = sac_min(order->section_heads, order->num_heads - first);
    int32_t rest = index - first * order->num_tiles;
    sac_tile_place place = {first + rest % heads, order->num_tiles - 1 - rest / heads};
    return place;
}

#endif
