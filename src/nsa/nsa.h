/* nsa.h - native sparse attention as a composition: the stages of stages.h around three calls of one attention
 * backend. */
#ifndef SAC_NSA_NSA_H
#define SAC_NSA_NSA_H

#include "base/backend.h"
#include "nsa/stages.h"

/* A call as api has checked it. Views without data live in the workspace. */
typedef struct sac_nsa_call {
    sac_nsa_args args;
    sac_attention_call whole;   /* q, k, v and out, or dout, dq, dk, dv: as of one dense causal call */
    const sac_backend *backend; /* of the three branches */
    sac_row_view lse[SAC_NSA_NUM_BRANCHES];
    float *dw_k, *dw_v, *dw_gate, *dgates; /* fp32, contiguous; NULL: not wanted */
    bool backward;
    void *workspace;
} sac_nsa_call;

/* Bytes of workspace that the call needs. */
size_t sac_nsa_workspace(saccade_context *ctx, const sac_nsa_call *call);

saccade_status sac_nsa_forward(saccade_context *ctx, const sac_nsa_call *call);
saccade_status sac_nsa_backward(saccade_context *ctx, const sac_nsa_call *call);

#endif
