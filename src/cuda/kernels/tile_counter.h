/* tile_counter.h - hands out the tiles of a launch. It lies in the workspace, which may hold anything at launch. */
#ifndef SAC_TILE_COUNTER_H
#define SAC_TILE_COUNTER_H

#include "shared/types.h"

typedef struct sac_tile_counter {
    uint64_t open;      /* SAC_COUNTER_OPEN: next counts. Written and taken back by the kernel itself */
    uint32_t next, pad; /* how many tiles were handed out beyond each CTA's first */
} sac_tile_counter;

#define SAC_COUNTER_OPEN 0x5accade0c0047e25ull

#endif
