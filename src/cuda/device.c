/* device.c - devices of a context, and the hygiene of the thread's current context. */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/device_mask.h"
#include "cuda/nvrtc.h"

static void destroy(void *data) {
    sac_cuda *cuda = data;
    const sac_driver *driver = sac_driver_get(NULL);
    sac_prefetches_free(cuda->prefetches);
    sac_kernels_unload(cuda);
    sac_mask_copies_free(cuda->masks, cuda->devices);
    for (int i = 0; i < SAC_MAX_DEVICES; i++)
        if (cuda->known[i]) driver->primary_release(i);
    free(cuda);
}

sac_cuda *sac_cuda_of(saccade_context *ctx) {
    sac_backend_state *state = &ctx->state[SAC_STATE_CUDA];
    if (!state->data) {
        sac_cuda *cuda = calloc(1, sizeof *cuda);
        if (cuda) cuda->pack = sac_cubin_pack_of_library(), cuda->most_loaded_bytes = SAC_LOADED_BYTES;
        state->data = cuda;
        state->destroy = destroy;
    }
    return state->data;
}

static int attribute(const sac_driver *driver, int which, int device) {
    int value = 0;
    driver->device_attribute(&value, which, device);
    return value;
}

int32_t sac_cuda_smem_of(int32_t compute_capability) {
    switch (compute_capability) {
    case 80:
    case 87:
        return 163 << 10;
    case 90:
    case 100:
    case 103:
        return 227 << 10;
    default:
        return 99 << 10;
    }
}

/* Reads the device's properties the first time. NULL and *reason: it cannot be used. */
static const sac_cuda_device *device_of(saccade_context *ctx, int32_t id, const char **reason) {
    const sac_driver *driver = sac_driver_get(reason);
    sac_cuda *cuda = sac_cuda_of(ctx);
    if (!driver) return NULL;
    *reason = !cuda ? "out of memory" : "the NVIDIA driver sees no GPU of this number";
    if (!cuda || id < 0 || id >= driver->num_devices || id >= SAC_MAX_DEVICES) return NULL;

    sac_cuda_device *device = &cuda->devices[id];
    if (cuda->known[id]) return device;
    *reason = "the GPU's primary context cannot be made";
    if (driver->primary_retain(&device->context, id) != 0) return NULL;
    device->id = id;
    device->compute_capability = 10 * attribute(driver, SAC_CU_ATTRIBUTE_CAPABILITY_MAJOR, id) +
                                 attribute(driver, SAC_CU_ATTRIBUTE_CAPABILITY_MINOR, id);
    device->num_sms = attribute(driver, SAC_CU_ATTRIBUTE_NUM_SMS, id);
    device->smem_bytes = attribute(driver, SAC_CU_ATTRIBUTE_SMEM_PER_CTA, id);
    device->l2_bytes = attribute(driver, SAC_CU_ATTRIBUTE_L2_BYTES, id);
    driver->device_name(device->name, sizeof device->name, id);
    cuda->known[id] = true;
    return device;
}

const sac_cuda_facts *sac_cuda_facts_of(saccade_context *ctx, DLDevice device) {
    static const sac_cuda_facts no_memory = {.no_device = "out of memory", .pack = "out of memory"};
    sac_cuda *cuda = sac_cuda_of(ctx);
    if (!cuda) return &no_memory;
    const char *reason = NULL;
    cuda->facts.device = device_of(ctx, device.device_id, &reason);
    cuda->facts.no_device = cuda->facts.device ? NULL : reason;
    cuda->facts.no_compiler = sac_nvrtc_get(&reason) ? NULL : reason;
    cuda->facts.pack = sac_cubin_pack_words();
    return &cuda->facts;
}

saccade_status sac_cuda_enter(saccade_context *ctx, int32_t device_id, const sac_cuda_device **device) {
    const char *reason;
    *device = device_of(ctx, device_id, &reason);
    if (!*device) return sac_fail(SACCADE_DEVICE_ERROR, "device cuda:%d: %s", device_id, reason);
    return sac_driver_check(sac_driver_get(NULL)->context_push((*device)->context), "entering the GPU");
}

void sac_cuda_leave(void) {
    CUcontext ours;
    sac_driver_get(NULL)->context_pop(&ours);
}

void *sac_cuda_alloc(saccade_context *ctx, DLDevice device, size_t bytes) {
    const sac_cuda_device *entered;
    CUdeviceptr pointer = 0;
    if (sac_cuda_enter(ctx, device.device_id, &entered) != SACCADE_OK) return NULL;
    if (sac_driver_get(NULL)->alloc_async(&pointer, bytes, ctx->stream) != 0) pointer = 0;
    sac_cuda_leave();
    return (void *)(uintptr_t)pointer;
}

void sac_cuda_free(saccade_context *ctx, DLDevice device, void *pointer) {
    const sac_cuda_device *entered;
    if (sac_cuda_enter(ctx, device.device_id, &entered) != SACCADE_OK) return;
    sac_driver_get(NULL)->free_async((CUdeviceptr)(uintptr_t)pointer, ctx->stream);
    sac_cuda_leave();
}

saccade_status sac_cuda_clear(saccade_context *ctx, void *pointer, size_t bytes) {
    return sac_driver_check(
        sac_driver_get(NULL)->set8_async((CUdeviceptr)(uintptr_t)pointer, 0, bytes, ctx->stream),
        "clearing device memory");
}
