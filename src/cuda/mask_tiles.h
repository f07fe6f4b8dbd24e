/* mask_tiles.h - what a call's mask_mod hides and leaves whole, found once for all heads before they are computed. */
#ifndef SAC_CUDA_MASK_TILES_H
#define SAC_CUDA_MASK_TILES_H

#include "base/attention_call.h"
#include "cuda/cuda.h"
#include "cuda/kernels/mask_tiles.h"

/* Is it worth it, and right: is the mask_mod the same for every head? */
bool sac_mask_tiles_serve(const sac_attention_call *call);

/* The tiles of a call; kinds is the caller's to point to sac_mask_tiles_bytes of memory on the device. */
sac_mask_tiles sac_mask_tiles_of(const sac_attention_args *args, int32_t q_tile, int32_t kv_tile);
size_t sac_mask_tiles_bytes(const sac_attention_args *args, const sac_mask_tiles *tiles);

/* Fills tiles->kinds, on the context's stream; the device must have been entered. */
saccade_status sac_mask_tiles_find(saccade_context *ctx, const sac_cuda_device *device,
                                   const sac_attention_call *call, const sac_mask_tiles *tiles);

#endif
