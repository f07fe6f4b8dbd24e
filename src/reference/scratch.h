/* scratch.h - how the reference divides its workspace, and what it clears before it computes. */
#ifndef SAC_REFERENCE_SCRATCH_H
#define SAC_REFERENCE_SCRATCH_H

#include "base/context.h"
#include "reference/row.h"

/* Threads that share the work; one when gradients of aux tensors are wanted, since any row may add to any
 * element. */
int sac_reference_threads(const saccade_context *ctx, const sac_attention_call *call);

/* Doubles of workspace before the threads' own: dsink (B, H), then each wanted aux gradient. */
size_t sac_reference_shared_doubles(const sac_attention_call *call);

/* The part of the workspace that belongs to one thread. */
sac_reference_scratch sac_reference_scratch_of(const sac_attention_call *call, int thread);

/* Writes 0 to every row of a tensor, padding and unused rows included. view->data may be NULL. */
void sac_reference_clear(const sac_attention_call *call, const sac_view *view, int32_t num_heads,
                         int32_t head_dim, const sac_lengths *len, int64_t total_rows);
/* The same with -inf, for lse. */
void sac_reference_clear_lse(const sac_attention_call *call);

#endif
