/* context.h - what a context owns. Backends keep their own state behind their own pointer. */
#ifndef SAC_BASE_CONTEXT_H
#define SAC_BASE_CONTEXT_H

#include <saccade/context.h>

/* State that a backend made for this context; freed with it, by destroy. */
typedef struct sac_backend_state {
    void *data;
    void (*destroy)(void *data);
} sac_backend_state;

enum { SAC_STATE_WORKSPACE, SAC_STATE_CUDA, SAC_STATE_MOD, SAC_NUM_STATES };

struct saccade_context {
    int32_t num_threads; /* never 0 here */
    char isa[16];        /* "" : the best */
    char *cache_dir;     /* NULL: no disk cache */
    char *compiler;      /* as the caller named it; NULL: whichever there is */
    void *stream;
    saccade_allocator allocator; /* alloc NULL: the defaults */
    sac_backend_state state[SAC_NUM_STATES];
};

#endif
