/* mask_tiles.c - when a mask_mod's tiles are classified first, and the launch of kernels/mask_tiles.cu. */
#include "cuda/mask_tiles.h"

#include <stdlib.h>

#include "mod/modifier.h"
#include "shared/tile_walk.h"

/* Fewer pairs take less time than another launch. */
enum { FEW_PAIRS = 1 << 18 };

bool sac_mask_tiles_serve(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    return call->mask_mod && !args->blocks.by_query.offsets && args->num_heads > 1 &&
           (int64_t)args->len_q.seqlen * args->len_k.seqlen >= FEW_PAIRS &&
           !sac_modifier_names(call->mask_mod, "h");
}

sac_mask_tiles sac_mask_tiles_of(const sac_attention_args *args, int32_t q_tile, int32_t kv_tile) {
    return (sac_mask_tiles){NULL, q_tile, kv_tile, sac_num_tiles(args->len_q.seqlen, q_tile, 0),
                            sac_num_tiles(args->len_k.seqlen, kv_tile, 0)};
}

size_t sac_mask_tiles_bytes(const sac_attention_args *args, const sac_mask_tiles *tiles) {
    return (size_t)args->batch * (size_t)tiles->q_tiles * (size_t)tiles->kv_tiles;
}

saccade_status sac_mask_tiles_find(saccade_context *ctx, const sac_cuda_device *device,
                                   const sac_attention_call *call, const sac_mask_tiles *tiles) {
    enum { THREADS = 256, WARPS = THREADS / 32 };
    char *text;
    SAC_TRY(sac_modifier_device_text(call->mask_mod, &text));
    sac_kernel_spec spec = {
        .source = "cuda/kernels/mask_tiles.cu", .entry = "mask_tiles", .modifiers = text, .threads = THREADS};
    sac_kernel_define(&spec, "NUM_THREADS", THREADS);
    const int64_t count = (int64_t)sac_mask_tiles_bytes(&call->args, tiles);
    saccade_status status = sac_kernel_launch(ctx, device, &spec, (count + WARPS - 1) / WARPS,
                                              (void *[]){(void *)&call->args, (void *)tiles});
    free(text);
    return status;
}
