/* key_walk.h - the key tiles that a query tile visits.
 *
 * Mostly sac_walk as it is, but a row's sums must not depend on the rows that are worked on with it. So without lists
 * key tiles end at multiples of kv_tile, wherever the rows begin to see keys. And where query blocks are a few rows
 * (one, for a choice of blocks by each query), a query tile holds the rows of several, since a vector has room for them
 * anyway: their lists are then merged on the way, and a tile's bits say for which of them it is. Such a tile is one
 * listed block, never a run of them.
 */
#ifndef SAC_CPU_KEY_WALK_H
#define SAC_CPU_KEY_WALK_H

#include "cpu/kernels.h"
#include "shared/tile_walk.h"

enum { SAC_CPU_MAX_LISTS = 16, SAC_CPU_MAX_JOINED = 4 };

/* Key tiles that are worked on as one: mostly a single tile, or several that hide nothing from any row, so that it does
 * not matter that they lie apart. */
typedef struct sac_cpu_key_run {
    sac_tile tile[SAC_CPU_MAX_JOINED];
    int num_tiles;
    int32_t num_keys;
} sac_cpu_key_run;

typedef struct sac_cpu_key_walk {
    sac_walk walk; /* with several lists: of the block at hand */
    int32_t kv_tile;
    int32_t num_lists; /* 0: none, the band alone */
    const int32_t *entry[SAC_CPU_MAX_LISTS], *end[SAC_CPU_MAX_LISTS];
    int32_t block;     /* the entry at hand */
    uint32_t bits;     /* the lists that have it */
    sac_range for_all; /* keys that all rows of the row block see; empty where tiles are not joined */
    sac_tile ahead;    /* of runs: the tile that follows */
    bool has_ahead;
} sac_cpu_key_walk;

/* clip: the keys that may be visited; all of them: [0, SAC_FAR). */
sac_cpu_key_walk sac_cpu_walk_keys(const sac_attention_args *args, const sac_cpu_tile *tile, sac_range clip);
bool sac_cpu_next_keys(sac_cpu_key_walk *walk, sac_tile *tile);

/* The same tiles in runs of up to kv_tile keys. Only tiles of a list are joined, if `join`; whether they are depends on
 * the list alone. The first call begins the walk. */
void sac_cpu_begin_runs(sac_cpu_key_walk *walk, const sac_attention_args *args, const sac_cpu_tile *tile,
                        bool join);
bool sac_cpu_next_run(sac_cpu_key_walk *walk, sac_cpu_key_run *run);

/* The bit of a tile's bits that stands for query i of the query tile. */
uint32_t sac_cpu_list_bit(const sac_attention_args *args, const sac_cpu_tile *tile, int32_t i);

#endif
