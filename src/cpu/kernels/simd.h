/* simd.h - the vectors that the kernels are written in: one meaning on every instruction set.
 *
 * Arithmetic is the compiler's own on vector types (a * b + c becomes one FMA where there is one); this file adds
 * what the language lacks. A vec is LANES fp32 values. NaN goes through vexp2 and vtanh, and comes out of
 * vmax(a, b) and vmin(a, b) if b is NaN.
 */
#ifndef SAC_CPU_KERNELS_SIMD_H
#define SAC_CPU_KERNELS_SIMD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

/* Asks for a cache line of the second cache. A function that does nothing else has no effect in the eyes of gcc 12,
 * which drops its calls: the empty statement is one. */
INLINE void prefetch_line(const void *p) {
    __builtin_prefetch(p, 0, 2);
    __asm__ volatile("");
}

INLINE vec vload(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void vstore(float *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE ivec iload(const int32_t *p) {
    ivec v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE ivec iset(int32_t x) { return (ivec){0} + x; }
INLINE vec vselect(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }
INLINE vec vzero_where(ivec mask, vec x) { return (vec)(~mask & (ivec)x); }
INLINE vec vabs(vec x) { return (vec)((ivec)x & 0x7fffffff); }
INLINE vec vcopysign(vec x, vec sign) { return (vec)((ivec)x | ((ivec)sign & INT32_MIN)); } /* x >= 0 */

#if defined(__AVX512F__)
INLINE vec vset(float x) { return _mm512_set1_ps(x); }
INLINE vec vmax(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec vmin(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec vround(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec vfrom_int(ivec x) { return _mm512_cvtepi32_ps((__m512i)x); }
INLINE vec vscale2(vec x, vec n) { return _mm512_scalef_ps(x, n); }
#define EXP2_FLOOR -160.f
#elif defined(__AVX2__)
INLINE vec vset(float x) { return _mm256_set1_ps(x); }
INLINE vec vmax(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec vmin(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec vround(vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec vfrom_int(ivec x) { return _mm256_cvtepi32_ps((__m256i)x); }
INLINE vec vscale2(vec x, vec n) { return x * (vec)(((ivec)_mm256_cvtps_epi32(n) + 127) << 23); }
#define EXP2_FLOOR -127.f /* the shifted exponent is then 0: a factor of exactly 0 */
#else
INLINE vec vset(float x) { return (vec){x, x, x, x}; }
INLINE vec vmax(vec a, vec b) { return vselect(a > b, a, b); }
INLINE vec vmin(vec a, vec b) { return vselect(a < b, a, b); }
INLINE vec vround(vec x) { /* exact below 2^22; nothing larger gets here */
    const vec magic = vset(12582912.f);
    return (x + magic) - magic;
}
INLINE vec vfrom_int(ivec x) { return __builtin_convertvector(x, vec); }
INLINE vec vscale2(vec x, vec n) { return x * (vec)((__builtin_convertvector(n, ivec) + 127) << 23); }
#define EXP2_FLOOR -127.f
#endif

/* a b - c, rounded once: near-equal large numbers may meet there. */
#if defined(__FMA__) || !defined(__x86_64__)
INLINE vec vmultiply_subtract(vec a, vec b, vec c) { return a * b - c; }
#else
/* Without an FMA the product's rounding error is found by splitting the factors in halves, whose products are exact
 * (Dekker). It is not a number where a is infinite; the product then needs no correction. */
INLINE vec vmultiply_subtract(vec a, vec b, vec c) {
    const vec a_high = a * 4097 - (a * 4097 - a), a_low = a - a_high;
    const vec b_high = b * 4097 - (b * 4097 - b), b_low = b - b_high;
    const vec product = a * b, difference = product - c;
    const vec error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
    return vselect(error == error, difference + error, difference);
}
#endif

/* sum + a b. With `pairs` each lane holds two bf16 values, and both products are added. */
#if defined(__AVX512BF16__)
enum { HAVE_PAIRS = 1 };
INLINE vec vmultiply_add(bool pairs, vec sum, vec a, vec b) {
    return pairs ? (vec)_mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b) : sum + a * b;
}
/* Lanes of pairs: `low` in the lower halves, `high` in the upper ones. */
INLINE vec vpair(vec low, vec high) {
    const __m512i order = (__m512i)(__v32hi){0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (vec)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
/* Two vectors one after the other, as 2 * LANES bf16. */
INLINE vec vnarrow(vec first, vec second) { return (vec)_mm512_cvtne2ps_pbh(second, first); }
#else
enum { HAVE_PAIRS = 0 };
INLINE vec vmultiply_add(bool pairs, vec sum, vec a, vec b) {
    (void)pairs;
    return sum + a * b;
}
INLINE vec vpair(vec low, vec high) { /* never asked for without HAVE_PAIRS */
    (void)high;
    return low;
}
INLINE vec vnarrow(vec first, vec second) {
    (void)second;
    return first;
}
#endif

#if defined(__AMX_BF16__)
enum { HAVE_TILES = 1 }; /* products of pairs are made of tiles */
#else
enum { HAVE_TILES = 0 };
#endif

/* 2^x to 1e-7 relative for x <= 127, exactly 0 where fp32 has no normal number left. 2^x = 2^n 2^r, n an integer and
 * |r| <= 1/2; the polynomial has the least largest relative error among those of its degree with p(0) = 1. */
INLINE vec vexp2(vec x) {
    x = vmax(vset(EXP2_FLOOR), x);
    vec n = vround(x), r = x - n;
    vec p = vset(0.00132647f);
    p = p * r + vset(0.00967151f);
    p = p * r + vset(0.05550734f);
    p = p * r + vset(0.24022242f);
    p = p * r + vset(0.69314698f);
    p = p * r + vset(1.f);
    return vscale2(p, n);
}

/* The same to 3e-6, one degree less: for what is rounded to bf16 afterwards. */
INLINE vec vexp2_coarse(vec x) {
    x = vmax(vset(EXP2_FLOOR), x);
    vec n = vround(x), r = x - n;
    vec p = vset(0.00958285f);
    p = p * r + vset(0.05590643f);
    p = p * r + vset(0.24024099f);
    p = p * r + vset(0.69312419f);
    p = p * r + vset(1.f);
    return vscale2(p, n);
}

/* tanh to 1.2e-7 relative: an odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel. */
INLINE vec vtanh(vec x) {
    const vec two_log2e = vset(2.885390082f);
    vec size = vmin(vset(16.f), vabs(x)), z = x * x;
    vec far = vset(1.f) - vset(2.f) / (vexp2(size * two_log2e) + vset(1.f));
    vec p = vset(-0.00570499f);
    p = p * z + vset(0.02063909f);
    p = p * z + vset(-0.05373971f);
    p = p * z + vset(0.13331442f);
    p = p * z + vset(-0.33333282f);
    vec near = x + x * (z * p);
    return vselect(size < vset(0.625f), near, vcopysign(far, x));
}

/* Transposes LANES vectors in place: log2(LANES) rounds, each swapping the off-diagonal blocks of twice the size. */
INLINE void vtranspose(vec r[LANES]) {
/* Where lane i of two rows, s apart, comes from: lanes of the first row count from 0, of the second from LANES. */
#define FIRST(i, s) ((i) & (s) ? (i) + LANES - (s) : (i))
#define SECOND(i, s) ((i) & (s) ? (i) + LANES : (i) + (s))
#define FOUR(row, i, s) row(i, s), row(i + 1, s), row(i + 2, s), row(i + 3, s)
#if defined(__AVX512F__)
#define ALL(row, s) FOUR(row, 0, s), FOUR(row, 4, s), FOUR(row, 8, s), FOUR(row, 12, s)
#define SWAP_ALL SWAP(1) SWAP(2) SWAP(4) SWAP(8)
#elif defined(__AVX2__)
#define ALL(row, s) FOUR(row, 0, s), FOUR(row, 4, s)
#define SWAP_ALL SWAP(1) SWAP(2) SWAP(4)
#else
#define ALL(row, s) FOUR(row, 0, s)
#define SWAP_ALL SWAP(1) SWAP(2)
#endif
#define SWAP(s)                                                                                              \
    UNROLL for (int i = 0; i < LANES; i++) {                                                                 \
        if (i & (s)) continue;                                                                               \
        const vec a = r[i], b = r[i + (s)];                                                                  \
        r[i] = __builtin_shufflevector(a, b, ALL(FIRST, s));                                                 \
        r[i + (s)] = __builtin_shufflevector(a, b, ALL(SECOND, s));                                          \
    }
    SWAP_ALL
#undef SWAP
#undef SWAP_ALL
#undef ALL
#undef FOUR
#undef SECOND
#undef FIRST
}

#endif
