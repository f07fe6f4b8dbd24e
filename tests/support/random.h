/* random.h - numbers that are the same on every machine and every run. */
#ifndef TEST_RANDOM_H
#define TEST_RANDOM_H

#include <math.h>
#include <stdint.h>

typedef struct test_random {
    uint64_t state;
} test_random;

/* splitmix64 */
static inline uint64_t random_bits(test_random *random) {
    uint64_t z = (random->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In (0, 1). */
static inline double random_unit(test_random *random) {
    return ((double)(random_bits(random) >> 11) + 0.5) * 0x1p-53;
}

static inline double random_normal(test_random *random) {
    double radius = sqrt(-2 * log(random_unit(random)));
    return radius * cos(6.283185307179586 * random_unit(random));
}

static inline int32_t random_below(test_random *random, int32_t n) {
    return (int32_t)(random_bits(random) % (uint64_t)n);
}

#endif
