/* workspace.h - scratch memory of one call: the caller's, or the context's allocator's, or the backend's. */
#ifndef SAC_API_WORKSPACE_H
#define SAC_API_WORKSPACE_H

#include "base/backend.h"

/* Bytes of host memory that a context keeps from one call to the next, at most. */
enum { SAC_MAX_KEPT_WORKSPACE = 1 << 28 };

typedef struct sac_workspace {
    void *data; /* 64-byte aligned; NULL when no bytes are needed */
    size_t bytes;
    bool owned; /* to be given back */
} sac_workspace;

/* given may be NULL; given_bytes smaller than bytes is an error that says how many are needed. */
saccade_status sac_workspace_get(saccade_context *ctx, const sac_backend *backend, DLDevice device,
                                 size_t bytes, void *given, size_t given_bytes, sac_workspace *workspace);
void sac_workspace_release(saccade_context *ctx, const sac_backend *backend, DLDevice device,
                           const sac_workspace *workspace);

#endif
