/* attention_args.h - the one description of the work that crosses to every backend, the device included.
 *
 * Pointers are on the call's device. Strides count elements; the last dimension is contiguous. Packed tensors
 * have batch_stride 0 and cu_seqlens. Nothing here is ever part of a compilation key but what kernels are
 * told by name (-DHEAD_DIM=...).
 */
#ifndef SAC_ATTENTION_ARGS_H
#define SAC_ATTENTION_ARGS_H

#include "shared/types.h"

#include <saccade/aux.h>

#include "shared/visibility.h"

/* (B, N, H, D) or (T, H, D). */
typedef struct sac_view {
    void *data; /* NULL: absent */
    int64_t batch_stride, row_stride, head_stride;
} sac_view;

/* (B, H, N) or (H, T), fp32. */
typedef struct sac_row_view {
    float *data; /* NULL: absent */
    int64_t batch_stride, head_stride, row_stride;
} sac_row_view;

/* Lengths of the sequences on one side. */
typedef struct sac_lengths {
    const int32_t *cu_seqlens; /* (B + 1) or NULL */
    const int32_t *seqused;    /* (B) or NULL */
    int32_t seqlen;            /* of each sequence; packed: a bound of the longest */
    int32_t pad;
} sac_lengths;

/* A block mask's lists, in rows of blocks: entries [offsets[r], offsets[r + 1]) of row r. */
typedef struct sac_block_list {
    const int64_t *offsets; /* (batch * num_heads * rows + 1), heads as listed */
    const int32_t *entries; /* block index << 2 | kind, ascending in each row; -1 at its end: lists nothing */
    const uint32_t *bits;   /* NULL; or of each entry, the parts of the query block that it is for */
} sac_block_list;

#define SAC_ENTRY(index, kind) (((index) << 2) | (kind))
#define SAC_ENTRY_INDEX(entry) ((entry) >> 2)
#define SAC_ENTRY_KIND(entry) (3 & (entry))

typedef struct sac_block_mask_args {
    sac_block_list by_query;   /* row: query block; entries: key blocks. offsets NULL: no block mask */
    sac_block_list by_key;     /* the transpose, for backward */
    int32_t q_block, kv_block; /* tokens a block */
    int32_t num_q_blocks, num_kv_blocks;
    int32_t batch, num_heads; /* listed; 1: broadcast */
    int32_t heads_per_list;   /* neighbouring query heads that share one list, where num_heads is not 1 */
    int32_t period;           /* DIAGONAL: kv_idx - q_idx is a multiple of it */
    int32_t part; /* lists with bits: queries a part; q_block is a multiple of it, at most 32 times it */
} sac_block_mask_args;

/* Rows of some heads in one tile of queries: for rows below 256, row / heads is row * SAC_PACK_INVERSE(heads) >> 16. */
#define SAC_PACK_INVERSE(heads) ((1 << 16) / (heads) + 1)

typedef struct sac_attention_args {
    sac_view q, k, v, out;
    sac_row_view lse;
    sac_view dout, dq, dk, dv; /* backward */
    sac_row_view dlse;
    float *dsink;               /* (H) */
    const float *sink;          /* (H) or NULL */
    const float *alibi_slopes;  /* (H) or (B, H), or NULL */
    int64_t alibi_batch_stride; /* 0 or H */
    sac_lengths len_q, len_k;
    int32_t dtype;                                 /* sac_dtype of q k v out dout dq dk dv */
    int32_t batch, num_heads, num_kv_heads, group; /* group = num_heads / num_kv_heads */
    int32_t head_dim, head_dim_v;
    int32_t deterministic;
    int32_t has_score_mod, has_mask_mod; /* mask_mod: the call's, or the block mask's own */
    float scale, softcap;                /* softcap 0: none */
    sac_band_rule band;
    sac_block_mask_args blocks;
    saccade_aux score_aux, mask_aux;
} sac_attention_args;

/* How the outputs of several calls with the same queries are weighted in their sum. */
enum { SAC_MAX_SUMMED = 4 };
typedef struct sac_sum_weights {
    sac_view given;       /* (B, N, H, calls); no data: */
    const void *of_query; /* (H, calls, D), contiguous: sigmoid(q . row); NULL: 1 / calls each */
} sac_sum_weights;

/* One sequence of the batch: where its rows start and how many there are. */
typedef struct sac_sequence {
    int64_t q_row, k_row; /* first row in the packed tensor; 0 when not packed */
    int32_t q_len, k_len;
} sac_sequence;

/* Rows that sequence b has, used or not; and those it uses. */
SAC_FN int32_t sac_rows_of(const sac_lengths *len, int32_t b) {
    return len->cu_seqlens ? len->cu_seqlens[b + 1] - len->cu_seqlens[b] : len->seqlen;
}
SAC_FN int32_t sac_length_of(const sac_lengths *len, int32_t b) {
    return len->seqused ? len->seqused[b] : sac_rows_of(len, b);
}

SAC_FN sac_sequence sac_sequence_of(const sac_attention_args *args, int32_t b) {
    sac_sequence s;
    s.q_row = args->len_q.cu_seqlens ? args->len_q.cu_seqlens[b] : 0;
    s.k_row = args->len_k.cu_seqlens ? args->len_k.cu_seqlens[b] : 0;
    s.q_len = sac_length_of(&args->len_q, b);
    s.k_len = sac_length_of(&args->len_k, b);
    return s;
}

#endif
