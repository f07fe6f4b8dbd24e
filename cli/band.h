/* band.h - the keys that causality and window leave to a query. */
#ifndef BAND_H
#define BAND_H

#include <saccade/attention.h>

typedef struct key_range {
    int64_t begin, end; /* never begin > end */
} key_range;

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Of query i of a sequence with `rows` queries and `keys` keys. */
static inline key_range visible_keys(const saccade_attention_params *p, int64_t i, int64_t rows,
                                     int64_t keys) {
    int64_t shift = keys - rows;
    key_range range = {0, keys};
    if (p->causal)
        range.end = smaller(range.end, i + 1 + (p->causal == SACCADE_CAUSAL_BOTTOM_RIGHT ? shift : 0));
    if (p->window.enabled) {
        int64_t at = i + (p->window.align == SACCADE_BOTTOM_RIGHT ? shift : 0);
        if (p->window.left >= 0) range.begin = larger(range.begin, at - p->window.left);
        if (p->window.right >= 0) range.end = smaller(range.end, at + p->window.right + 1);
    }
    range.begin = smaller(range.begin, keys);
    range.end = larger(range.end, range.begin);
    return range;
}

#endif
