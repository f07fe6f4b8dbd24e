/* saccade/modifier_text.h - the words of a modifier's text.
 *
 *   aux_f32(slot, i)      element i (flat, row-major) of auxiliary tensor `slot`; also aux_f64, aux_f16 and aux_bf16
 *                         (read as float), aux_i64, aux_i32, aux_i16, aux_i8, aux_u8. slot is a number, or in a text
 *                         the tensor's name.
 *   aux_size(slot, d)     its extent along dimension d of 0 to 3 (0 beyond its rank), an int64_t: so the usual
 *                         way to an index, q_idx * aux_size(slot, 1) + kv_idx, cannot overflow
 *   scalar(slot)          a float that may change from call to call
 *   aux_grad(slot, i, x)  in a score_mod's backward text: adds x to the gradient of element i; nothing where
 *                         that gradient was not asked for
 *
 * Indices are not checked. One definition serves native modifiers (through native_modifier.h), texts compiled
 * for the CPU at run time, and NVRTC.
 */
#ifndef SACCADE_MODIFIER_TEXT_H
#define SACCADE_MODIFIER_TEXT_H

#include <saccade/aux.h>

#if defined(__CUDACC_RTC__)
#define SACCADE_TEXT_FN static __device__ __forceinline__
#elif defined(__TINYC__)
#define SACCADE_TEXT_FN static /* libtcc forgets the lines of inline functions */
#else
#define SACCADE_TEXT_FN static inline
#endif

/* On a device the operands of a combination share one saccade_aux, and each knows where its slots begin. */
#if defined(__CUDACC_RTC__)
#define SACCADE_AUX_AT(slot) aux->tensor[(slot) + sac_aux_base]
#define SACCADE_SCALAR_AT(slot) aux->scalar[(slot) + sac_scalar_base]
#else
#define SACCADE_AUX_AT(slot) aux->tensor[slot]
#define SACCADE_SCALAR_AT(slot) aux->scalar[slot]
#endif

#define aux_f64(slot, i) ((float)((const double *)SACCADE_AUX_AT(slot).data)[i])
#define aux_f32(slot, i) (((const float *)SACCADE_AUX_AT(slot).data)[i])
#define aux_f16(slot, i) saccade_from_f16(((const uint16_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_bf16(slot, i) saccade_from_bf16(((const uint16_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_i64(slot, i) (((const int64_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_i32(slot, i) (((const int32_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_i16(slot, i) (((const int16_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_i8(slot, i) (((const int8_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_u8(slot, i) (((const uint8_t *)SACCADE_AUX_AT(slot).data)[i])
#define aux_size(slot, d) (SACCADE_AUX_AT(slot).extent[d])
#define aux_grad(slot, i, x) SACCADE_GRAD_ADD(slot, SACCADE_AUX_AT(slot).grad, i, x)
#define scalar(slot) (SACCADE_SCALAR_AT(slot))

typedef union saccade_float_bits {
    float f;
    uint32_t u;
} saccade_float_bits;

SACCADE_TEXT_FN float saccade_from_bf16(uint16_t half) {
    saccade_float_bits x;
    x.u = (uint32_t)half << 16;
    return x.f;
}

/* Branch-free, so that a loop of it vectorises: the exponent is rebased by a product, which is exact and brings
 * subnormals along; infinities and NaN then get the exponent they had lost. */
SACCADE_TEXT_FN float saccade_from_f16(uint16_t half) {
    saccade_float_bits x;
    x.u = (uint32_t)(half & 0x7fff) << 13;
    x.f *= 5.192296858534828e33f; /* 2^112 */
    x.u |= ((half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u) | (uint32_t)(half & 0x8000) << 16;
    return x.f;
}

/* ---- gradients of aux tensors ----
 * Rows that add to one element may be in the hands of several threads, hence atomic; their order is nobody's
 * promise. */
#if defined(__CUDACC_RTC__)
#define SACCADE_GRAD_SUMS /* the gradient's point form has no further parameter */
#define SACCADE_GRAD_ADD(slot, grad, i, x) saccade_atomic_add(grad, i, x)
SACCADE_TEXT_FN void saccade_atomic_add(float *grad, int64_t i, float x) {
    if (grad) atomicAdd(grad + i, x);
}
#else
/* On the host a row first sums what its neighbours add to the same element, as with one slope a head: there is one
 * atomic addition then, not one a key. A sum for each slot. */
typedef struct saccade_grad_sum {
    float *at; /* NULL: none yet */
    float sum;
} saccade_grad_sum;

#define SACCADE_GRAD_SUMS , saccade_grad_sum *saccade_sums
#define SACCADE_GRAD_ADD(slot, grad, i, x) saccade_grad_add(&saccade_sums[slot], grad, i, x)

#if defined(__TINYC__)
void saccade_atomic_add(float *at, float x); /* libtcc knows no atomics: the library's own */
#else
SACCADE_TEXT_FN void saccade_atomic_add(float *at, float x) {
    saccade_float_bits old, sum;
    old.u = __atomic_load_n((uint32_t *)at, __ATOMIC_RELAXED);
    do sum.f = old.f + x;
    while (
        !__atomic_compare_exchange_n((uint32_t *)at, &old.u, sum.u, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}
#endif

SACCADE_TEXT_FN void saccade_grad_flush(saccade_grad_sum *sum) {
    if (sum->at) saccade_atomic_add(sum->at, sum->sum);
}
SACCADE_TEXT_FN void saccade_grad_add(saccade_grad_sum *sum, float *grad, int64_t i, float x) {
    if (!grad) return;
    if (sum->at != grad + i) {
        saccade_grad_flush(sum);
        sum->at = grad + i;
        sum->sum = 0;
    }
    sum->sum += x;
}
#endif

/* Row functions around point functions. restrict lets the compiler keep the slots' pointers in registers and
 * vectorise over the keys. */
#define SACCADE_SCORE_ROW(row, point)                                                                        \
    void row(float *__restrict score, int32_t n, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,        \
             const saccade_aux *aux) {                                                                       \
        for (int32_t i = 0; i < n; i++) score[i] = point(score[i], b, h, q_idx, kv_idx + i, aux);            \
    }
#define SACCADE_SCORE_GRAD_ROW(row, point)                                                                   \
    void row(float *__restrict grad, const float *__restrict score, int32_t n, int32_t b, int32_t h,         \
             int32_t q_idx, int32_t kv_idx, const saccade_aux *aux) {                                        \
        saccade_grad_sum sums[SACCADE_MAX_AUX] = {{0, 0}};                                                   \
        for (int32_t i = 0; i < n; i++)                                                                      \
            grad[i] = point(grad[i], score[i], b, h, q_idx, kv_idx + i, aux, sums);                          \
        for (int32_t slot = 0; slot < SACCADE_MAX_AUX; slot++) saccade_grad_flush(&sums[slot]);              \
    }
#define SACCADE_MASK_ROW(row, point)                                                                         \
    void row(uint8_t *__restrict visible, int32_t n, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,    \
             const saccade_aux *aux) {                                                                       \
        for (int32_t i = 0; i < n; i++) visible[i] = point(b, h, q_idx, kv_idx + i, aux);                    \
    }

#endif
