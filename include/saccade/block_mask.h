/* saccade/block_mask.h - which blocks of keys each block of queries visits.
 *
 * For each (b, h, query block) a block mask lists key blocks, in ascending order, each of one kind:
 *   FULL      every pair is visible: the kernel skips the mask_mod
 *   PARTIAL   the mask_mod decides each pair
 *   DIAGONAL  at most one key a row: kv_idx - q_idx is a multiple of the mask's period (Eagle3's later rounds);
 *             exchanged with other systems as PARTIAL
 * and, for the backward pass, the transpose: for each key block its query blocks. Blocks of q_block x kv_block
 * may be rectangular; a call's kernels choose their tiles independently of them. Memory is proportional to the
 * listed blocks. Rows and columns beyond q_len and kv_len are never visible: a block cut short by them is FULL
 * when all the pairs that it has are visible.
 *
 *     saccade_block_mask *causal, *documents, *mask;
 *     saccade_mask_shape shape = {.q_len = 8192, .kv_len = 8192};
 *     saccade_block_mask_causal(ctx, &causal, &shape, false);
 *     saccade_block_mask_documents(ctx, &documents, &shape, lengths, num_documents);
 *     saccade_block_mask_and(ctx, &mask, causal, documents);
 *     saccade_attention_forward(ctx, q, k, v, out, NULL, &(saccade_attention_params){.block_mask = mask});
 *
 * A mask built here carries the mask_mod that decides its PARTIAL blocks, with its own copy of what that reads; one
 * that was imported, or made from chosen blocks, carries none, and the call's own mask_mod decides. Batch and heads
 * of the shape may be 1 and then serve any; builders whose rule does not look at them keep one list for all.
 *
 * Masks never change once built: threads may share them. Every builder gives a new mask, to be destroyed by the
 * caller, or fails and leaves the pointer alone: INVALID_ARGUMENT (named in saccade_last_error), OUT_OF_MEMORY,
 * COMPILE_FAILED (a mask_mod's text). Lengths and blocks are at most 2^29 tokens.
 */
#ifndef SACCADE_BLOCK_MASK_H
#define SACCADE_BLOCK_MASK_H

#include <saccade/context.h>
#include <saccade/modifier.h>
#include <saccade/tensor.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct saccade_block_mask saccade_block_mask;

typedef enum saccade_block_kind {
    SACCADE_PARTIAL = 1,
    SACCADE_FULL = 2,
    SACCADE_DIAGONAL = 3
} saccade_block_kind;

/* The rectangle of pairs that a mask speaks of. */
typedef struct saccade_mask_shape {
    int32_t batch, num_heads;  /* 0 or 1: broadcast */
    int32_t q_len, kv_len;     /* tokens */
    int32_t q_block, kv_block; /* tokens; 0: 128 */
} saccade_mask_shape;

/* ---- builders ---- */

/* Evaluates the mask_mod on the CPU, once at most for each pair (a block that is found to be PARTIAL is not asked
 * further), on the context's threads, without a dense grid. */
SACCADE_API saccade_status saccade_block_mask_from_mod(saccade_context *ctx, saccade_block_mask **mask,
                                                       const saccade_mask_shape *shape,
                                                       const saccade_bound_modifier *mask_mod);
/* visible (B or 1, H or 1, q_len, kv_len) uint8 on the host, last dimension contiguous; non-zero: visible. The mask
 * keeps a bit for each pair of its PARTIAL blocks, nothing else of the tensor. */
SACCADE_API saccade_status saccade_block_mask_from_dense(saccade_context *ctx, saccade_block_mask **mask,
                                                         const DLTensor *visible, int32_t q_block,
                                                         int32_t kv_block);
/* Analytic: O(listed blocks). bottom_right shifts the diagonal by kv_len - q_len. */
SACCADE_API saccade_status saccade_block_mask_causal(saccade_context *ctx, saccade_block_mask **mask,
                                                     const saccade_mask_shape *shape, bool bottom_right);
/* i - left <= j <= i + right; -1: unbounded. */
SACCADE_API saccade_status saccade_block_mask_window(saccade_context *ctx, saccade_block_mask **mask,
                                                     const saccade_mask_shape *shape, int32_t left,
                                                     int32_t right, bool bottom_right);
/* Packed documents: query and key must lie in the same one. lengths (num_documents) sums to q_len == kv_len. */
SACCADE_API saccade_status saccade_block_mask_documents(saccade_context *ctx, saccade_block_mask **mask,
                                                        const saccade_mask_shape *shape,
                                                        const int32_t *lengths, int32_t num_documents);
/* kv_idx < prefix[b] || q_idx >= kv_idx. prefix (shape->batch). */
SACCADE_API saccade_status saccade_block_mask_prefix_lm(saccade_context *ctx, saccade_block_mask **mask,
                                                        const saccade_mask_shape *shape,
                                                        const int32_t *prefix);
/* |q_idx - kv_idx| <= reach * step and (q_idx - kv_idx) % step == 0. */
SACCADE_API saccade_status saccade_block_mask_dilated(saccade_context *ctx, saccade_block_mask **mask,
                                                      const saccade_mask_shape *shape, int32_t reach,
                                                      int32_t step);
/* q_idx / q_size == kv_idx / kv_size. */
SACCADE_API saccade_status saccade_block_mask_block_diagonal(saccade_context *ctx, saccade_block_mask **mask,
                                                             const saccade_mask_shape *shape, int32_t q_size,
                                                             int32_t kv_size);
