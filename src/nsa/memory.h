/* memory.h - how a call's workspace is divided, and the attention calls of the branches over it. */
#ifndef SAC_NSA_MEMORY_H
#define SAC_NSA_MEMORY_H

#include "nsa/nsa.h"

/* Views are contiguous. What only one direction needs has no data in the other. */
typedef struct sac_nsa_memory {
    sac_nsa_job job; /* the call's args, with nothing left without data */
    int32_t *cu_cmp, *cu_tiles;
    void *scratch;                             /* of the stages, one after the other */
    void *lists[SAC_NSA_NUM_BRANCHES];         /* of a sparse one; backward: all the same, like the next */
    sac_view branch_out[SAC_NSA_NUM_BRANCHES]; /* the call's; else, backward, one for all in turn */
    /* One for all in turn: */
    sac_view branch_dout;   /* where some branch's attention goes back from it, */
    sac_row_view gated_lse; /* and where some takes these in its place: (H, rows) */
    float *delta;
    sac_nsa_gate_values dgates;
    sac_nsa_query_grads queries;
    sac_nsa_key_grads keys, values;
    void *backend; /* the backend's own workspace, likewise */
    size_t backend_bytes;
    size_t bytes; /* in all */
} sac_nsa_memory;

/* base NULL: only the sizes are meant, and nothing behind a pointer may be touched. */
sac_nsa_memory sac_nsa_divide(saccade_context *ctx, const sac_nsa_call *call, void *base);

/* Is this branch's attention confined to chosen blocks? */
bool sac_nsa_is_sparse(const sac_nsa_args *args, sac_nsa_branch branch);

/* Does the branch's attention go back from dout itself, its gate in the lse (sac_nsa_gate_grads)? */
bool sac_nsa_folds_gate(const sac_nsa_call *call, const sac_nsa_memory *memory, sac_nsa_branch branch);

/* The attention call of one branch. Gradients are left out. */
sac_attention_call sac_nsa_branch_call(const sac_nsa_call *call, const sac_nsa_memory *memory,
                                       sac_nsa_branch branch);

/* The gated sum of all of them; points into `memory`. */
sac_attention_sum sac_nsa_branch_sum(const sac_nsa_call *call, const sac_nsa_memory *memory);

#endif
