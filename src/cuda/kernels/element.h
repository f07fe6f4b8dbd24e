/* element.h - the element type of a variant (-DDTYPE), and a pair of neighbours, the unit of mma fragments. */
#ifndef SAC_KERNELS_ELEMENT_H
#define SAC_KERNELS_ELEMENT_H

#include "shared/types.h" /* first: NVRTC has no stdint.h */
#include "cuda/kernels/ptx/convert.h"
#include "cuda/kernels/ptx/shared_memory.h"
#include "shared/attention_args.h"

#define INFINITE __int_as_float(0x7f800000)
#define LOG2_E 1.44269504088896340736f
#define LN_2 0.69314718055994530942f

#if DTYPE == 0 /* fp32 */
typedef float element;
typedef float2 pair;

SAC_FN float element_load(const element *p) { return *p; }
SAC_FN pair pair_make(float x, float y) { return make_float2(x, y); }
SAC_FN float2 pair_floats(pair p) { return p; }
SAC_FN pair pair_load_shared(ptx_smem p) { return ptx_ld_f32x2(p); }
SAC_FN void pair_store_shared(ptx_smem p, pair x) { ptx_st_f32x2(p, x); }
SAC_FN float element_load_shared(ptx_smem p) { return ptx_ld_f32(p); }
SAC_FN void element_store_shared(ptx_smem p, element x) { ptx_st_u32(p, (uint32_t)__float_as_int(x)); }
SAC_FN pair pair_finite(pair p) { /* 0 for NaN and Inf */
    return make_float2(fabsf(p.x) < INFINITE ? p.x : 0, fabsf(p.y) < INFINITE ? p.y : 0);
}

#else /* fp16, bf16 */
typedef uint16_t element;
typedef uint32_t pair;

#if DTYPE == 1
#define EXPONENT_BITS 0x7c00u
SAC_FN float element_float(element x) { return ptx_f32_of_f16(x); }
SAC_FN pair pair_make(float x, float y) { return ptx_pack_f16(x, y); }
#else
#define EXPONENT_BITS 0x7f80u
SAC_FN float element_float(element x) { return __int_as_float((int)x << 16); }
SAC_FN pair pair_make(float x, float y) { return ptx_pack_bf16(x, y); }
#endif
SAC_FN float element_load(const element *p) { return element_float(*p); }
SAC_FN float2 pair_floats(pair p) {
    return make_float2(element_float((element)p), element_float((element)(p >> 16)));
}
SAC_FN pair pair_load_shared(ptx_smem p) { return ptx_ld_u32(p); }
SAC_FN void pair_store_shared(ptx_smem p, pair x) { ptx_st_u32(p, x); }
SAC_FN float element_load_shared(ptx_smem p) { return element_float(ptx_ld_u16(p)); }
SAC_FN void element_store_shared(ptx_smem p, element x) { ptx_st_u16(p, x); }
SAC_FN pair pair_finite(pair p) { /* 0 for NaN and Inf */
    const pair low = p & 0xffffu, high = p & 0xffff0000u;
    return ((low & EXPONENT_BITS) == EXPONENT_BITS ? 0 : low) |
           ((high >> 16 & EXPONENT_BITS) == EXPONENT_BITS ? 0 : high);
}
#endif

/* Two neighbours to global memory; one access where every row is aligned to it. */
SAC_FN void pair_store(element *p, float x, float y) {
    union {
        pair whole;
        element part[2];
    } both = {pair_make(x, y)};
#if ALIGNED
    *(pair *)p = both.whole;
#else
    p[0] = both.part[0];
    p[1] = both.part[1];
#endif
}

/* Row `row` of head h, in batch entry b (packed: of the whole tensor). */
SAC_FN element *view_row(const sac_view *view, int32_t b, int32_t h, int64_t row) {
    return (element *)view->data + b * view->batch_stride + h * view->head_stride + row * view->row_stride;
}
SAC_FN float *row_value(const sac_row_view *view, int32_t b, int32_t h, int64_t row) {
    return view->data + b * view->batch_stride + h * view->head_stride + row * view->row_stride;
}

#endif
