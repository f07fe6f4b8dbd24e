/* saccade/context.h - the context owns whatever outlives one call: threads, device handles, compiled code, and, of the
 * workspaces that it allocated on the host by itself, one of up to 256 MiB for the next call.
 *
 * A context is used by one thread at a time; different contexts are independent, nothing is global. Objects
 * made with a context (modifiers, block masks) may be used with any context and outlive it, unless their
 * header says otherwise.
 */
#ifndef SACCADE_CONTEXT_H
#define SACCADE_CONTEXT_H

#include <saccade/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct saccade_context saccade_context;

/* Memory for workspaces. free receives the size it was asked for. Alignment: at least 64 bytes. For device
 * memory (device_type kDLCUDA) both calls must be ordered with the stream, as caching allocators are. */
typedef struct saccade_allocator {
    void *(*alloc)(size_t bytes, int32_t device_type, int32_t device_id, void *user);
    void (*free)(void *pointer, size_t bytes, int32_t device_type, int32_t device_id, void *user);
    void *user;
} saccade_allocator;

typedef struct saccade_context_params {
    int32_t num_threads;         /* CPU threads, at most 4096; 0: OpenMP's default */
    const char *isa;             /* "generic", "avx2", "avx512" or "amx"; NULL: the best here */
    const char *cache_dir;       /* of compiled code; NULL: $XDG_CACHE_HOME/saccade; "": no disk cache */
    const char *compiler;        /* of modifier texts: a C compiler, "libtcc"; NULL: see modifier.h */
    void *stream;                /* CUstream of device calls; NULL: the legacy default stream */
    saccade_allocator allocator; /* all zero: malloc, and the driver's allocator on devices */
} saccade_context_params;

/* params may be NULL: every default. Errors: INVALID_ARGUMENT (num_threads; isa unknown or not on this
 * machine; half an allocator), OUT_OF_MEMORY. */
SACCADE_API saccade_status saccade_context_create(saccade_context **ctx,
                                                  const saccade_context_params *params);

/* NULL is fine. */
SACCADE_API void saccade_context_destroy(saccade_context *ctx);

/* The stream (CUstream) that later device calls run on. Errors: INVALID_ARGUMENT (ctx NULL). */
SACCADE_API saccade_status saccade_context_set_stream(saccade_context *ctx, void *stream);

#ifdef __cplusplus
}
#endif
#endif
