/* attn_bwd_dq_convert_sm90.cu - the fp32 sums of dQ, times scale, into the rows of dq that a sequence uses. One warp,
 * 16 rows of one head, or (PACK) of the heads that share a list. Grid: ceil(H / heads * sum_rows / 16 / warps). Needs
 * DTYPE HEAD_DIM RAGGED PACK NUM_THREADS. */
#include "cuda/kernels/attn_bwd_sm90.h"
#include "cuda/kernels/attn_sm90.h"

enum {
    COLUMN_GROUPS = (HEAD_DIM + SAC_SUM_COLUMNS - 1) / SAC_SUM_COLUMNS,
    GROUP_ROWS = PACK ? SAC_GATHERED_ROWS : SAC_SUM_ROWS,
    GROUP_SIZE = GROUP_ROWS * SAC_SUM_COLUMNS,
    GROUP_LANES = GROUP_SIZE / 4,
};

/* The row of the sums where sequence b starts. */
SAC_FN int64_t first_row(const sac_attn_bwd_sm90_params *params, int32_t b) {
    const sac_lengths *len = &params->args.len_q;
    return PACK ? sac_first_piece(&params->pieces, len, b) * params->pieces.row_groups * GROUP_ROWS
                : sac_sum_row(len, b);
}

/* The last sequence that starts at or before a row of the sums. */
SAC_FN int32_t sequence_at(const sac_attn_bwd_sm90_params *params, int64_t sum_row) {
    int32_t low = 0, high = params->args.batch;
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (first_row(params, middle) <= sum_row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Whose row it is: of a sequence, and of the heads from the first of the list on. */
typedef struct row_place {
    int32_t query, head; /* query -1: nobody's */
} row_place;

SAC_FN row_place place_of(const sac_query_pieces *pieces, int32_t row) {
    row_place at = {row, 0};
#if PACK
    const int32_t rows = pieces->row_groups * GROUP_ROWS, rest = row % rows;
    at.query = rest < pieces->rows ? row / rows * pieces->queries + rest / pieces->heads : -1;
    at.head = rest % pieces->heads;
#endif
    return at;
}

/* Where a row of dq lies. */
SAC_FN uint16_t *row_at(const sac_attention_args *args, int32_t b, int32_t h, row_place at) {
    return (uint16_t *)args->dq.data + batch_of(&args->len_q, b) * args->dq.batch_stride +
           (h + at.head) * args->dq.head_stride +
           (row_of(&args->len_q, b) + (int64_t)at.query) * args->dq.row_stride;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_bwd_dq_convert_sm90(const __grid_constant__ sac_attn_bwd_sm90_params params) {
    const sac_attention_args *args = &params.args;
    const int64_t groups = params.sum_rows / GROUP_ROWS;
    const int64_t group = (int64_t)blockIdx.x * (NUM_THREADS / GROUP_LANES) + threadIdx.x / GROUP_LANES;
    const int lane = threadIdx.x % GROUP_LANES;
    const int32_t list = (int32_t)(group / groups), h = PACK ? list * params.pieces.heads : list;
    if (h >= args->num_heads) return;
    const int64_t sum_row = (group - list * groups) * GROUP_ROWS;
    const int32_t b = sequence_at(&params, sum_row);
    const int32_t q_len = sequence_of(args, b).q_len;
    const float *from = params.dq_sum + group * COLUMN_GROUPS * GROUP_SIZE + lane * 4;
    float4 sums[COLUMN_GROUPS]; /* two rows of this lane's, as accumulators hold them */
#pragma unroll
    for (int j = 0; j < COLUMN_GROUPS; j++) sums[j] = *(const float4 *)(from + j * GROUP_SIZE);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t row = (int32_t)(sum_row - first_row(&params, b)) + lane / 4 + GROUP_ROWS / 2 * r;
        const row_place at = place_of(&params.pieces, row);
        store_sums(row_at(args, b, h, at), &sums[0].x, HEAD_DIM, r, args->scale,
                   at.query >= 0 && at.query < q_len);
    }
}
