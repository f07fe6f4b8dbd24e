/* memory.h - how a call's workspace is divided, and the attention calls of the branches over it. */
#ifndef SAC_NSA_MEMORY_H
#define SAC_NSA_MEMORY_H

#include "nsa/nsa.h"

/* Views are contiguous. What only one direction needs has no data in the other. */
typedef struct sac_nsa_memory {
    sac_nsa_args args; /* the call's, with nothing left without data */
    int32_t *cu_cmp, *cu_tiles;
    float *scratch;                            /* of select */
    sac_view branch_out[SAC_NSA_NUM_BRANCHES]; /* backward: all the same, one branch after the other */
    int64_t *offsets;                          /* of the branch at work */
    int32_t *entries;
    void *backend; /* the backend's own workspace */
    size_t backend_bytes;
    sac_view branch_dout, dq, dk, dv; /* of the branch at work */
    sac_view dk_cmp, dv_cmp;
    float *dq_sum, *dk_sum, *dv_sum; /* (rows, H, D), (rows, Hkv, D), (rows, Hkv, Dv) */
    size_t bytes;                    /* in all */
} sac_nsa_memory;

/* base NULL: only the sizes are meant, and nothing behind a pointer may be touched. */
sac_nsa_memory sac_nsa_divide(saccade_context *ctx, const sac_nsa_call *call, void *base);

/* The attention call of one branch, its lists made if it is sparse. Gradients are left out. */
sac_attention_call sac_nsa_branch_call(const sac_nsa_call *call, const sac_nsa_memory *memory,
                                       sac_nsa_branch branch);

/* Makes the lists that this branch walks, where it is sparse. */
void sac_nsa_make_lists(const sac_nsa_memory *memory, sac_nsa_branch branch);

#endif
