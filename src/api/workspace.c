/* workspace.c - where a call's scratch memory comes from. */
#include "api/workspace.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/context.h"
#include "base/error.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 1 << 21 };

/* Great blocks in huge pages, where the system has them: they are new memory in every call, and the first touch of each
 * small page would cost a sparse call a tenth of its time. */
static void *allocate_on_host(size_t bytes) {
    const size_t alignment = bytes < 2 * HUGE_PAGE ? ALIGNMENT : HUGE_PAGE;
    const size_t size = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, size);
    if (memory && alignment == HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

static void *allocate(saccade_context *ctx, const sac_backend *backend, DLDevice device, size_t bytes) {
    const saccade_allocator *allocator = &ctx->allocator;
    if (allocator->alloc)
        return allocator->alloc(bytes, (int32_t)device.device_type, device.device_id, allocator->user);
    if (backend->alloc) return backend->alloc(ctx, device, bytes);
    return allocate_on_host(bytes);
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
