/* saccade/attention.h - softmax(scale * q k^T + modifiers, masked) v, forward and backward.
 *
 * Notation: B batch, Nq/Nk query/key length, H query heads, Hkv key/value heads (H % Hkv == 0; each group of
 * H / Hkv query heads shares one), D head_dim of q and k, Dv head_dim of v (both multiples of 8 up to 256).
 *   q (B, Nq, H, D)   k (B, Nk, Hkv, D)   v (B, Nk, Hkv, Dv)   out (B, Nq, H, Dv)   lse (B, H, Nq) fp32
 * or packed, with cu_seqlens: q (Tq, H, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv), out (Tq, H, Dv), lse (H, Tq).
 * bf16, fp16 or fp32 (all alike), accumulated in fp32.
 *
 *     saccade_context *ctx;
 *     saccade_attention_params params = {.causal = SACCADE_CAUSAL_TOP_LEFT};
 *     if (saccade_context_create(&ctx, NULL) != SACCADE_OK ||
 *         saccade_attention_forward(ctx, q, k, v, out, lse, &params) != SACCADE_OK ||
 *         saccade_attention_backward(ctx, q, k, v, out, lse,
 *             &(saccade_attention_grads){.dout = dout, .dq = dq, .dk = dk, .dv = dv}, &params) != SACCADE_OK)
 *         fprintf(stderr, "%s\n", saccade_last_error());
 *     saccade_context_destroy(ctx);
 *
 * What happens to a score, in this order, and what is made of it (i a query, j a key that it sees):
 *   s_ij  = scale * q_i . k_j, softcap (arXiv 2408.00118), ALiBi (arXiv 2108.12409), score_mod
 *   lse_i = log(sum_j exp(s_ij) + exp(sink))          natural logarithm; the sink's term only where there is one
 *   p_ij  = exp(s_ij - lse_i);  out_i = sum_j p_ij v_j
 * and backward, where dscore passes score_mod, softcap and scale in turn (FlashAttention-2, arXiv 2307.08691):
 *   dv_j  = sum_i p_ij dout_i;  dscore_ij = p_ij (dout_i . v_j - delta_i);  delta_i = dout_i . out_i - dlse_i
 *   dq_i  = sum_j dscore_ij k_j;  dk_j = sum_i dscore_ij q_i;  dsink = -sum_i exp(sink - lse_i) delta_i
 * A row without a visible key gives out = 0, lse = -inf, with a sink too, and no gradient; so does one that no sequence
 * uses, whatever it holds. Infinities and NaN in q, k, v and dout show, as one or the other, where these formulas take
 * them, and nowhere else: a hidden pair has no part in anything. Empty tensors are legal.
 */
#ifndef SACCADE_ATTENTION_H
#define SACCADE_ATTENTION_H

#include <saccade/block_mask.h>
#include <saccade/context.h>
#include <saccade/modifier.h>
#include <saccade/tensor.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where position 0 of the queries lies: on key 0 (top_left) or such that the last query lies on the last key
 * (bottom_right). They differ when Nq != Nk. */
typedef enum saccade_align { SACCADE_TOP_LEFT = 0, SACCADE_BOTTOM_RIGHT = 1 } saccade_align;

typedef enum saccade_causal {
    SACCADE_CAUSAL_NONE = 0,
    SACCADE_CAUSAL_TOP_LEFT = 1,     /* j <= i */
    SACCADE_CAUSAL_BOTTOM_RIGHT = 2, /* j <= i + Nk - Nq */
} saccade_causal;

/* Aligned position i sees key j iff i - left <= j <= i + right; -1: unbounded on that side. */
typedef struct saccade_window {
    bool enabled;
    int32_t left, right;
    saccade_align align;
} saccade_window;

/* Zero is the default of every field, and NULL, where a call takes params, all of them. All masks given must hold. */
typedef struct saccade_attention_params {
    bool has_scale; /* false: scale = 1 / sqrt(D) */
    float scale;
    saccade_causal causal;
    saccade_window window;
    float softcap;                /* c > 0: score = c tanh(score / c), before modifiers; 0: none */
    const DLTensor *sink;         /* (H,) fp32: a score that joins each row's sum and has no value */
    const DLTensor *alibi_slopes; /* (H,) or (B, H) fp32: score -= slope * |i + Nk - Nq - j| */
    const DLTensor *cu_seqlens_q; /* (B + 1,) int32, monotone from 0: packed; both or neither */
    const DLTensor *cu_seqlens_k;
    const DLTensor *seqused_q; /* (B,) int32: rows used of each sequence, its Nq and Nk; NULL: all */
    const DLTensor *seqused_k;
    int32_t max_seqlen_q; /* packed, lengths in device memory: a bound of the longest; else may be 0 */
    int32_t max_seqlen_k;
    saccade_bound_modifier score_mod;
    saccade_bound_modifier mask_mod;
    const saccade_block_mask *block_mask; /* made for B or 1, H or 1, Nq, Nk; decides with its own mask_mod */
    float dropout;                        /* refused unless 0 */
    bool deterministic;                   /* gradients bit-identical run to run */
    const char *backend;                  /* pin one by name; NULL: the best usable */
    void *workspace; /* on the call's device, aligned to 64 bytes; NULL: from the context's allocator */
    size_t workspace_bytes; /* at least what saccade_attention_workspace says */
} saccade_attention_params;

/* out and, unless NULL, lse are written.
 * Errors: INVALID_ARGUMENT, UNSUPPORTED (every backend's reasons), OUT_OF_MEMORY, COMPILE_FAILED,
 * DEVICE_ERROR. On INVALID_ARGUMENT and UNSUPPORTED nothing is written.
 * Async on a GPU: on the context's stream; with a workspace given, nothing is allocated, synchronised or read
 * back, so that the call can be captured in a CUDA graph. */
SACCADE_API saccade_status saccade_attention_forward(saccade_context *ctx, const DLTensor *q,
                                                     const DLTensor *k, const DLTensor *v, DLTensor *out,
                                                     DLTensor *lse, const saccade_attention_params *params);

typedef struct saccade_attention_grads {
    const DLTensor *dout;   /* like out */
    const DLTensor *dlse;   /* like lse, or NULL: the loss does not look at lse */
    DLTensor *dq, *dk, *dv; /* like q, k, v; each may be NULL: not wanted. dk, dv are summed over the group */
    DLTensor *dsink;        /* (H,) fp32 or NULL */
    DLTensor *const *daux;  /* (score_mod's num_aux) fp32, entries may be NULL; or NULL. Overwritten */
} saccade_attention_grads;

/* Gradients of the forward call with the same q, k, v and params, whose out and lse are given; those asked for are
 * overwritten. Errors and asynchrony as for the forward. */
SACCADE_API saccade_status saccade_attention_backward(saccade_context *ctx, const DLTensor *q,
                                                      const DLTensor *k, const DLTensor *v,
                                                      const DLTensor *out, const DLTensor *lse,
                                                      const saccade_attention_grads *grads,
                                                      const saccade_attention_params *params);

/* Bytes of workspace that the same call needs. grads NULL: the forward. Tensors may be without data (then taken for
 * aligned to 16 bytes), but those that modifiers read; so max_seqlen, or else the number of tokens, stands for the
 * longest packed sequence.
 * Errors: INVALID_ARGUMENT, UNSUPPORTED. */
SACCADE_API saccade_status saccade_attention_workspace(saccade_context *ctx, const DLTensor *q,
                                                       const DLTensor *k, const DLTensor *v,
                                                       const saccade_attention_grads *grads,
                                                       const saccade_attention_params *params, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
