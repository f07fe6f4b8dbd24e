/* workspace.c - where a call's scratch memory comes from. */
#include "api/workspace.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/context.h"
#include "base/error.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 1 << 21 };

/* Host memory of an earlier call, for the next: the first touch of new pages would cost a short call on many threads
 * more than its work. */
typedef struct kept_memory {
    void *data;
    size_t bytes;
    bool lent;
} kept_memory;

static void free_kept(void *state) {
    kept_memory *kept = state;
    if (kept) free(kept->data);
    free(kept);
}

static kept_memory *kept_by(saccade_context *ctx) {
    sac_backend_state *state = &ctx->state[SAC_STATE_WORKSPACE];
    if (!state->data) *state = (sac_backend_state){calloc(1, sizeof(kept_memory)), free_kept};
    return state->data;
}

/* Great blocks lie in huge pages, where the system has them: small ones would cost a sparse call a tenth of its
 * time. */
static void *allocate_on_host(saccade_context *ctx, size_t bytes) {
    kept_memory *kept = kept_by(ctx);
    if (kept && kept->data && !kept->lent && kept->bytes >= bytes) {
        kept->lent = true;
        return kept->data;
    }
    const size_t alignment = bytes < 2 * HUGE_PAGE ? ALIGNMENT : HUGE_PAGE;
    const size_t size = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, size);
    if (memory && alignment == HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

static void free_on_host(saccade_context *ctx, void *memory, size_t bytes) {
    kept_memory *kept = kept_by(ctx);
    if (kept && memory == kept->data) {
        kept->lent = false;
    } else if (kept && !kept->lent && bytes <= SAC_MAX_KEPT_WORKSPACE && bytes > kept->bytes) {
        free(kept->data);
        *kept = (kept_memory){.data = memory, .bytes = bytes};
    } else {
        free(memory);
    }
}

static void *allocate(saccade_context *ctx, const sac_backend *backend, DLDevice device, size_t bytes) {
    const saccade_allocator *allocator = &ctx->allocator;
    if (allocator->alloc)
        return allocator->alloc(bytes, (int32_t)device.device_type, device.device_id, allocator->user);
    if (backend->alloc) return backend->alloc(ctx, device, bytes);
    return allocate_on_host(ctx, bytes);
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
    if ((uintptr_t)workspace->data % ALIGNMENT == 0) return SACCADE_OK;
    sac_workspace_release(ctx, backend, device, workspace);
    return sac_fail(SACCADE_INVALID_ARGUMENT, "allocator: its memory is not aligned to %d bytes",
                    (int)ALIGNMENT);
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
        free_on_host(ctx, workspace->data, workspace->bytes);
}
