/* device_mask.h - block masks on a GPU: their lists, and what the mask_mod they carry reads, copied once. */
#ifndef SAC_CUDA_DEVICE_MASK_H
#define SAC_CUDA_DEVICE_MASK_H

#include "base/attention_call.h"
#include "cuda/runtime.h"

/* Points args->blocks, and args->mask_aux where the mask carries its mask_mod, to copies on the device, which must
 * have been entered; those of a mask that was built there stay where they are. The first call with another on a device
 * allocates and copies (so it cannot be captured in a graph); the context keeps the copies of the last masks used. */
saccade_status sac_device_mask(saccade_context *ctx, const sac_cuda_device *device,
                               const sac_attention_call *call, sac_attention_args *args);

/* Frees every copy of the context. */
void sac_mask_copies_free(sac_mask_copy *copies, const sac_cuda_device *devices);

#endif
