/* dense_band.h - band rules by their definitions, pair by pair: what visibility.h and tile_walk.h must agree with. */
#ifndef TEST_DENSE_BAND_H
#define TEST_DENSE_BAND_H

#include <stdbool.h>
#include <stdio.h>

#include "shared/visibility.h"

static inline bool dense_band_sees(const sac_band_rule *rule, int32_t nq, int32_t nk, int32_t i, int32_t j) {
    int32_t shift = nk - nq, position = i + (rule->window_align == SAC_BOTTOM_RIGHT ? shift : 0);
    if (rule->compress) /* key j stands for tokens j*l .. j*l + l-1 */
        return (rule->compress_started ? j * rule->compress : (j + 1) * rule->compress - 1) <= i;
    if (rule->causal == 1 && j > i) return false;
    if (rule->causal == 2 && j > i + shift) return false;
    if (rule->window_left >= 0 && j < position - rule->window_left) return false;
    return rule->window_right < 0 || j <= position + rule->window_right;
}

/* Every combination of causal rule, window up to 3 either side, and alignment; then compressed keys. Index from 0;
 * false beyond the last. */
static inline bool dense_band_rule(int index, sac_band_rule *rule) {
    enum { SIDES = 5, WINDOWS = SIDES * SIDES * 2, BANDS = 3 * WINDOWS, COMPRESSED = 8 };
    if (index >= BANDS + COMPRESSED) return false;
    *rule = (sac_band_rule){.window_left = -1, .window_right = -1};
    if (index >= BANDS) {
        rule->compress = 1 + (index - BANDS) / 2;
        rule->compress_started = (index - BANDS) % 2;
        return true;
    }
    rule->causal = index / WINDOWS;
    rule->window_align = index % 2;
    rule->window_left = index / 2 % SIDES - 1;
    rule->window_right = index / 2 / SIDES % SIDES - 1;
    return true;
}

static inline const char *dense_band_text(char text[128], const sac_band_rule *rule, int32_t nq, int32_t nk) {
    snprintf(text, 128, "causal %d, window (%d, %d) %s, compress %d %s, Nq %d, Nk %d", rule->causal,
             rule->window_left, rule->window_right, rule->window_align ? "bottom_right" : "top_left",
             rule->compress, rule->compress_started ? "started" : "complete", nq, nk);
    return text;
}

#endif
