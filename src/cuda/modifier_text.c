/* modifier_text.c - score_mod first, then mask_mod. */
#include "cuda/modifier_text.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "mod/modifier.h"

saccade_status sac_cuda_modifier_text(const sac_attention_call *call, char **text) {
    char *score = NULL, *mask = NULL;
    *text = NULL;
    saccade_status status = call->score_mod ? sac_modifier_device_text(call->score_mod, &score) : SACCADE_OK;
    if (status == SACCADE_OK && call->mask_mod) status = sac_modifier_device_text(call->mask_mod, &mask);
    if (status == SACCADE_OK && (score || mask) &&
        asprintf(text, "%s%s", score ? score : "", mask ? mask : "") < 0) {
        *text = NULL;
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "modifiers: their device text");
    }
    free(score);
    free(mask);
    return status;
}
