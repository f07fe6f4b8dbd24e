/* panel.c - conversions and transpositions. None of it is hot: a panel is made once for a tile's whole product. */
#include "cpu/kernels/panel.h"

#include "base/half.h"
#include "shared/types.h"

#if defined(__AVX2__)
static inline void widen8(float *to, const uint16_t *from, int dtype) {
    __m128i half = _mm_loadu_si128((const __m128i *)from);
    __m256 full = dtype == SAC_F16 ? _mm256_cvtph_ps(half)
                                   : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    _mm256_storeu_ps(to, full);
}

/* Rounds to nearest, ties to even; a NaN stays one. */
static inline __m128i bf16_of(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan);
    rounded = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}
static inline void narrow8(uint16_t *to, const float *from, int dtype) {
    __m256 x = _mm256_loadu_ps(from);
    _mm_storeu_si128((__m128i *)to,
                     dtype == SAC_F16 ? _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT) : bf16_of(x));
}
#else
static inline void widen8(float *to, const uint16_t *from, int dtype) {
    for (int i = 0; i < 8; i++)
        to[i] = dtype == SAC_F16 ? sac_float_of_fp16(from[i]) : sac_float_of_bf16(from[i]);
}
static inline void narrow8(uint16_t *to, const float *from, int dtype) {
    for (int i = 0; i < 8; i++)
        to[i] = dtype == SAC_F16 ? sac_fp16_of_float(from[i]) : sac_bf16_of_float(from[i]);
}
#endif

void sac_widen(float *values, const void *source, int dtype, int n) {
    if (dtype == SAC_F32)
        memcpy(values, source, (size_t)n * sizeof(float));
    else if (dtype == SAC_F16)
        for (int i = 0; i < n; i += 8) widen8(values + i, (const uint16_t *)source + i, SAC_F16);
    else
        for (int i = 0; i < n; i += 8) widen8(values + i, (const uint16_t *)source + i, SAC_BF16);
}

void sac_narrow(void *target, const float *values, int dtype, int n) {
    if (dtype == SAC_F32)
        memcpy(target, values, (size_t)n * sizeof(float));
    else if (dtype == SAC_F16)
        for (int i = 0; i < n; i += 8) narrow8((uint16_t *)target + i, values + i, SAC_F16);
    else
        for (int i = 0; i < n; i += 8) narrow8((uint16_t *)target + i, values + i, SAC_BF16);
}

panel sac_panel_copy(const void *rows, int64_t stride, int dtype, bool pairs, int n, int dim, float *room) {
    const int64_t size = dtype == SAC_F32 ? 4 : 2;
    const int words = pairs ? dim / 2 : dim;
    for (int i = 0; i < n; i++) {
        const char *row = (const char *)rows + i * stride * size;
        if (pairs)
            memcpy(room + i * words, row, (size_t)words * sizeof(float));
        else
            sac_widen(room + i * words, row, dtype, dim);
    }
    return (panel){room, words * (ptrdiff_t)sizeof(float)};
}

panel sac_panel_rows(const void *rows, int64_t stride, int dtype, bool pairs, int n, int dim, float *room) {
    if (dtype == SAC_F32 || pairs) return (panel){rows, (ptrdiff_t)(stride * (dtype == SAC_F32 ? 4 : 2))};
    return sac_panel_copy(rows, stride, dtype, pairs, n, dim, room);
}

#if defined(__AVX2__)
static inline void pair8(float *words, const uint16_t *low, const uint16_t *high) {
    const __m256i lower = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)low));
    const __m256i upper = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)high));
    _mm256_storeu_si256((__m256i *)words, _mm256_or_si256(lower, _mm256_slli_epi32(upper, 16)));
}
#else
static inline void pair8(float *words, const uint16_t *low, const uint16_t *high) {
    uint32_t word[8];
    for (int i = 0; i < 8; i++) word[i] = low[i] | (uint32_t)high[i] << 16;
    memcpy(words, word, sizeof word);
}
#endif

#if defined(__AVX512BW__)
enum { PAIRED = 32 }; /* values at once */
static inline void pair_many(float *words, const uint16_t *low, const uint16_t *high) {
    const __m512i first = (__m512i)(__v32hi){0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                             8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i lower = _mm512_loadu_si512(low), upper = _mm512_loadu_si512(high);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    _mm512_storeu_si512(words, _mm512_permutex2var_epi16(lower, first, upper));
    _mm512_storeu_si512(words + 16, _mm512_permutex2var_epi16(lower, second, upper));
}
#else
enum { PAIRED = 8 };
static inline void pair_many(float *words, const uint16_t *low, const uint16_t *high) {
    pair8(words, low, high);
}
#endif

void sac_pair_rows(float *words, const uint16_t *low, const uint16_t *high, int dim) {
    static const uint16_t zeros[8];
    int d = 0;
    for (; high && d + PAIRED <= dim; d += PAIRED) pair_many(words + d, low + d, high + d);
    for (; d < dim; d += 8) pair8(words + d, low + d, high ? high + d : zeros);
}

panel sac_panel_pairs(const void *rows, int64_t stride, int dtype, bool pairs, int n, int dim, float *room) {
    if (!pairs) return sac_panel_rows(rows, stride, dtype, pairs, n, dim, room);
    for (int i = 0; i < n; i += 2) {
        const uint16_t *low = (const uint16_t *)rows + i * stride;
        sac_pair_rows(room + i / 2 * dim, low, i + 1 < n ? low + stride : NULL, dim);
    }
    return (panel){room, dim * (ptrdiff_t)sizeof(float)};
}

panel sac_panel_turn(const panel *rows, int n, int words, float *room) {
    const float *source = rows->data;
    for (int w = 0; w < words; w += LANES)
        sac_transpose_out(room + w * TURNED_ROW, TURNED_ROW, source + w, rows->stride / 4,
                          round_up(n, LANES));
    return (panel){room, TURNED_ROW * (ptrdiff_t)sizeof(float)};
}

bool sac_panel_finite(const panel *rows, bool pairs, int n, int words) {
    const uint32_t low = pairs ? 0x7f80 : 0,
                   high = 0x7f800000; /* all ones in an exponent: not a number to add */
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        const char *row = (const char *)rows->data + i * rows->stride;
        for (int w = 0; w < words; w++) {
            uint32_t word;
            memcpy(&word, row + 4 * w, sizeof word);
            bad |= (uint32_t)((word & high) == high) | (uint32_t)(pairs & ((word & low) == low));
        }
    }
    return !bad;
}

void sac_transpose_in(float *target, ptrdiff_t ldt, const float *source, ptrdiff_t lds, int words) {
    for (int w = 0; w < words; w += LANES) {
        vec r[LANES];
        UNROLL for (int i = 0; i < LANES; i++) r[i] = vload(source + i * lds + w);
        vtranspose(r);
        UNROLL for (int i = 0; i < LANES; i++) vstore(target + (w + i) * ldt, r[i]);
    }
}

void sac_transpose_out(float *target, ptrdiff_t ldt, const float *source, ptrdiff_t lds, int words) {
    for (int w = 0; w < words; w += LANES) {
        vec r[LANES];
        UNROLL for (int i = 0; i < LANES; i++) r[i] = vload(source + (w + i) * lds);
        vtranspose(r);
        UNROLL for (int i = 0; i < LANES; i++) vstore(target + i * ldt + w, r[i]);
    }
}
