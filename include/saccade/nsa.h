/* saccade/nsa.h - native sparse attention (Yuan et al., arXiv 2502.11089): compress, score, select, three branches,
 * gate; forward and backward, dense or packed, any length.
 *
 *   out = g_cmp * O_cmp + g_slc * O_slc + g_win * O_win
 *
 * Causal self-attention: q (B, N, H, D), k (B, N, Hkv, D), v (B, N, Hkv, Dv), or packed (T, H, D) with cu_seqlens.
 * Packed rows behind the last sequence may hold anything: they get out = 0, lse = -inf and no gradient.
 *   compress  K_cmp, V_cmp: the mean of each whole block of l tokens (floor(N / l) a sequence), summed in fp32, then
 *             times w_k (Hkv, D, D), w_v (Hkv, Dv, Dv) when given: K_cmp[h] w_k[h]
 *   score     each compressed block for each tile of query_tile queries:
 *               LOGITS         per head, the mean over the tile's queries of scale * q . K_cmp
 *               PROBABILITIES  per head, softmax(scale * q . K_cmp) over the candidates, averaged over the tile's
 *                              queries
 *             summed over the heads of a group when they share one selection
 *   select    the top_k blocks per (b, head or group, tile), in ascending order. Candidates are the blocks complete at
 *             the tile's last query (STARTED: those that start at or before it); the block that this query lies in is
 *             always selected when it is no candidate, and counts in top_k. Ties go to the lower index, NaN and -inf
 *             never win, fewer candidates give fewer blocks.
 *   attend    O_cmp over the compressed keys, O_slc over exactly the chosen blocks with j <= i, O_win over
 *             0 <= i - j < window
 *   gate      sigmoid(q . w_gate), w_gate (H, 3, D), branches in the order cmp, slc, win; or gates (B, N, H, 3) as they
 *             are; or 1/3 each
 *
 * Causality. With COMPLETE visibility (the default) and query_tile 1, outputs up to t depend on nothing after t, bit
 * for bit. With a larger tile the choice of blocks looks at its whole tile: outputs of every tile that ends at or
 * before t do not depend on what follows; within a tile only the choice does, never a value. STARTED, the original
 * system's rule, lets a query see the mean of a block that has merely started: up to l - 1 future tokens leak into it.
 *
 * The selection is not differentiated.
 *
 *     saccade_nsa_tensors t = {.q = q, .k = k, .v = v, .w_gate = w_gate,                       (inputs)
 *         .k_cmp = k_cmp, .v_cmp = v_cmp, .indices = indices,                                  (saved)
 *         .lse_cmp = lse_cmp, .lse_slc = lse_slc, .lse_win = lse_win};
 *     saccade_nsa_params params = {.query_tile = 64};
 *     saccade_nsa_forward(ctx, &t, out, &params);
 *     saccade_nsa_backward(ctx, &t,
 *         &(saccade_nsa_grads){.dout = dout, .dq = dq, .dk = dk, .dv = dv, .dw_gate = dw_gate}, &params);
 */
#ifndef SACCADE_NSA_H
#define SACCADE_NSA_H

#include <saccade/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum saccade_nsa_score {
    SACCADE_NSA_SCORE_DEFAULT = 0, /* PROBABILITIES for query_tile 1, else LOGITS */
    SACCADE_NSA_LOGITS = 1,
    SACCADE_NSA_PROBABILITIES = 2,
} saccade_nsa_score;

typedef enum saccade_nsa_select_per {
    SACCADE_NSA_SELECT_DEFAULT = 0, /* GROUP with PROBABILITIES, HEAD with LOGITS */
    SACCADE_NSA_PER_HEAD = 1,
    SACCADE_NSA_PER_GROUP = 2,
} saccade_nsa_select_per;

typedef enum saccade_nsa_visibility {
    SACCADE_NSA_COMPLETE = 0, /* query i sees block j iff (j + 1) l - 1 <= i */
    SACCADE_NSA_STARTED = 1,  /* iff j l <= i */
} saccade_nsa_visibility;

/* Zero is the default of every field, and NULL, where a call takes params, all of them. */
typedef struct saccade_nsa_params {
    bool has_scale; /* false: 1 / sqrt(D) */
    float scale;
    int32_t block;      /* l, tokens a compressed key; 0: 64 */
    int32_t top_k;      /* 0: 16 */
    int32_t window;     /* 0: 512 */
    int32_t query_tile; /* 1 to 256; 0: 256 */
    saccade_nsa_score score;
    saccade_nsa_select_per select_per;
    saccade_nsa_visibility visibility;
    int32_t initial_blocks; /* always selected, from the first block on; counted in top_k */
    int32_t local_blocks;   /* always selected, back from the tile's last query; counted in top_k */
    /* k > 0: the compressed branch visits only the k best of each tile's 128-wide blocks of compressed keys, scores
     * averaged over each; 0: all. */
    int32_t compressed_top_k;
    const DLTensor *cu_seqlens; /* (B + 1,) int32: packed */
    int32_t max_seqlen;         /* from here on as in saccade_attention_params */
    bool deterministic;
    const char *backend;
    void *workspace;
    size_t workspace_bytes;
} saccade_nsa_params;

