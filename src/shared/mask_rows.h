/* mask_rows.h - what one block row of an analytic mask lists: at most three runs, and diagonals in later rounds.
 *
 * The builders on the host and on a device are this arithmetic around different loops.
 */
#ifndef SAC_MASK_ROWS_H
#define SAC_MASK_ROWS_H

#include "shared/tile_walk.h"

/* Key blocks [begin, full_begin) are PARTIAL, [full_begin, full_end) FULL, [full_end, end) PARTIAL; then in each of
 * `rounds` later rounds, each round_blocks further on, [diagonal_begin, diagonal_end) are of diagonal_kind. */
typedef struct sac_block_row {
    int32_t begin, full_begin, full_end, end;
    int32_t diagonal_begin, diagonal_end, diagonal_kind;
    int32_t round_blocks, rounds;
} sac_block_row;

/* Where each query sees one interval of keys, whose ends never move left from a query to the next and which leave no
 * gap between neighbours, a block of queries sees some of the keys from its first query's first to its last query's
 * last, and sees in full those from its last query's first to its first query's last. */
SAC_FN sac_block_row sac_interval_row(sac_range first, sac_range last, int32_t block, int32_t kv_len) {
    sac_block_row row = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    if (first.begin >= last.end) return row;
    row.begin = first.begin / block;
    row.end = row.full_begin = row.full_end = sac_ceil_div(last.end, block);
    if (last.begin >= first.end) return row;
    int32_t begin = sac_ceil_div(last.begin, block);
    int32_t end = first.end == kv_len ? sac_ceil_div(kv_len, block) : first.end / block;
    if (begin >= end) return row;
    row.full_begin = begin;
    row.full_end = end;
    return row;
}

/* Analytic only where the blocks divide each other and the round, so that a diagonal never crosses into a
 * neighbour's block. */
SAC_FN int sac_eagle3_is_regular(int32_t q_len, int32_t kv_len, int32_t q_block, int32_t kv_block) {
    return q_len > 0 && kv_len > 0 && q_len % q_block == 0 && kv_len % kv_block == 0 &&
           q_block % kv_block == 0 && kv_len % q_len == 0;
}

/* Causal over the first round, then in each later round the slab of the diagonal. Rows from `length` on see nothing. */
SAC_FN sac_block_row sac_eagle3_row(sac_range q, int32_t length, int32_t block, int32_t q_len,
                                    int32_t kv_len) {
    sac_block_row row = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    int32_t end = sac_min(q.end, length); /* of the queries that see */
    if (q.begin >= end) return row;
    row.full_end = q.end <= length ? (q.begin + 1) / block : 0;
    row.end = sac_ceil_div(end, block);
    row.diagonal_begin = q.begin / block;
    row.diagonal_end = row.end;
    /* A block of one pair that is visible is FULL, whatever pattern it belongs to. */
    row.diagonal_kind = q.end - q.begin == 1 && block == 1 ? SAC_FULL : SAC_DIAGONAL;
    row.round_blocks = q_len / block;
    row.rounds = kv_len / q_len - 1;
    return row;
}

SAC_FN int32_t sac_block_row_count(const sac_block_row *row) {
    return row->end - row->begin + row->rounds * (row->diagonal_end - row->diagonal_begin);
}

/* The i-th entry of the row. */
SAC_FN int32_t sac_block_row_entry(const sac_block_row *row, int32_t i) {
    int32_t index = row->begin + i;
    if (index < row->end)
        return SAC_ENTRY(index, index >= row->full_begin && index < row->full_end ? SAC_FULL : SAC_PARTIAL);
    int32_t width = row->diagonal_end - row->diagonal_begin, later = index - row->end, round = later / width;
    index = (round + 1) * row->round_blocks + row->diagonal_begin + later % width;
    return SAC_ENTRY(index, row->diagonal_kind);
}

#endif
