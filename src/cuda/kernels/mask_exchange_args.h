/* mask_exchange_args.h - what the kernels that read and write the tensors of PyTorch's BlockMask are told. */
#ifndef SAC_KERNELS_MASK_EXCHANGE_ARGS_H
#define SAC_KERNELS_MASK_EXCHANGE_ARGS_H

#include "cuda/kernels/mask_args.h"

typedef struct sac_exchange_list {
    int32_t *counts;           /* (batch, num_heads, rows); NULL: not there */
    int32_t *indices;          /* (batch, num_heads, rows, columns); NULL: not there */
    int64_t counts_stride[2];  /* of batch and head */
    int64_t indices_stride[3]; /* of batch, head and row */
} sac_exchange_list;

/* Rows are query blocks, or, of the q_ tensors, key blocks. */
typedef struct sac_exchange_args {
    sac_exchange_list partial, full;
    int32_t batch, num_heads, rows, columns;
    int32_t row_len, column_len, row_block, column_block; /* tokens */
    /* reading */
    sac_mask_state *state;
    uint32_t *kinds; /* as in sac_mask_args */
    /* writing */
    const int64_t *offsets; /* the lists of the mask, in this direction */
    const int32_t *entries;
    int32_t list_batch, list_heads; /* 1: shared by all */
    int32_t cut_is_partial;         /* a FULL block that reaches past the end counts as PARTIAL */
    int32_t pad;
} sac_exchange_args;

SAC_FN int32_t *sac_exchange_count(const sac_exchange_list *list, int32_t b, int32_t h, int32_t row) {
    return list->counts + b * list->counts_stride[0] + h * list->counts_stride[1] + row;
}

SAC_FN int32_t *sac_exchange_row(const sac_exchange_list *list, int32_t b, int32_t h, int32_t row) {
    return list->indices + b * list->indices_stride[0] + h * list->indices_stride[1] +
           row * list->indices_stride[2];
}

#endif
