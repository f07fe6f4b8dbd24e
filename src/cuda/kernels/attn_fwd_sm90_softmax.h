/* attn_fwd_sm90_softmax.h - from a tile of scores to probabilities: modify, mask, maxima, exponentials. */
#ifndef SAC_ATTN_FWD_SM90_SOFTMAX_H
#define SAC_ATTN_FWD_SM90_SOFTMAX_H

#include "cuda/kernels/attn_fwd_sm90_tile.h"
#include "cuda/kernels/attn_sm90_mask.h"

#if PRESCALED
/* Scores become what the softmax is taken of: scale, softcap, ALiBi, score_mod. */
SAC_FN void modify(consumer *c, const kv_record *tile) {
    const sac_attention_args *args = c->args;
    const int b = c->q->batch, h = c->q->head;
    const int32_t row = first_row(c->q), column = tile->begin + first_column();
    const sac_sequence sequence = sequence_of(args, b);
    const float scale = SOFTCAP ? args->scale / args->softcap : args->scale;
    const float slope = ALIBI ? args->alibi_slopes[b * args->alibi_batch_stride + h] : 0;
    const float distance = (float)(row + sequence.k_len - sequence.q_len - column);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) {
        float *s = &c->s[i];
        *s *= scale;
        if (SOFTCAP) *s = ptx_tanh(*s);
        if (SOFTCAP && (ALIBI || SCORE_MOD)) *s *= args->softcap;
        if (ALIBI) *s -= slope * fabsf(distance + (ROW_OF(i) - COLUMN_OF(i)));
#if SCORE_MOD
        *s = sac_score_mod(*s, b, h, sac_min(row + ROW_OF(i), sequence.q_len - 1),
                           sac_min(column + COLUMN_OF(i), sequence.k_len - 1), &args->score_aux);
#endif
    }
}
#endif

/* Hidden scores become -inf. */
SAC_FN void mask(consumer *c, const kv_record *tile) {
    const tile_mask m = tile_mask_of(c->args, c->q, tile);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++)
        if (!is_visible(&m, i)) c->s[i] = MINUS_INF;
}

/* Row maxima of the tile, the same in the four lanes that share a row. */
SAC_FN void row_max(const consumer *c, float top[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(c->s[2 * r], c->s[2 * r + 1]);
#pragma unroll
        for (int j = 1; j < KV_TILE / 8; j++)
            top[r] = fmaxf(top[r], fmaxf(c->s[4 * j + 2 * r], c->s[4 * j + 2 * r + 1]));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    }
}

/* Raises the reference of the rows that outgrew it. After a row's first tiles that is rare, and the warp skips it. */
SAC_FN void raise_reference(consumer *c, const float top[2]) {
    if (!warp_has(top[0] > c->limit[0] || top[1] > c->limit[1])) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float factor = 1;
        if (top[r] > c->limit[r]) {
            float ref = top[r] * c->scale_log2;
            factor = c->limit[r] == MINUS_INF ? 0 : ptx_exp2(c->ref[r] - ref);
            c->ref[r] = ref;
            c->limit[r] = top[r] + MAX_GROWTH / c->scale_log2;
        }
        c->sum[r] *= factor;
#pragma unroll
        for (int j = 0; j < HEAD_DIM_V / 8; j++) {
            c->out[4 * j + 2 * r] *= factor;
            c->out[4 * j + 2 * r + 1] *= factor;
        }
    }
}

SAC_FN void exponentials(consumer *c) {
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i += 2) {
        const int r = i / 2 % 2;
        float low = ptx_exp2(fmaf(c->s[i], c->scale_log2, -c->ref[r]));
        float high = ptx_exp2(fmaf(c->s[i + 1], c->scale_log2, -c->ref[r]));
        c->sum[r] += low;
        c->sum[r] += high;
        c->p[i / 2] = pack(low, high);
    }
}

#endif
