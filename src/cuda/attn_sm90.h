/* attn_sm90.h - what the hosts of the Hopper attention kernels share. */
#ifndef SAC_CUDA_ATTN_SM90_H
#define SAC_CUDA_ATTN_SM90_H

#include "base/attention_call.h"
#include "cuda/cuda.h"
#include "cuda/tensor_map.h"
#include "shared/tile_order.h"

/* Lengths come from device memory. */
bool sac_sm90_ragged(const sac_attention_args *args);

/* CTAs that a multiprocessor has registers for, of warpgroups whose threads have so many together. */
int32_t sac_sm90_ctas_per_sm(int32_t registers);

/* Are scores scaled before the softmax? Those that are modified on their way, or have a negative scale, or next to
 * none; of others the exponent has the scale. */
bool sac_sm90_prescales(const sac_attention_call *call);

/* What a variant computes: HEAD_DIM, HEAD_DIM_V, DTYPE, BLOCK_MASK, PACK, MASK_MOD, SCORE_MOD, SOFTCAP, ALIBI,
 * PRESCALED, RAGGED. */
void sac_sm90_define(sac_kernel_spec *spec, const sac_attention_call *call);

/* Of a tensor of one side, whose lengths are `len`. packed_rows: of it, where sequences are packed. */
sac_tensor_extent sac_sm90_extent(const sac_attention_args *args, const sac_lengths *len, int64_t packed_rows,
                                  int32_t columns, int32_t heads, int32_t box_rows);

/* The same of q, whose boxes are the rows of one warpgroup: of a head, or of the heads that share a tile. */
sac_tensor_extent sac_sm90_q_extent(const sac_attention_args *args, int64_t packed_rows, int32_t columns);

/* The order of query tiles of q_tile rows. */
sac_tile_order sac_sm90_query_order(const sac_attention_args *args, int32_t q_tile,
                                    const sac_cuda_device *device);

#endif
