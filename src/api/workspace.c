/* workspace.c - where a call's scratch memory comes from. */
#include "api/workspace.h"

#include <stdlib.h>

#include "base/context.h"
#include "base/error.h"

enum { ALIGNMENT = 64 };

static void *allocate(saccade_context *ctx, const sac_backend *backend, DLDevice device, size_t bytes) {
    const saccade_allocator *allocator = &ctx->allocator;
    if (allocator->alloc)
        return allocator->alloc(bytes, (int32_t)device.device_type, device.device_id, allocator->user);
    if (backend->alloc) return backend->alloc(ctx, device, bytes);
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

saccade_status sac_workspace_get(saccade_context *ctx, const sac_backend *backend, DLDevice device,
                                 size_t bytes, void *given, size_t given_bytes, sac_workspace *workspace) {
    *workspace = (sac_workspace){.bytes = bytes};
    if (given) {
        if (given_bytes < bytes)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "workspace_bytes: %zu, but backend %s needs %zu",
                            given_bytes, backend->name, bytes);
        if ((uintptr_t)given % ALIGNMENT)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "workspace: is not aligned to %d bytes",
                            (int)ALIGNMENT);
        workspace->data = given;
        return SACCADE_OK;
    }
    if (bytes == 0) return SACCADE_OK;
    workspace->data = allocate(ctx, backend, device, bytes);
    workspace->owned = true;
    if (!workspace->data)
        return sac_fail(SACCADE_OUT_OF_MEMORY, "workspace: backend %s needs %zu bytes", backend->name, bytes);
    return SACCADE_OK;
}

void sac_workspace_release(saccade_context *ctx, const sac_backend *backend, DLDevice device,
                           const sac_workspace *workspace) {
    const saccade_allocator *allocator = &ctx->allocator;
    if (!workspace->owned || !workspace->data) return;
    if (allocator->free)
        allocator->free(workspace->data, workspace->bytes, (int32_t)device.device_type, device.device_id,
                        allocator->user);
    else if (backend->free)
        backend->free(ctx, device, workspace->data);
    else
        free(workspace->data);
}
