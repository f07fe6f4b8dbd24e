/* nsa_check.h - from the caller's tensors and parameters to a checked call of native sparse attention. */
#ifndef SAC_API_NSA_CHECK_H
#define SAC_API_NSA_CHECK_H

#include <saccade/backend.h>
#include <saccade/nsa.h>

#include "nsa/nsa.h"

typedef enum sac_nsa_purpose {
    SAC_NSA_FOR_FORWARD,  /* saved tensors are optional and written */
    SAC_NSA_FOR_BACKWARD, /* saved tensors are needed */
    SAC_NSA_FOR_STAGE,    /* the stage checks what it needs */
} sac_nsa_purpose;

typedef struct sac_nsa_inputs {
    const saccade_nsa_tensors *t;
    DLTensor *out;                  /* forward */
    const saccade_nsa_grads *grads; /* backward */
    const saccade_nsa_params *params;
    sac_nsa_purpose purpose;
    bool shapes_only;
} sac_nsa_inputs;

/* Fills everything of the call but the backend and the workspace. */
saccade_status sac_nsa_check(const sac_nsa_inputs *in, sac_nsa_call *call, saccade_request *request);

/* The same, and chooses the backend: a call that lacks its workspace only. */
saccade_status sac_nsa_prepare(saccade_context *ctx, const sac_nsa_inputs *in, sac_nsa_call *call);

#endif
