/* mask_tiles.h - the kinds of a mask_mod's tiles, as the forward kernel will walk them. */
#ifndef SAC_KERNELS_MASK_TILES_H
#define SAC_KERNELS_MASK_TILES_H

#include "shared/attention_args.h"

typedef struct sac_mask_tiles {
    /* (batch, q_tiles, kv_tiles): sac_tile_kind. A tile is FULL where no pair that the band lets through is hidden, and
     * the first of a row begins where the band does. */
    uint8_t *kinds;
    int32_t q_tile, kv_tile, q_tiles, kv_tiles;
} sac_mask_tiles;

#endif
