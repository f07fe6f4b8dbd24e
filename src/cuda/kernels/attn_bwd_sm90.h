/* attn_bwd_sm90.h - what crosses from attn_bwd_sm90.c to the Hopper backward kernels: attn_bwd_sm90.cu, which walks the
 * queries of a key tile, and attn_bwd_dq_sm90.cu, which walks the keys of a query tile.
 *
 * The sums of dQ lie in groups of 16 rows by 8 columns: 512 bytes, which one warp adds to at once, 16 bytes a lane. Lane
 * 4g + t owns the columns 2t and 2t + 1 of row g, then of row g + 8, as four accumulators in a row do. Less than whole
 * lines at a time the L2 adds at half the speed.
 *
 * Of gathered rows (PACK) a group is one line, 4 rows by 8 columns: the least that is added at full speed, so that a
 * query brings as few neighbours along as can be. Eight lanes own it, 4g + t the columns 2t and 2t + 1 of row g, then
 * of row g + 2.
 */
#ifndef SAC_ATTN_BWD_SM90_H
#define SAC_ATTN_BWD_SM90_H

#include "cuda/kernels/tail_split.h"
#include "cuda/kernels/tensor_map.h"
#include "cuda/kernels/tile_counter.h"
#include "shared/attention_args.h"
#include "shared/tile_order.h"

enum { SAC_SUM_ROWS = 16, SAC_GATHERED_ROWS = 4, SAC_SUM_COLUMNS = 8 }; /* of one group */

/* PACK: lists with bits. Which queries chose a key block is known part by part, so a tile of 64 rows is gathered from
 * pieces: some neighbouring parts, as few as make whole groups of rows with the heads that share the list, or, if no
 * number does, all of a query block. Row r of a piece is query r / heads of head r % heads. */
typedef struct sac_query_pieces {
    int32_t heads;                  /* that share a list; 1 without PACK */
    int32_t parts, queries, rows;   /* of a piece */
    int32_t row_groups, a_sequence; /* groups of 4 rows a piece; pieces a sequence, where all are as long */
    int32_t a_tile;                 /* pieces a tile */
    int32_t rows_inverse, heads_inverse,
        part_inverse; /* SAC_PACK_INVERSE of rows, heads, and of queries a part */
} sac_query_pieces;

typedef struct sac_attn_bwd_sm90_params {
    sac_tensor_map q, k, v, dout; /* boxes: 64 columns x the rows of the kernel's tiles, or of a piece */
    sac_attention_args args;
    sac_tile_order order; /* of the tiles that CTAs own */
    sac_tail_split tail;  /* of key tiles, cut by their queries; then num_parts is 1 */
    int32_t num_tasks;    /* key tiles, their parts counted */
    int32_t *tasks_taken; /* STAYS: beyond each CTA's first; 0 at first */
    int64_t total_q;      /* rows of packed queries; batch * seqlen when not packed */
    float *delta;  /* (H, total_q): rowsum(out * dout) - dlse; read only but where it is made from scores */
    float *dq_sum; /* (H, sum_rows / 16, D / 8, 16, 8), PACK: (lists, sum_rows / 4, D / 8, 4, 8); or NULL */
    int64_t dk_part_stride, dv_part_stride; /* see sac_attention_call */
    int32_t num_parts;                      /* at least 1; each takes a stretch of the queries, */
    int32_t part_blocks;                    /* PACK: of so many of the lists' blocks */
    int64_t sum_rows; /* of a list: the sequences, each from a multiple of 16 on; PACK: its pieces */
    sac_query_pieces pieces;
    float *dk_sum,
        *dv_sum; /* PACK: the parts' dK and dV are added here, as dQ is, a key head a list; or NULL */
    int64_t key_sum_rows;      /* of a key head */
    int32_t diagonals_from;    /* key blocks from here on are left to attn_bwd_diagonal_sm90.cu */
    sac_tile_counter *counter; /* of query tiles */
    /* Where dQ is summed in order, (H, turns_a_head): how many key tiles each query tile has had. */
    uint32_t *dq_turns;
    int32_t turns_a_head;
} sac_attn_bwd_sm90_params;

/* The row of the sums where sequence b starts. */
SAC_FN int64_t sac_sum_row(const sac_lengths *len, int32_t b) {
    if (len->cu_seqlens)
        return ((int64_t)len->cu_seqlens[b] + (int64_t)SAC_SUM_ROWS * b) / SAC_SUM_ROWS * SAC_SUM_ROWS;
    return ((int64_t)len->seqlen + SAC_SUM_ROWS - 1) / SAC_SUM_ROWS * SAC_SUM_ROWS * b;
}

/* Where in a head's words for its query tiles, of so many rows each, those of sequence b start. */
SAC_FN int32_t sac_first_turn(const sac_lengths *len, int32_t b, int32_t q_tile) {
    return (int32_t)(sac_sum_row(len, b) / q_tile) + b;
}

/* Blocks of keys between two that the same queries see, each along a diagonal; all, where blocks do not repeat with
 * the period. */
SAC_FN int32_t sac_blocks_a_period(const sac_block_mask_args *blocks) {
    return blocks->period % blocks->kv_block ? blocks->num_kv_blocks : blocks->period / blocks->kv_block;
}

/* PACK: the piece where sequence b starts. */
SAC_FN int64_t sac_first_piece(const sac_query_pieces *pieces, const sac_lengths *len, int32_t b) {
    return len->cu_seqlens ? (int64_t)len->cu_seqlens[b] / pieces->queries + b
                           : (int64_t)b * pieces->a_sequence;
}

#endif
