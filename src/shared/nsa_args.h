/* nsa_args.h - the one description of native sparse attention, beside the sac_attention_args of its three branches.
 *
 * Pointers are on the call's device, strides count elements. A *list* is what shares one selection: a query head, or
 * a group of them. A sequence has floor(len / block) compressed keys and ceil(len / query_tile) tiles of queries;
 * packed, those of the sequences follow each other, from cu_cmp[b] and cu_tiles[b] on.
 */
#ifndef SAC_NSA_ARGS_H
#define SAC_NSA_ARGS_H

#include "shared/attention_args.h"

typedef enum sac_nsa_score { SAC_NSA_LOGITS = 1, SAC_NSA_PROBABILITIES = 2 } sac_nsa_score;

/* The compressed branch, when it is sparse too, visits blocks of this many compressed keys. */
#define SAC_NSA_COMPRESSED_BLOCK 128

/* (B, lists, tiles, top_k), or packed (lists, tiles, top_k); ascending, -1 behind the last. */
typedef struct sac_nsa_indices {
    int32_t *data;
    int64_t batch_stride, list_stride;
    int32_t top_k;
} sac_nsa_indices;

typedef struct sac_nsa_args {
    sac_view q, k, v;
    sac_view k_cmp, v_cmp;   /* (B, Nc, Hkv, D or Dv), or packed (Tc, Hkv, ...) */
    const void *w_k, *w_v;   /* (Hkv, D, D), (Hkv, Dv, Dv), contiguous; or NULL */
    const void *w_gate;      /* (H, 3, D), contiguous; or NULL */
    sac_view gates;          /* (B, N, H, 3); data NULL: w_gate, or 1/3 each */
    sac_row_view lse_cmp;    /* the compressed branch's, for scoring where sac_nsa_lse_serves; else no data */
    sac_nsa_indices indices; /* blocks of tokens that the selected branch visits */
    sac_nsa_indices compressed_indices; /* blocks of compressed keys; top_k 0: that branch visits all */
    sac_lengths len;                    /* of q, k and v alike */
    const int32_t *cu_cmp;              /* (B + 1) packed, else NULL */
    const int32_t *cu_tiles;            /* (B + 1) packed, else NULL */
    int32_t dtype, batch, num_heads, num_kv_heads, group, head_dim, head_dim_v;
    int32_t block, window, query_tile;
    int32_t score; /* sac_nsa_score */
    int32_t num_lists, heads_per_list;
    int32_t started; /* a compressed key is visible once its first token is, not its last */
    int32_t initial_blocks, local_blocks;
    int32_t max_cmp, max_tiles; /* of the longest sequence */
    /* Of q, k and v, of k_cmp and v_cmp, and of a list of indices: through all batch entries, and with those that no
     * sequence uses. */
    int64_t rows, cmp_rows, tiles;
    float scale;
} sac_nsa_args;

SAC_FN int32_t *sac_nsa_slots(const sac_nsa_args *args, const sac_nsa_indices *indices, int32_t b,
                              int32_t list, int32_t tile) {
    int64_t t = (args->cu_tiles ? args->cu_tiles[b] : 0) + (int64_t)tile;
    return indices->data + b * indices->batch_stride + list * indices->list_stride + t * indices->top_k;
}

/* Of all rows, those that sequences have: packed ones behind the last sequence may hold anything. */
SAC_FN int64_t sac_nsa_used_rows(const sac_nsa_args *args) {
    return args->len.cu_seqlens ? args->len.cu_seqlens[args->batch] : args->rows;
}

/* Blocks [0, n) are candidates of a tile whose last query is `last`: they have a score. */
SAC_FN int32_t sac_nsa_candidates(const sac_nsa_args *args, int32_t last, int32_t seqlen) {
    return sac_min(seqlen / args->block, args->started ? last / args->block + 1 : (last + 1) / args->block);
}

/* Are the denominators of the scores those of the compressed branch, once it has been computed? Only where each query
 * is scored by itself: its candidates are then what it sees. */
SAC_FN int sac_nsa_lse_serves(const sac_nsa_args *args) {
    return args->score == SAC_NSA_PROBABILITIES && args->query_tile == 1 && !args->compressed_indices.top_k;
}

/* Is block j, at or before the last query's own, selected whatever its score? */
SAC_FN int sac_nsa_forced(const sac_nsa_args *args, int32_t j, int32_t last, int32_t candidates) {
    return j >= candidates || j < args->initial_blocks || j > last / args->block - args->local_blocks;
}

#endif