/* What goes in, and what the forward saves for the backward. dtype is that of q but where said. */
typedef struct saccade_nsa_tensors {
    const DLTensor *q, *k, *v;
    const DLTensor *w_k, *w_v;      /* or NULL */
    const DLTensor *w_gate, *gates; /* one of them, or neither */

    /* (B, floor(N / l), Hkv, D) and Dv, or packed (floor(T / l), Hkv, D): sequences follow each other. */
    DLTensor *k_cmp, *v_cmp;
    /* int32 (B, H or Hkv, ceil(N / query_tile), top_k), -1 where there is no block; packed (H or Hkv,
     * floor(T / query_tile) + B, top_k): the tiles of the sequences follow each other. */
    DLTensor *indices;
    DLTensor *lse_cmp, *lse_slc, *lse_win; /* fp32 (B, H, N) or (H, T) */
    /* Like out: O_cmp, O_slc and O_win, before the gate. Each may be NULL: the backward then makes it again, which
     * takes the time of that branch's forward instead of the memory. */
    DLTensor *out_cmp, *out_slc, *out_win;
} saccade_nsa_tensors;

/* Writes out (like q with Dv) and the saved tensors of t, each of which may be NULL when no backward follows.
 * Errors and asynchrony as for saccade_attention_forward. */
SACCADE_API saccade_status saccade_nsa_forward(saccade_context *ctx, const saccade_nsa_tensors *t,
                                               DLTensor *out, const saccade_nsa_params *params);

typedef struct saccade_nsa_grads {
    const DLTensor *dout;
    DLTensor *dq, *dk, *dv; /* like q, k, v; each may be NULL */
    /* fp32, shaped like w_k, w_v, w_gate and gates; NULL: not wanted. */
    DLTensor *dw_k, *dw_v, *dw_gate, *dgates;
} saccade_nsa_grads;

/* Gradients of the forward call with the same inputs and params, whose saved tensors are given. On the host indices
 * that no forward gives are INVALID_ARGUMENT; on a GPU they are trusted. Other errors and asynchrony as for the
 * forward. */
SACCADE_API saccade_status saccade_nsa_backward(saccade_context *ctx, const saccade_nsa_tensors *t,
                                                const saccade_nsa_grads *grads,
                                                const saccade_nsa_params *params);

/* Bytes of workspace of the forward (grads NULL) or backward. Data pointers are not looked at: tensors may be without
 * data, and are taken for aligned to 16 bytes. Errors: INVALID_ARGUMENT, UNSUPPORTED. */
SACCADE_API saccade_status saccade_nsa_workspace(saccade_context *ctx, const saccade_nsa_tensors *t,
                                                 const saccade_nsa_grads *grads,
                                                 const saccade_nsa_params *params, size_t *bytes);

/* ---- the stages by themselves, with the same tensors and params ----
 *
 * For whoever composes them otherwise. Errors and asynchrony as for the whole; a tensor that a stage reads or writes
 * must be there, the others of t may be NULL but q, k and v. None needs more workspace than the forward. */

/* Writes k_cmp and v_cmp. */
SACCADE_API saccade_status saccade_nsa_compress(saccade_context *ctx, const saccade_nsa_tensors *t,
                                                const saccade_nsa_params *params);
/* Reads q and k_cmp; writes scores (like indices, with floor(N / l) in place of top_k; packed: the longest sequence's)
 * fp32, -inf for blocks that are no candidates. */
SACCADE_API saccade_status saccade_nsa_score_blocks(saccade_context *ctx, const saccade_nsa_tensors *t,
                                                    DLTensor *scores, const saccade_nsa_params *params);
/* Reads q and k_cmp; writes indices. */
SACCADE_API saccade_status saccade_nsa_select(saccade_context *ctx, const saccade_nsa_tensors *t,
                                              const saccade_nsa_params *params);
/* out = the gated sum of three branches' outputs, each like out. Reads q where there is a w_gate. */
SACCADE_API saccade_status saccade_nsa_gate(saccade_context *ctx, const saccade_nsa_tensors *t,
                                            const DLTensor *out_cmp, const DLTensor *out_slc,
                                            const DLTensor *out_win, DLTensor *out,
                                            const saccade_nsa_params *params);

#ifdef __cplusplus
}
#endif
#endif
