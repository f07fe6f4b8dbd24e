/* nsa_place.h - where a row of tokens, or of compressed keys, stands. Views of packed tensors have one batch entry. */
#ifndef SAC_KERNELS_NSA_PLACE_H
#define SAC_KERNELS_NSA_PLACE_H

#include "shared/nsa_args.h"

typedef struct nsa_place {
    int32_t b;    /* batch entry of the views */
    int32_t used; /* of tokens: a sequence has it; behind the last one may lie anything */
    int64_t row;  /* in the batch entry */
} nsa_place;

/* Row `index` through all batch entries of `len` rows each. */
SAC_FN nsa_place nsa_place_dense(int64_t index, int32_t len) {
    nsa_place p;
    p.b = (int32_t)(index / len);
    p.used = 1;
    p.row = index - (int64_t)p.b * len;
    return p;
}

SAC_FN nsa_place nsa_token_place(const sac_nsa_args *args, int64_t index) {
    const nsa_place p = {0, index < sac_nsa_used_rows(args), index};
    return args->len.cu_seqlens || args->batch == 1 ? p : nsa_place_dense(index, args->len.seqlen);
}

SAC_FN nsa_place nsa_cmp_place(const sac_nsa_args *args, int64_t index) {
    const nsa_place p = {0, 1, index};
    return args->len.cu_seqlens || args->batch == 1 ? p : nsa_place_dense(index, args->max_cmp);
}

/* The last sequence that starts at or before the row: with empty ones among them, the one that has it, if any does. */
SAC_FN int32_t nsa_sequence_of(const int32_t *starts, int32_t batch, int64_t row) {
    int32_t low = 0, high = batch;
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (starts[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The first token of compressed row `index`; -1: it belongs to no sequence. */
SAC_FN int64_t nsa_first_token(const sac_nsa_args *args, int64_t index) {
    if (!args->len.cu_seqlens) return nsa_cmp_place(args, index).row * args->block;
    const int32_t b = nsa_sequence_of(args->cu_cmp, args->batch, index);
    if (index >= args->cu_cmp[b + 1]) return -1;
    return args->len.cu_seqlens[b] + (index - args->cu_cmp[b]) * args->block;
}

/* The compressed row that token row `index` is a part of, through all batch entries; -1: of none. */
SAC_FN int64_t nsa_row_of_mean(const sac_nsa_args *args, int64_t index) {
    if (!args->len.cu_seqlens) {
        const nsa_place p = nsa_token_place(args, index);
        const int64_t block = p.row / args->block;
        return block < args->max_cmp ? (int64_t)p.b * args->max_cmp + block : -1;
    }
    const int32_t b = nsa_sequence_of(args->len.cu_seqlens, args->batch, index);
    const int64_t row = args->cu_cmp[b] + (index - args->len.cu_seqlens[b]) / args->block;
    return row < args->cu_cmp[b + 1] ? row : -1;
}

#endif
