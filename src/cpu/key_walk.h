/* key_walk.h - the key tiles that a query tile visits.
 *
 * Mostly sac_walk as it is. But where query blocks are a few rows (one, for a choice of blocks by each query), a query
 * tile holds the rows of several, since a vector has room for them anyway: their lists are then merged on the way, and
 * a tile's bits say for which of them it is. Such a tile is one listed block, never a run of them: a row's sums must
 * not depend on what its neighbours list.
 */
#ifndef SAC_CPU_KEY_WALK_H
#define SAC_CPU_KEY_WALK_H

#include "cpu/kernels.h"
#include "shared/tile_walk.h"

enum { SAC_CPU_MAX_LISTS = 16 };

typedef struct sac_cpu_key_walk {
    sac_walk walk; /* with several lists: of the block at hand */
    int32_t num_lists;
    const int32_t *entry[SAC_CPU_MAX_LISTS], *end[SAC_CPU_MAX_LISTS];
    int32_t block; /* the entry at hand */
    uint32_t bits; /* the lists that have it */
} sac_cpu_key_walk;

/* clip: the keys that may be visited; all of them: [0, SAC_FAR). */
sac_cpu_key_walk sac_cpu_walk_keys(const sac_attention_args *args, const sac_cpu_tile *tile, sac_range clip);
bool sac_cpu_next_keys(sac_cpu_key_walk *walk, sac_tile *tile);

/* The bit of a tile's bits that stands for query i of the query tile. */
uint32_t sac_cpu_list_bit(const sac_attention_args *args, const sac_cpu_tile *tile, int32_t i);

#endif