/* Eagle3 draft training (arXiv 2503.01840), kv_len = rounds * q_len: visible iff (kv < q_len && q >= kv) ||
 * (kv >= q_len && (kv - q) % q_len == 0). lengths (shape->batch) or NULL adds the older per-batch bound:
 * causal part also kv < len && q < len, later rounds also kv % q_len < len. Analytic when q_len % q_block,
 * kv_len % kv_block, q_block % kv_block and kv_len % q_len are all 0; otherwise the general builder. */
SACCADE_API saccade_status saccade_block_mask_eagle3(saccade_context *ctx, saccade_block_mask **mask,
                                                     const saccade_mask_shape *shape, const int32_t *lengths);
/* Chosen blocks: indices (B or 1, H or 1, query blocks, top_k) int32 on the host, ascending; -1, in any place, is
 * none. kind FULL, or PARTIAL with a mask_mod given at the call. */
SACCADE_API saccade_status saccade_block_mask_from_indices(saccade_context *ctx, saccade_block_mask **mask,
                                                           const saccade_mask_shape *shape,
                                                           const DLTensor *indices, saccade_block_kind kind);

/* Both, either, the opposite: what building it from the combined rule would list. a and b have the same q_len
 * and kv_len; batch and heads broadcast; where the block sizes differ, one divides the other along each axis
 * and the result has the finer. A mask with PARTIAL blocks that carries no mask_mod does not combine. At most
 * SACCADE_MAX_AUX tensors may be read by all the rules together: most masks here read one, from_dense and masks
 * of chosen blocks five. */
SACCADE_API saccade_status saccade_block_mask_and(saccade_context *ctx, saccade_block_mask **mask,
                                                  const saccade_block_mask *a, const saccade_block_mask *b);
SACCADE_API saccade_status saccade_block_mask_or(saccade_context *ctx, saccade_block_mask **mask,
                                                 const saccade_block_mask *a, const saccade_block_mask *b);
SACCADE_API saccade_status saccade_block_mask_not(saccade_context *ctx, saccade_block_mask **mask,
                                                  const saccade_block_mask *a);

/* Reference counted. NULL is fine. */
SACCADE_API void saccade_block_mask_destroy(saccade_block_mask *mask);

/* ---- looking at a mask ---- */

typedef struct saccade_block_mask_info {
    saccade_mask_shape shape; /* with every default filled in */
    int32_t num_q_blocks, num_kv_blocks;
    int32_t list_batch, list_heads; /* that have lists of their own: the shape's, or 1 where one serves all */
    int64_t full, partial, diagonal; /* blocks in all of these lists; -1: on a device */
    int32_t period;                  /* of DIAGONAL blocks; 0: none */
    size_t bytes;                    /* memory of the host kept */
} saccade_block_mask_info;
/* Errors: INVALID_ARGUMENT (a NULL). */
SACCADE_API saccade_status saccade_block_mask_get_info(const saccade_block_mask *mask,
                                                       saccade_block_mask_info *info);

/* Is the pair visible? For tests and pictures. Pairs beyond q_len or kv_len are not. Errors: INVALID_ARGUMENT (b, h
 * beyond the mask's; a PARTIAL block of a mask without mask_mod). */
SACCADE_API saccade_status saccade_block_mask_visible(saccade_context *ctx, const saccade_block_mask *mask,
                                                      int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,
                                                      bool *visible);

/* The kind of one block, or 0 when it is not listed, or there is no such block; -1: it cannot be told, since the lists
 * lie on a device (saccade/device_mask.h) or mask is NULL. */
SACCADE_API int32_t saccade_block_mask_kind(const saccade_block_mask *mask, int32_t b, int32_t h,
                                            int32_t q_block_index, int32_t kv_block_index);

/* ---- exchange ---- */

/* PyTorch's BlockMask: *_num_blocks (B, H, rows) int32, *_indices (B, H, rows, columns) int32, padded to full
 * width, on the host, B and H those of the shape. kv_*: rows are query blocks; q_*: rows are key blocks. The plain
 * four list PARTIAL and DIAGONAL blocks, the full_ four FULL ones. Unused tails are zero. */
typedef struct saccade_block_mask_tensors {
    DLTensor *kv_num_blocks, *kv_indices, *full_kv_num_blocks, *full_kv_indices;
    DLTensor *q_num_blocks, *q_indices, *full_q_num_blocks, *full_q_indices;
} saccade_block_mask_tensors;

/* Writes those that are not NULL; errors as for builders. FA4's mask_block_cnt/idx and full_block_cnt/idx are the kv_
 * four. As in PyTorch, a FULL block cut short by q_len or kv_len counts as PARTIAL, unless the mask carries no
 * mask_mod that could say so. */
SACCADE_API saccade_status saccade_block_mask_export(const saccade_block_mask *mask,
                                                     const saccade_block_mask_tensors *tensors);
/* Reads the kv_ four (the full pair may be NULL); a q_ pair that is given must be their transpose. Counts out of
 * range, and among the counted ids holes (-1), ids out of range and repeats, are INVALID_ARGUMENT; order does not
 * matter. */
SACCADE_API saccade_status saccade_block_mask_import(saccade_context *ctx, saccade_block_mask **mask,
                                                     const saccade_mask_shape *shape,
                                                     const saccade_block_mask_tensors *tensors);

#ifdef __cplusplus
}
#endif
#endif
