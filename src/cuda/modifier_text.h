/* modifier_text.h - a call's modifiers as the one text that kernels include as <modifiers.h>. */
#ifndef SAC_CUDA_MODIFIER_TEXT_H
#define SAC_CUDA_MODIFIER_TEXT_H

#include "base/attention_call.h"

/* *text NULL when the call has none; the caller frees it. */
saccade_status sac_cuda_modifier_text(const sac_attention_call *call, char **text);

#endif
