/* mask_exchange.c - masks whose lists lie on a device, written as PyTorch's BlockMask. */
#include "cuda/mask_exchange.h"

#include <saccade/device_mask.h>

#include "base/error.h"

static sac_exchange_list list_of(const sac_block_tensors *t) {
    return (sac_exchange_list){
        .counts = t->has_counts ? t->counts.data : NULL,
        .indices = t->has_indices ? t->indices.data : NULL,
        .counts_stride = {t->counts.stride[0], t->counts.stride[1]},
        .indices_stride = {t->indices.stride[0], t->indices.stride[1], t->indices.stride[2]}};
}

sac_exchange_args sac_exchange_args_of(const saccade_block_mask *mask, const sac_exchange *x, bool by_key) {
    const saccade_mask_shape *shape = &mask->shape;
    return (sac_exchange_args){.partial = list_of(&x->partial[by_key]),
                               .full = list_of(&x->full[by_key]),
                               .batch = shape->batch,
                               .num_heads = shape->num_heads,
                               .rows = by_key ? mask->num_kv_blocks : mask->num_q_blocks,
                               .columns = by_key ? mask->num_q_blocks : mask->num_kv_blocks,
                               .row_len = by_key ? shape->kv_len : shape->q_len,
                               .column_len = by_key ? shape->q_len : shape->kv_len,
                               .row_block = by_key ? shape->kv_block : shape->q_block,
                               .column_block = by_key ? shape->q_block : shape->kv_block};
}

saccade_status sac_exchange_launch(saccade_context *ctx, const sac_cuda_device *device,
                                   sac_mask_kernel kernel, sac_exchange_args *args) {
    const int64_t rows = (int64_t)args->batch * args->num_heads * args->rows, warps = SAC_MASK_THREADS / 32;
    return sac_kernel_launch(ctx, device, &sac_mask_kernels[kernel], (rows + warps - 1) / warps,
                             (void *[]){args});
}

static saccade_status export_lists(saccade_context *ctx, const sac_cuda_device *device,
                                   const saccade_block_mask *mask, const sac_exchange *x, bool by_key) {
    sac_exchange_args args = sac_exchange_args_of(mask, x, by_key);
    args.offsets = by_key ? mask->col_offsets : mask->row_offsets;
    args.entries = by_key ? mask->col_entries : mask->row_entries;
    args.list_batch = mask->list_batch;
    args.list_heads = mask->list_heads;
    args.cut_is_partial = mask->mask_mod != NULL;
    return sac_exchange_launch(ctx, device, SAC_MASK_EXPORT, &args);
}

saccade_status saccade_device_mask_export(saccade_context *ctx, const saccade_block_mask *mask,
                                          const saccade_block_mask_tensors *tensors) {
    if (!mask) return sac_fail(SACCADE_INVALID_ARGUMENT, "mask: is NULL");
    if (!mask->device_state)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "mask: its lists lie on the host; saccade_block_mask_export writes those");
    if (!tensors) return sac_fail(SACCADE_INVALID_ARGUMENT, "tensors: is NULL");
    sac_exchange x;
    const sac_cuda_device *device;
    SAC_TRY(sac_exchange_open(&x, mask, tensors));
    SAC_TRY(sac_cuda_enter(ctx, mask->device.device_id, &device));
    saccade_status status = export_lists(ctx, device, mask, &x, false);
    if (status == SACCADE_OK) status = export_lists(ctx, device, mask, &x, true);
    sac_cuda_leave();
    return status;
}
