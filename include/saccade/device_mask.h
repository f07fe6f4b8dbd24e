/* saccade/device_mask.h - block masks that are built on a GPU, from tensors on the GPU, without the host seeing them.
 *
 * What comes out is a saccade_block_mask whose lists lie in device memory, for calls on that device:
 *
 *     size_t bytes;
 *     saccade_device_mask_params params = {.shape = {.q_len = 32768, .kv_len = 32768}, .device = {kDLCUDA, 0}};
 *     saccade_device_mask_bytes(ctx, &params, &bytes);
 *     params.memory = device_memory;                                      (bytes, aligned to 256)
 *     params.memory_bytes = bytes;
 *     saccade_device_mask_documents(ctx, &mask, &params, cu_seqlens);
 *     saccade_attention_forward(ctx, q, k, v, out, NULL, &(saccade_attention_params){.block_mask = mask});
 *
 * A builder queues kernels on the context's stream and returns: it allocates no device memory, waits for nothing and
 * copies nothing from or to the host. So it may be captured in a CUDA graph (once its kernels are compiled, the first
 * time, they stay with the context), and a replay lists the blocks anew, from what its tensors then hold.
 *
 * The lists are those of the builder of the same name in saccade/block_mask.h, bit for bit, and those of the transpose;
 * time is linear in the listed blocks, and one bit each of the others. The memory, and tensors where a builder says
 * so, must live as long as the mask is used. The host knows the shape of such a mask, but not its blocks:
 * saccade_block_mask_get_info says -1 for their numbers, saccade_block_mask_kind says -1, and what reads lists on the
 * host (and / or / not, visible, saccade_block_mask_export) is refused with INVALID_ARGUMENT.
 *
 * A tensor that holds what is not allowed, and more blocks than the capacity, are found on the device, where no
 * status can be returned: such a mask lists no block at all, and saccade_device_mask_check says why.
 *
 * Errors of every builder: INVALID_ARGUMENT, OUT_OF_MEMORY (of the host), DEVICE_ERROR (no GPU, no driver),
 * COMPILE_FAILED. The mask is to be destroyed by the caller.
 */
#ifndef SACCADE_DEVICE_MASK_H
#define SACCADE_DEVICE_MASK_H

#include <saccade/block_mask.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct saccade_device_mask_params {
    saccade_mask_shape shape;
    DLDevice device;     /* kDLCUDA */
    int64_t capacity;    /* the most blocks that are listed, over all batches and heads; 0: all there are */
    void *memory;        /* on the device, aligned to 256 bytes */
    size_t memory_bytes; /* at least what saccade_device_mask_bytes says */
} saccade_device_mask_params;

/* Memory for any builder with this shape and capacity. Builders whose rule does not look at batch and heads serve any
 * number of them with a shape of one, and need less. */
SACCADE_API saccade_status saccade_device_mask_bytes(saccade_context *ctx,
                                                     const saccade_device_mask_params *params, size_t *bytes);

SACCADE_API saccade_status saccade_device_mask_causal(saccade_context *ctx, saccade_block_mask **mask,
                                                      const saccade_device_mask_params *params,
                                                      bool bottom_right);
SACCADE_API saccade_status saccade_device_mask_window(saccade_context *ctx, saccade_block_mask **mask,
                                                      const saccade_device_mask_params *params, int32_t left,
                                                      int32_t right, bool bottom_right);
/* cu_seqlens (num_documents + 1) int32 on the device: where each document starts, from 0, and at last q_len ==
 * kv_len. It may change once the lists are built. */
SACCADE_API saccade_status saccade_device_mask_documents(saccade_context *ctx, saccade_block_mask **mask,
                                                         const saccade_device_mask_params *params,
                                                         const DLTensor *cu_seqlens);
/* lengths (shape.batch) int32 on the device, or NULL. It may change once the lists are built. */
SACCADE_API saccade_status saccade_device_mask_eagle3(saccade_context *ctx, saccade_block_mask **mask,
                                                      const saccade_device_mask_params *params,
                                                      const DLTensor *lengths);
/* indices (B or 1, H or 1, query blocks, top_k) int32 on the device, last dimension contiguous, ascending, -1 in any
 * place is none. It may change once the lists are built. */
SACCADE_API saccade_status saccade_device_mask_from_indices(saccade_context *ctx, saccade_block_mask **mask,
                                                            const saccade_device_mask_params *params,
                                                            const DLTensor *indices, saccade_block_kind kind);
/* Asks the mask_mod, on the device, about pairs of every block until it is known to be PARTIAL. Its aux tensors are on
 * the device and read where they lie: they must live, unchanged, as long as the mask is used. */
SACCADE_API saccade_status saccade_device_mask_from_mod(saccade_context *ctx, saccade_block_mask **mask,
                                                        const saccade_device_mask_params *params,
                                                        const saccade_bound_modifier *mask_mod);

/* PyTorch's BlockMask: the kv_ four of saccade/block_mask.h on the device, the full pair or NULL, the q_ four NULL.
 * Order within a row does not matter. They may change once the lists are built. The mask carries no mask_mod. */
SACCADE_API saccade_status saccade_device_mask_import(saccade_context *ctx, saccade_block_mask **mask,
                                                      const saccade_device_mask_params *params,
                                                      const saccade_block_mask_tensors *tensors);
/* Queues the writing of those tensors, on the mask's device, that are not NULL: what saccade_block_mask_export writes
 * of a mask on the host. Errors: INVALID_ARGUMENT (a mask on the host too), DEVICE_ERROR, COMPILE_FAILED. */
SACCADE_API saccade_status saccade_device_mask_export(saccade_context *ctx, const saccade_block_mask *mask,
                                                      const saccade_block_mask_tensors *tensors);

/* Waits for the context's stream and says what was listed (info may be NULL). Errors: INVALID_ARGUMENT (what the
 * device found wrong, or a mask on the host), DEVICE_ERROR. */
SACCADE_API saccade_status saccade_device_mask_check(saccade_context *ctx, const saccade_block_mask *mask,
                                                     saccade_block_mask_info *info);

#ifdef __cplusplus
}
#endif
#endif
