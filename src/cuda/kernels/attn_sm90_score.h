/* attn_sm90_score.h - what happens to a product before the softmax, with what the way back needs. The including file
 * defines BACKWARD: there is a way back, and the modifiers' text says how. */
#ifndef SAC_ATTN_SM90_SCORE_H
#define SAC_ATTN_SM90_SCORE_H

#include "cuda/kernels/attn_sm90.h"
#if MASK_MOD || SCORE_MOD
#include <modifiers.h> /* sac_score_mod, sac_score_mod_grad, sac_mask_mod: made for the call */
#endif

#if PRESCALED
/* Whose score it is. q_idx and kv_idx are legal indices: modifiers are asked about no others. */
typedef struct score_place {
    int32_t b, h, q_idx, kv_idx;
    float penalty; /* ALiBi */
} score_place;

/* A modified score, in units of softcap if that is all there is; what score_mod saw; and what gradients are multiplied
 * by on their way back through the softcap. */
typedef struct modified_score {
    float score, before_mod, factor;
} modified_score;

SAC_FN modified_score modify_score(const sac_attention_args *args, const score_place *at, float product) {
    modified_score m;
    m.score = product * (SOFTCAP ? __fdividef(args->scale, args->softcap) : args->scale);
    m.factor = 1;
    if (SOFTCAP) {
        m.score = ptx_tanh(m.score);
        m.factor = 1 - m.score * m.score;
        if (ALIBI || SCORE_MOD) m.score *= args->softcap;
    }
    if (ALIBI) m.score -= at->penalty;
    m.before_mod = m.score;
#if SCORE_MOD
    m.score = sac_score_mod(m.score, at->b, at->h, at->q_idx, at->kv_idx, &args->score_aux);
#endif
    return m;
}

#if BACKWARD
/* From the gradient of the modified score to that of the scaled product. */
SAC_FN float modify_gradient(const sac_attention_args *args, const score_place *at, const modified_score *m,
                             float gradient) {
#if SCORE_MOD
    if (gradient == 0) return 0; /* a hidden pair among others: the text must not see it */
    gradient =
        sac_score_mod_grad(gradient, m->before_mod, at->b, at->h, at->q_idx, at->kv_idx, &args->score_aux);
#endif
    return gradient * m->factor;
}
#endif
#endif

/* From a score to the exponent of 2. */
SAC_FN float score_to_log2(const sac_attention_args *args) {
    return LOG2_E * (!PRESCALED ? args->scale : SOFTCAP && !ALIBI && !SCORE_MOD ? args->softcap : 1);
}

#if BACKWARD
/* A row that sees nothing has lse -inf, and all its pairs are masked: any finite number will do. One that sees NaN
 * has lse NaN, which would be P of hidden pairs too: far below all scores, it makes P infinite where they are seen,
 * else 0. */
SAC_FN float lse_log2(float lse) { return lse != lse ? -3e38f : lse == MINUS_INF ? 0 : lse * LOG2_E; }
#endif

#endif
