/* attn_bwd_sm90.h - what crosses from attn_bwd_sm90.c to the Hopper backward kernels: attn_bwd_sm90.cu, which walks the
 * queries of a key tile, and attn_bwd_dq_sm90.cu, which walks the keys of a query tile.
 *
 * The sums of dQ lie in groups of 8 rows, and in a group by 16 columns: 512 bytes, which one warp adds to at once, 16 bytes
 * a lane. Lane 4g + t owns of row g the columns 2t, 2t + 1, 8 + 2t and 9 + 2t, as its accumulators do. Less than whole
 * lines at a time the L2 adds at half the speed.
 */
#ifndef SAC_ATTN_BWD_SM90_H
#define SAC_ATTN_BWD_SM90_H

#include "cuda/kernels/tensor_map.h"
#include "cuda/kernels/tile_counter.h"
#include "shared/attention_args.h"
#include "shared/tile_order.h"

enum { SAC_SUM_ROWS = 8, SAC_SUM_COLUMNS = 16 }; /* of one group */

typedef struct sac_attn_bwd_sm90_params {
    sac_tensor_map q, k, v, dout; /* boxes: 64 columns x as many rows as the kernel's tiles have */
    sac_attention_args args;
    sac_tile_order order; /* of the tiles that CTAs own */
    int64_t total_q;      /* rows of packed queries; batch * seqlen when not packed */
    float *delta;  /* (H, total_q): rowsum(out * dout) - dlse; read only but where it is made from scores */
    float *dq_sum; /* (H, sum_rows / 8, D / 16 rounded up, 8, 16); NULL: dQ is not summed here */
    int64_t dk_part_stride, dv_part_stride; /* see sac_attention_call */
    int32_t num_parts, pad;                 /* at least 1; each takes a stretch of the queries */
    int64_t sum_rows;                       /* of one head: the sequences, each from a multiple of 8 on */
    sac_tile_counter *counter;              /* of query tiles */
} sac_attn_bwd_sm90_params;

/* The row of the sums where sequence b starts. */
SAC_FN int64_t sac_sum_row(const sac_lengths *len, int32_t b) {
    if (len->cu_seqlens)
        return ((int64_t)len->cu_seqlens[b] + (int64_t)SAC_SUM_ROWS * b) / SAC_SUM_ROWS * SAC_SUM_ROWS;
    return ((int64_t)len->seqlen + SAC_SUM_ROWS - 1) / SAC_SUM_ROWS * SAC_SUM_ROWS * b;
}

#endif
