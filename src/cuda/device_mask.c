/* device_mask.c - copies of block masks, kept by the context.
 *
 * A copy is known by the mask's list of offsets, a buffer that never changes. The copy holds a reference to it, so
 * the address cannot come to mean another mask while the copy lives.
 */
#include "cuda/device_mask.h"

#include <stdlib.h>

#include "mask/block_mask.h"
#include "mask/buffer.h"
#include "mod/modifier.h"

enum { MOST_COPIES = 16, NUM_LISTS = 4 };

struct sac_mask_copy {
    int32_t device_id;
    void *source;                     /* the mask's row_offsets */
    void *owner_aux[SACCADE_MAX_AUX]; /* its values, likewise held; NULL: none */
    CUdeviceptr list[NUM_LISTS];      /* row_offsets, row_entries, col_offsets, col_entries */
    CUdeviceptr aux[SACCADE_MAX_AUX];
    sac_mask_copy *next;
};

static void free_copy(sac_mask_copy *copy, const sac_cuda_device *devices) {
    const sac_driver *driver = sac_driver_get(NULL);
    CUcontext ours;
    driver->context_push(devices[copy->device_id].context);
    for (int i = 0; i < NUM_LISTS; i++)
        if (copy->list[i]) driver->free(copy->list[i]);
    for (int i = 0; i < SACCADE_MAX_AUX; i++) {
        if (copy->aux[i]) driver->free(copy->aux[i]);
        sac_buffer_release(copy->owner_aux[i]);
    }
    driver->context_pop(&ours);
    sac_buffer_release(copy->source);
    free(copy);
}

void sac_mask_copies_free(sac_mask_copy *copies, const sac_cuda_device *devices) {
    while (copies) {
        sac_mask_copy *next = copies->next;
        free_copy(copies, devices);
        copies = next;
    }
}

static saccade_status upload(CUdeviceptr *to, const void *buffer) {
    const sac_driver *driver = sac_driver_get(NULL);
    size_t bytes = sac_buffer_bytes(buffer);
    saccade_status status =
        sac_driver_check(driver->alloc(to, bytes ? bytes : 1), "allocating for a block mask");
    if (status == SACCADE_OK && bytes)
        status = sac_driver_check(driver->copy(*to, (CUdeviceptr)(uintptr_t)buffer, bytes),
                                  "copying a block mask");
    return status;
}

static saccade_status make_copy(const saccade_block_mask *mask, int32_t device_id, sac_mask_copy *copy) {
    const void *lists[NUM_LISTS] = {mask->row_offsets, mask->row_entries, mask->col_offsets,
                                    mask->col_entries};
    saccade_status status = SACCADE_OK;
    copy->device_id = device_id;
    copy->source = sac_buffer_retain(mask->row_offsets);
    for (int i = 0; i < NUM_LISTS && status == SACCADE_OK; i++) status = upload(&copy->list[i], lists[i]);
    for (int i = 0; mask->mask_mod && i < mask->mask_mod->num_aux && status == SACCADE_OK; i++) {
        copy->owner_aux[i] = sac_buffer_retain(mask->owned[i]);
        status = upload(&copy->aux[i], mask->owned[i]);
    }
    return status;
}

static bool is_copy_of(const sac_mask_copy *copy, const saccade_block_mask *mask, int32_t device_id) {
    if (copy->device_id != device_id || copy->source != mask->row_offsets) return false;
    for (int i = 0; mask->mask_mod && i < mask->mask_mod->num_aux; i++)
        if (copy->owner_aux[i] != mask->owned[i]) return false;
    return true;
}

/* The copy, moved to the front of the context's list; what falls off the end is freed. */
static saccade_status find_copy(saccade_context *ctx, const sac_cuda_device *device,
                                const saccade_block_mask *mask, sac_mask_copy **result) {
    sac_cuda *cuda = sac_cuda_made(ctx);
    sac_mask_copy **link = &cuda->masks;
    int count = 0;
    for (; *link && !is_copy_of(*link, mask, device->id); link = &(*link)->next)
        if (++count >= MOST_COPIES) {
            sac_mask_copies_free((*link)->next, cuda->devices);
            (*link)->next = NULL;
        }
    sac_mask_copy *copy = *link;
    if (copy) {
        *link = copy->next;
    } else {
        copy = calloc(1, sizeof *copy);
        if (!copy) return sac_fail(SACCADE_OUT_OF_MEMORY, "block_mask: its copy on the device");
        saccade_status status = make_copy(mask, device->id, copy);
        if (status != SACCADE_OK) {
            free_copy(copy, cuda->devices);
            return status;
        }
    }
    copy->next = cuda->masks;
    *result = cuda->masks = copy;
    return SACCADE_OK;
}

saccade_status sac_device_mask(saccade_context *ctx, const sac_cuda_device *device,
                               const sac_attention_call *call, sac_attention_args *args) {
    const saccade_block_mask *mask = call->block_mask;
    if (!mask || mask->device.device_type == kDLCUDA) return SACCADE_OK;
    sac_mask_copy *copy = NULL;
    SAC_TRY(find_copy(ctx, device, mask, &copy));
    args->blocks.by_query.offsets = (const int64_t *)(uintptr_t)copy->list[0];
    args->blocks.by_query.entries = (const int32_t *)(uintptr_t)copy->list[1];
    args->blocks.by_key.offsets = (const int64_t *)(uintptr_t)copy->list[2];
    args->blocks.by_key.entries = (const int32_t *)(uintptr_t)copy->list[3];
    for (int i = 0; mask->mask_mod && i < mask->mask_mod->num_aux; i++)
        args->mask_aux.tensor[i].data = (const void *)(uintptr_t)copy->aux[i];
    return SACCADE_OK;
}
