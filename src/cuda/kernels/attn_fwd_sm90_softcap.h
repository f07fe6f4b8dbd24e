/* attn_fwd_sm90_softcap.h - scores become tanh(scale s / softcap), some of them by a polynomial.
 *
 * At head dim 64 a tanh and an exponential for every score are more than their pipe can do beside the products; all of
 * the tanh as multiplications are more than can be issued. So neighbouring groups of columns take turns. The polynomial
 * serves small arguments, which is what a softcap mostly sees; a warp that has a larger one asks the hardware for it as
 * well. What a score becomes depends on itself and its column alone. At larger head dims instructions are scarcer than
 * the pipe: where no references are kept (BOUNDED) the hardware's tanh, which takes the fewest, does all.
 */
#ifndef SAC_ATTN_FWD_SM90_SOFTCAP_H
#define SAC_ATTN_FWD_SM90_SOFTCAP_H

#include "cuda/kernels/attn_sm90_tile.h"

/* tanh(x) = x (T0 + T1 x^2 + T2 x^4) for |x| up to BEND: relative error 6.3e-6. One of 2e-4 shows in lse,
 * since it has the same sign for all scores of about a size. */
#define BEND 0.4f
#define T0 0.99999376f
#define T1 -0.33262572f
#define T2 0.12127639f

SAC_FN int by_polynomial(int i) { return !BOUNDED && i / 4 % 2; }

/* The polynomial of x = factor s, in s. Factors whose powers might leave the range of fp32 have none. */
typedef struct small_tanh {
    float t0, t1, t2, bend;
} small_tanh;

SAC_FN small_tanh small_tanh_of(float factor) {
    const float square = factor * factor, cube = square * factor;
    const small_tanh f = {T0 * factor, T1 * cube, T2 * cube * square, __fdividef(BEND, fabsf(factor))},
                     none = {0, 0, 0, 0};
    return square > 1e-12f && square < 1e12f ? f : none;
}
SAC_FN float tanh_if_small(const small_tanh *f, float s) {
    const float square = s * s;
    return s * fmaf(square, fmaf(square, f->t2, f->t1), f->t0);
}

SAC_FN void cap_scores(float *s, const sac_attention_args *args) {
    const float factor = __fdividef(args->scale, args->softcap);
    const small_tanh f = small_tanh_of(factor);
    float most = 0;
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
        if (by_polynomial(i)) most = fmaxf(most, fabsf(s[i]));
    const int some_large = warp_has(most > f.bend);
    if (some_large) {
#pragma unroll
        for (int i = 0; i < KV_TILE / 2; i++)
            s[i] = by_polynomial(i) && !(fabsf(s[i]) > f.bend) ? tanh_if_small(&f, s[i])
                                                               : ptx_tanh(factor * s[i]);
    } else {
#pragma unroll
        for (int i = 0; i < KV_TILE / 2; i++)
            s[i] = by_polynomial(i) ? tanh_if_small(&f, s[i]) : ptx_tanh(factor * s[i]);
    }
}

#endif
