/* attention_call.h - host side of one attention call, checked and resolved: what api hands to a backend.
 *
 * A backend writes every row of its outputs, those of empty sequences and of padding between sequences too (out 0,
 * lse -inf, gradients 0), and sets the gradients of aux tensors to zero before it adds to them.
 */
#ifndef SAC_ATTENTION_CALL_H
#define SAC_ATTENTION_CALL_H

#include <saccade/attention.h>

#include "shared/attention_args.h"

typedef struct sac_attention_call {
    sac_attention_args args;
    DLDevice device;
    const saccade_modifier *score_mod; /* NULL: none; its values are args.score_aux */
    const saccade_modifier *mask_mod;  /* the call's or the block mask's; its values are args.mask_aux */
    /* NULL: none. Its lists in args.blocks are on the host, and so are the values of the mask_mod that it carries,
     * unless it was built on the device. */
    const saccade_block_mask *block_mask;
    int64_t total_q, total_k; /* rows of the packed tensors; batch * seqlen when not packed */
    /* Backward: dk and dv come in parts, as many as a backend's grad_parts has asked for, the p-th p * stride elements
     * behind the first; their sum is the gradient. 0 or 1: in one, and the strides mean nothing. */
    int32_t grad_parts;
    int64_t dk_part_stride, dv_part_stride;
    /* Backward: rowsum(out * dout), (H, total_q), where the caller has it and the backend's takes_delta agrees; out is
     * then not looked at. NULL: the backend makes it. */
    float *delta;
    void *workspace; /* at least what the backend asked for, 64-byte aligned */
    size_t workspace_bytes;
} sac_attention_call;

/* out = the sum over forward calls of weight times output. The calls have the same queries, and lists, if any, for the
 * same blocks of queries; one whose own out has no data does not keep it. */
typedef struct sac_attention_sum {
    sac_attention_call calls[SAC_MAX_SUMMED];
    int num_calls;
    int num_made; /* so many of the first have been made before, and are read from their out */
    sac_view out;
    sac_sum_weights weighted_by;
    /* The same where they are on the host, of so many rows from `row` of q on, of head h: (count, num_calls). */
    void (*weights)(const void *data, int32_t b, int64_t row, int32_t count, int32_t h, float *weights);
    const void *weights_data;
    void *workspace; /* as of a call */
} sac_attention_sum;

#endif
