/* tail_split.h - tiles that are cut into parts, where there are too few of them for all CTAs. Each part leaves what
 * it has summed in memory, and who finishes a tile's last part merges them, in their order, so that no bit depends on
 * who it was. */
#ifndef SAC_TAIL_SPLIT_H
#define SAC_TAIL_SPLIT_H

#include "shared/types.h"

typedef struct sac_tail_split {
    int32_t tiles, parts; /* the last so many, each in so many of about equal length; tiles 0: none is cut */
    uint32_t *arrived;    /* (tiles, consumers): parts that are done; 0 at first */
    float *partial;       /* (tiles, consumers, parts, values of a thread, 128) */
} sac_tail_split;

#endif
