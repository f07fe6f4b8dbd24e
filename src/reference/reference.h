/* reference.h - the passes of backend "reference": fp64, straightforward, forward and backward. */
#ifndef SAC_REFERENCE_REFERENCE_H
#define SAC_REFERENCE_REFERENCE_H

#include "base/backend.h"

extern const sac_backend sac_reference_backend;

/* Compiles the modifiers where that has not been done. */
saccade_status sac_reference_ready(saccade_context *ctx, const sac_attention_call *call, bool with_grad);

size_t sac_reference_workspace(saccade_context *ctx, const sac_attention_call *call, bool backward);
saccade_status sac_reference_forward(saccade_context *ctx, const sac_attention_call *call);
saccade_status sac_reference_backward(saccade_context *ctx, const sac_attention_call *call);

#endif
