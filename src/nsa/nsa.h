/* nsa.h - native sparse attention as a composition: the stages of base/nsa_stages.h around three calls of one attention
 * backend. */
#ifndef SAC_NSA_NSA_H
#define SAC_NSA_NSA_H

#include "base/backend.h"
#include "base/nsa_stages.h"

/* A call as api has checked it. Views without data live in the workspace. */
typedef struct sac_nsa_call {
    sac_nsa_args args;
    sac_attention_call whole; /* q, k, v and out, or dout, dq, dk, dv: as of one dense causal call */
    const sac_backend *backend[SAC_NSA_NUM_BRANCHES]; /* that attend; all on one device, with one allocator */
    const sac_backend *grad_backend[SAC_NSA_NUM_BRANCHES]; /* that go back; of a backward call only */
    sac_row_view lse[SAC_NSA_NUM_BRANCHES];
    sac_view branch_out[SAC_NSA_NUM_BRANCHES]; /* kept from forward to backward; no data: made again */
    float *dw_k, *dw_v, *dw_gate;              /* fp32, contiguous; NULL: not wanted */
    sac_nsa_gate_values dgates;                /* of given gates */
    bool backward;
    bool dout_unaligned;      /* the backends were chosen without looking at it */
    bool sums;                /* the branches attend as one weighted sum (sac_nsa_sums) */
    int32_t kv_heads_at_once; /* as many share a workspace at a time; 0: by the size of the call */
    void *workspace;
} sac_nsa_call;

/* Does the branch walk lists that several tiles of queries share? Its backend must know how. */
bool sac_nsa_shares_lists(saccade_context *ctx, const sac_nsa_call *call, sac_nsa_branch branch);

/* Do the branches attend as one weighted sum, so that their outputs need no memory? Of a call with its backends. */
bool sac_nsa_sums(saccade_context *ctx, const sac_nsa_call *call);

/* The stages on tensors of this device. */
const sac_nsa_stages *sac_nsa_stages_on(DLDevice device);

/* Bytes of workspace that the call needs. */
size_t sac_nsa_workspace(saccade_context *ctx, const sac_nsa_call *call);

saccade_status sac_nsa_forward(saccade_context *ctx, const sac_nsa_call *call);
saccade_status sac_nsa_backward(saccade_context *ctx, const sac_nsa_call *call);

#endif
