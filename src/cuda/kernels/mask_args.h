/* mask_args.h - what the kernels that build a block mask on a device are told, and the candidates of a row.
 *
 * They run one after the other, each over all (batch, head, block row) or all (batch, head, block column):
 *   mask_values     what the mask's own mask_mod reads
 *   mask_classify   the kind of every block, by asking; for a mask_mod only
 *   mask_import     the kind of every block, from PyTorch's lists; for those only
 *   mask_count      blocks of each row, into row_offsets
 *   mask_offsets    counts to offsets
 *   mask_write      row_entries; and in `seen`, for each column, which rows list it
 *   mask_columns    `seen` to `before`, blocks of each column into col_offsets; then mask_offsets again
 *   mask_transpose  col_entries
 */
#ifndef SAC_KERNELS_MASK_ARGS_H
#define SAC_KERNELS_MASK_ARGS_H

#include "shared/mask_rows.h"

typedef enum sac_mask_source {
    SAC_MASK_BAND,
    SAC_MASK_INTERVALS, /* documents: each query's first key and the one past its last */
    SAC_MASK_EAGLE3,
    SAC_MASK_INDICES, /* from here on nothing is analytic */
    SAC_MASK_CHOSEN, /* by tiles of queries, some to a row: what any of them chose, with a bit for each that did */
    SAC_MASK_KINDS, /* of every block, by mask_classify or mask_import */
} sac_mask_source;

typedef enum sac_mask_problem {
    SAC_MASK_FINE,
    SAC_MASK_OVER_CAPACITY, /* where: how many blocks there are */
    SAC_MASK_BAD_LENGTH,    /* where: which of lengths is negative */
    SAC_MASK_BAD_DOCUMENT,  /* where: the place in cu_seqlens */
    SAC_MASK_BAD_INDEX,     /* where: the row in indices */
    SAC_MASK_BAD_COUNT,     /* where: the row in *kv_num_blocks */
    SAC_MASK_BAD_BLOCK,     /* where: the row in *kv_indices */
} sac_mask_problem;

/* In device memory. Of several problems the greatest is kept, so that every run finds the same. */
#define SAC_MASK_PROBLEM(problem, where) ((uint64_t)(problem) << 48 | (uint64_t)(where))
#define SAC_MASK_PROBLEM_KIND(packed) ((int32_t)((packed) >> 48))
#define SAC_MASK_PROBLEM_WHERE(packed) ((int64_t)((packed) & (((uint64_t)1 << 48) - 1)))
typedef struct sac_mask_state {
    uint64_t problem; /* SAC_MASK_PROBLEM; 0: none */
} sac_mask_state;

enum { SAC_ROWS_A_GROUP = 32, SAC_KINDS_A_WORD = 16 };

typedef struct sac_mask_args {
    sac_mask_state *state;
    int64_t *row_offsets, *col_offsets; /* as in sac_block_list, but not const */
    int32_t *row_entries, *col_entries; /* (capacity) */
    uint32_t *row_bits, *col_bits;      /* (capacity), beside the entries; or NULL: no bits */
    /* (heads, row groups, columns): bit r of group g: row 32 g + r lists the column; and how many rows of earlier
     * groups do. NULL: nobody wants the lists by column. */
    uint32_t *seen;
    int32_t *before;
    uint32_t *kinds; /* (heads * rows, columns / 16): two bits a block; SAC_MASK_KINDS */
    int32_t *values; /* what the mask_mod reads */
    int64_t capacity;
    const int32_t *tensor;                         /* cu_seqlens, lengths (NULL: none) or indices */
    int64_t batch_stride, head_stride, row_stride; /* of indices; SAC_MASK_CHOSEN: a row is a tile's */
    const int32_t *cu_tiles;    /* (B + 1) where each sequence's tiles start, or NULL: all have */
    int32_t tiles, tiles_a_row; /* so many; at most 32 a row */
    int32_t tensor_size;        /* documents, or top_k */
    int32_t source;             /* sac_mask_source */
    int32_t kind;               /* of SAC_MASK_INDICES */
    int32_t batch, num_heads, rows, columns;
    int32_t q_len, kv_len, q_block, kv_block;
    sac_band band;
} sac_mask_args;

typedef struct sac_listed_row {
    int32_t b, h, row;
    int64_t index; /* in row_offsets */
    int32_t candidates;
    sac_block_row analytic;
} sac_listed_row;

SAC_FN sac_range sac_mask_row_queries(const sac_mask_args *args, int32_t row) {
    sac_range q = {row * args->q_block, sac_min(args->q_len - row * args->q_block, args->q_block)};
    q.end += q.begin;
    return q;
}

SAC_FN sac_range sac_mask_keys_of(const sac_mask_args *args, int32_t q_idx) {
    sac_range k;
    if (args->source == SAC_MASK_BAND) {
        k.begin = sac_band_lo(&args->band, q_idx);
        k.end = sac_band_hi(&args->band, q_idx);
    } else {
        k.begin = args->values[2 * (int64_t)q_idx];
        k.end = args->values[2 * (int64_t)q_idx + 1];
    }
    return k;
}

/* Row `index` of all, and how many candidates it has: of an analytic row what it lists, else all that may be. */
SAC_FN sac_listed_row sac_listed_row_of(const sac_mask_args *args, int64_t index) {
    sac_listed_row row;
    int32_t head = (int32_t)(index / args->rows);
    row.index = index;
    row.row = (int32_t)(index % args->rows);
    row.b = head / args->num_heads;
    row.h = head % args->num_heads;
    if (args->source >= SAC_MASK_INDICES) {
        row.candidates = args->source == SAC_MASK_KINDS ? args->columns : args->tensor_size;
        return row;
    }
    sac_range q = sac_mask_row_queries(args, row.row);
    if (args->source == SAC_MASK_EAGLE3)
        row.analytic = sac_eagle3_row(q, args->values[1 + row.b], args->kv_block, args->q_len, args->kv_len);
    else
        row.analytic = sac_interval_row(sac_mask_keys_of(args, q.begin), sac_mask_keys_of(args, q.end - 1),
                                        args->kv_block, args->kv_len);
    row.candidates = sac_block_row_count(&row.analytic);
    return row;
}

/* The i-th candidate as an entry; 0: not listed. Listed ones ascend. */
SAC_FN int32_t sac_mask_candidate(const sac_mask_args *args, const sac_listed_row *row, int32_t i) {
    if (args->source == SAC_MASK_INDICES) {
        int32_t chosen = args->tensor[row->b * args->batch_stride + row->h * args->head_stride +
                                      row->row * args->row_stride + i];
        return chosen < 0 ? 0 : SAC_ENTRY(chosen, args->kind);
    }
    if (args->source == SAC_MASK_KINDS) {
        int64_t words = sac_ceil_div(args->columns, SAC_KINDS_A_WORD);
        uint32_t word = args->kinds[row->index * words + i / SAC_KINDS_A_WORD];
        int32_t kind = (int32_t)(word >> 2 * (i % SAC_KINDS_A_WORD) & 3);
        return kind ? SAC_ENTRY(i, kind) : 0;
    }
    return sac_block_row_entry(&row->analytic, i);
}

/* Where `seen` and `before` keep column 0 of a row's group. */
SAC_FN int64_t sac_mask_group(const sac_mask_args *args, const sac_listed_row *row) {
    int64_t groups = sac_ceil_div(args->rows, SAC_ROWS_A_GROUP),
            head = (int64_t)row->b * args->num_heads + row->h;
    return (head * groups + row->row / SAC_ROWS_A_GROUP) * args->columns;
}

#endif
