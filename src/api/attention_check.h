/* attention_check.h - from the caller's tensors and parameters to a checked, resolved call. */
#ifndef SAC_API_ATTENTION_CHECK_H
#define SAC_API_ATTENTION_CHECK_H

#include <saccade/backend.h>

#include "base/attention_call.h"

/* The arguments as the public functions got them. grads NULL: a forward call. */
typedef struct sac_attention_inputs {
    const DLTensor *q, *k, *v;
    const DLTensor *out, *lse;
    const saccade_attention_grads *grads;
    const saccade_attention_params *params;
    bool shapes_only; /* a workspace or backend query: data pointers are not looked at, outputs not needed */
    bool inputs_only; /* outputs are the caller's business */
    bool one_length;  /* cu_seqlens and max_seqlen are the caller's names: one of each for q and k */
} sac_attention_inputs;

/* A tensor's place as (batch, row, head), and one of (B, H, N) or (H, T) rows; packed tensors have no batch dimension.
 * NULL gives a view without data. */
sac_view sac_view_of(const DLTensor *tensor);

/* Does some row of it start at no multiple of 16 bytes? */
bool sac_rows_unaligned(const sac_view *view, int32_t batch, int32_t num_heads, int32_t element_bytes);
sac_row_view sac_row_view_of(const DLTensor *tensor);

/* Checks everything that is wrong whatever the backend, and writes nothing of the caller's. */
saccade_status sac_attention_check(const sac_attention_inputs *in, sac_attention_call *call,
                                   saccade_request *request);

#endif
