/* context.c - making and ending a context. Backends attach their state when they first need it. */
#include "base/context.h"

#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/isa.h"

enum { MOST_THREADS = 4096 }; /* OpenMP ends the process where it cannot make as many as it is asked for */

/* "$XDG_CACHE_HOME/saccade", "$HOME/.cache/saccade", or NULL when neither is set: then nothing is kept on disk. */
static char *default_cache_dir(void) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char path[4096];
    if (xdg && *xdg)
        snprintf(path, sizeof path, "%s/saccade", xdg);
    else if (home && *home)
        snprintf(path, sizeof path, "%s/.cache/saccade", home);
    else
        return NULL;
    return strdup(path);
}

/* A forked child has none of its parent's threads, yet OpenMP would wait for them. So the thread that forks lets its
 * pool go first; the next parallel region, in either process, makes a new one. */
static void release_threads(void) { omp_pause_resource_all(omp_pause_soft); }
static void prepare_for_fork(void) { pthread_atfork(release_threads, NULL, NULL); }

saccade_status saccade_context_create(saccade_context **result, const saccade_context_params *params) {
    static const saccade_context_params defaults;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!result) return sac_fail(SACCADE_INVALID_ARGUMENT, "ctx: is NULL");
    if (!params) params = &defaults;
    if (params->num_threads < 0 || params->num_threads > MOST_THREADS)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "num_threads: %d, must lie in 0..%d", params->num_threads,
                        (int)MOST_THREADS);
    if (!params->allocator.alloc != !params->allocator.free)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "allocator: alloc and free must be given together");
    SAC_TRY(sac_isa_check(params->isa));

    pthread_once(&once, prepare_for_fork);
    saccade_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return sac_fail(SACCADE_OUT_OF_MEMORY, "context: %zu bytes", sizeof *ctx);
    ctx->num_threads = params->num_threads ? params->num_threads : omp_get_max_threads();
    snprintf(ctx->isa, sizeof ctx->isa, "%s", params->isa ? params->isa : "");
    ctx->stream = params->stream;
    ctx->allocator = params->allocator;
    if (!params->cache_dir)
        ctx->cache_dir = default_cache_dir();
    else if (*params->cache_dir)
        ctx->cache_dir = strdup(params->cache_dir);
    if (params->compiler && !(ctx->compiler = strdup(params->compiler))) {
        saccade_context_destroy(ctx);
        return sac_fail(SACCADE_OUT_OF_MEMORY, "context: no memory for the compiler's name");
    }
    *result = ctx;
    return SACCADE_OK;
}

void saccade_context_destroy(saccade_context *ctx) {
    if (!ctx) return;
    for (int i = 0; i < SAC_NUM_STATES; i++)
        if (ctx->state[i].destroy) ctx->state[i].destroy(ctx->state[i].data);
    free(ctx->cache_dir);
    free(ctx->compiler);
    free(ctx);
}

saccade_status saccade_context_set_stream(saccade_context *ctx, void *stream) {
    if (!ctx) return sac_fail(SACCADE_INVALID_ARGUMENT, "ctx: is NULL");
    ctx->stream = stream;
    return SACCADE_OK;
}
