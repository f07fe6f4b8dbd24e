/* mask_exchange.h - the tensors of PyTorch's BlockMask on a device. */
#ifndef SAC_CUDA_MASK_EXCHANGE_H
#define SAC_CUDA_MASK_EXCHANGE_H

#include "cuda/kernels/mask_exchange_args.h"
#include "cuda/mask_lists.h"
#include "mask/exchange.h"

/* Kernel arguments for the kv_ tensors, or for the q_ ones, without what reading or writing alone needs. */
sac_exchange_args sac_exchange_args_of(const saccade_block_mask *mask, const sac_exchange *x, bool by_key);

/* SAC_MASK_IMPORT or SAC_MASK_EXPORT, one warp a row. The device has been entered. */
saccade_status sac_exchange_launch(saccade_context *ctx, const sac_cuda_device *device,
                                   sac_mask_kernel kernel, sac_exchange_args *args);

#endif
