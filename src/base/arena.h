/* arena.h - a block of memory handed out piece after piece; without a block it only counts. */
#ifndef SAC_BASE_ARENA_H
#define SAC_BASE_ARENA_H

#include <stddef.h>

enum { SAC_ARENA_ALIGNMENT = 64 };

typedef struct sac_arena {
    char *base; /* NULL: pieces are NULL as well */
    size_t used;
} sac_arena;

static inline void *sac_take(sac_arena *a, size_t count, size_t element_bytes) {
    void *piece = a->base ? a->base + a->used : NULL;
    a->used += (count * element_bytes + SAC_ARENA_ALIGNMENT - 1) / SAC_ARENA_ALIGNMENT * SAC_ARENA_ALIGNMENT;
    return piece;
}

#endif
