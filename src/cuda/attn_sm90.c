/* attn_sm90.c - variants, tensors and the order of tiles, for every Hopper attention kernel. */
#include "cuda/attn_sm90.h"

#include "shared/tile_walk.h"

bool sac_sm90_ragged(const sac_attention_args *args) {
    return args->len_q.cu_seqlens || args->len_k.cu_seqlens || args->len_q.seqused || args->len_k.seqused;
}

int32_t sac_sm90_ctas_per_sm(int32_t registers) {
    enum { WARPGROUP = 128, REGISTERS = 64 << 10 };
    return REGISTERS / (WARPGROUP * registers);
}

/* Heads that share a tile of queries: those of a list with bits, whose tiles would hold few queries of one head. 1:
 * each has its own. */
static int32_t pack_of(const sac_attention_args *args) {
    return args->blocks.by_query.bits ? args->blocks.heads_per_list : 1;
}

/* The backward pass takes lse off products before they are scaled: lse over the scale must be far within fp32. */
#define LEAST_SCALE 1e-20f

bool sac_sm90_prescales(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    return args->softcap > 0 || args->alibi_slopes || call->score_mod || !(args->scale >= LEAST_SCALE);
}

void sac_sm90_define(sac_kernel_spec *spec, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    sac_kernel_define(spec, "HEAD_DIM", args->head_dim);
    sac_kernel_define(spec, "HEAD_DIM_V", args->head_dim_v);
    sac_kernel_define(spec, "DTYPE", args->dtype);
    sac_kernel_define(spec, "BLOCK_MASK", args->blocks.by_query.offsets != NULL);
    sac_kernel_define(spec, "PACK", args->blocks.by_query.bits != NULL);
    sac_kernel_define(spec, "MASK_MOD", call->mask_mod != NULL);
    sac_kernel_define(spec, "SCORE_MOD", call->score_mod != NULL);
    sac_kernel_define(spec, "SOFTCAP", args->softcap > 0);
    sac_kernel_define(spec, "ALIBI", args->alibi_slopes != NULL);
    sac_kernel_define(spec, "PRESCALED", sac_sm90_prescales(call));
    sac_kernel_define(spec, "RAGGED", sac_sm90_ragged(args));
}

sac_tensor_extent sac_sm90_extent(const sac_attention_args *args, const sac_lengths *len, int64_t packed_rows,
                                  int32_t columns, int32_t heads, int32_t box_rows) {
    const bool packed = len->cu_seqlens;
    return (sac_tensor_extent){
        columns, packed ? packed_rows : len->seqlen, heads, packed ? 1 : args->batch, box_rows, 0};
}

sac_tensor_extent sac_sm90_q_extent(const sac_attention_args *args, int64_t packed_rows, int32_t columns) {
    sac_tensor_extent q = sac_sm90_extent(args, &args->len_q, packed_rows, columns, args->num_heads, 64);
    if (!args->blocks.by_query.bits) return q;
    q.box_rows = args->blocks.q_block;
    q.box_heads = pack_of(args);
    return q;
}

/* Under a causal mask, sections of as many heads as have their keys and values in two thirds of the L2: what is read
 * again from memory costs power. Smaller ones are no gain, and the last needs more tiles than there are CTAs, or its
 * long tiles run alone. With shared lists, whose tiles are about equally long and read keys anywhere, as many as the
 * L2 holds. Otherwise all tiles are alike, and one head after the other lets neighbouring CTAs read the same keys at
 * the same time, which the L2 answers once. */
sac_tile_order sac_sm90_query_order(const sac_attention_args *args, int32_t q_tile,
                                    const sac_cuda_device *device) {
    const bool packed = args->len_q.cu_seqlens;
    const int32_t q_block = args->blocks.by_query.offsets ? args->blocks.q_block : 0;
    const int32_t num_heads = (args->batch + packed) * args->num_heads / pack_of(args);
    const int32_t num_tiles = sac_max(sac_num_tiles(args->len_q.seqlen, q_tile, q_block), packed);
    sac_tile_order order = {num_tiles, num_heads, 1, num_tiles * num_heads};
    if (!args->band.causal || num_heads == 0) return order;
    const int64_t num_groups = (int64_t)(args->batch + packed) * args->num_kv_heads;
    const int64_t head_bytes = 2 * (int64_t)args->len_k.seqlen * (args->head_dim + args->head_dim_v);
    if (args->blocks.by_query.bits) {
        const int64_t fit = head_bytes > 0 ? device->l2_bytes / head_bytes : num_groups;
        const int32_t groups = sac_max(1, (int32_t)(fit < num_groups ? fit : num_groups));
        order.section_heads = groups * (args->group / pack_of(args));
        return order;
    }
    const int64_t sections = (3 * num_groups * head_bytes - 1) / (2 * device->l2_bytes) + 1;
    const int32_t num_sections = (int32_t)(sections < num_groups ? sections : num_groups);
    order.section_heads = sac_ceil_div(num_heads, num_sections);
    return order;
}
