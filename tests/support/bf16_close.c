/* bf16_close.c - results of sums made in another order. */
#include "support/bf16_close.h"

#include <math.h>
#include <string.h>

#include "support/cmocka_all.h"

static float bf16_value(uint16_t bits) {
    const uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

void test_bf16_close(const char *what, const char *name, const uint16_t *got, const uint16_t *expected,
                     size_t count) {
    float largest = 0;
    for (size_t e = 0; e < count; e++) largest = fmaxf(largest, fabsf(bf16_value(expected[e])));
    for (size_t e = 0; e < count; e++) {
        const float x = bf16_value(got[e]), y = bf16_value(expected[e]);
        if (!(fabsf(x - y) <= 0x1p-7f * fabsf(y) + 1e-4f * largest))
            fail_msg("%s: %s at %zu is %.9g, not %.9g, the largest %g", what, name, e, (double)x, (double)y,
                     (double)largest);
    }
}
