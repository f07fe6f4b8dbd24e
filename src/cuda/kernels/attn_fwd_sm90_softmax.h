/* attn_fwd_sm90_softmax.h - from a tile of scores to probabilities: exponentials, and maxima where they are needed. */
#ifndef SAC_ATTN_FWD_SM90_SOFTMAX_H
#define SAC_ATTN_FWD_SM90_SOFTMAX_H

#include "cuda/kernels/attn_fwd_sm90_tile.h"
#include "cuda/kernels/attn_sm90_mask.h"

/* Of a row, which four lanes share. */
SAC_FN float row_max(const consumer *c, int r) {
    float top = fmaxf(c->s[2 * r], c->s[2 * r + 1]);
#pragma unroll
    for (int j = 1; j < KV_TILE / 8; j++)
        top = fmaxf(top, fmaxf(c->s[4 * j + 2 * r], c->s[4 * j + 2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    return fmaxf(top, __shfl_xor_sync(~0u, top, 2));
}

/* Makes the maximum of what a row has seen, this tile included, its reference. Only where one of its lanes found it
 * outgrown: how a row is summed depends on what it sees, not on the other rows of its warp. */
SAC_FN void raise_reference(consumer *c, const int outgrown[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const uint32_t row = 0xfu << (lane_id() & ~3), lanes = __ballot_sync(~0u, outgrown[r]);
        const float top = row_max(c, r) * c->scale_log2, old = c->ref[r];
        float factor = 1;
        if (lanes & row) {
            c->ref[r] = fmaxf(old, top);
            factor = old == MINUS_INF ? 0 : ptx_exp2(old - c->ref[r]);
        }
        c->sum[r] *= factor;
#pragma unroll
        for (int j = 0; j < HEAD_DIM_V / 8; j++) {
            c->out[4 * j + 2 * r] *= factor;
            c->out[4 * j + 2 * r + 1] *= factor;
        }
    }
}

/* Probabilities by the references base, and what they add to the sums. */
SAC_FN void exponentials(consumer *c, const float base[2], float added[2]) {
    added[0] = added[1] = 0;
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i += 2) {
        const int r = i / 2 % 2;
        float low = ptx_exp2(fmaf(c->s[i], c->scale_log2, -base[r]));
        float high = ptx_exp2(fmaf(c->s[i + 1], c->scale_log2, -base[r]));
        added[r] += low;
        added[r] += high;
        c->p[i / 2] = pack(low, high);
    }
}

/* The tile's probabilities, after raising the references that it outgrew. */
SAC_FN void softmax_anew(consumer *c, const int outgrown[2]) {
    raise_reference(c, outgrown);
    const float base[2] = {c->ref[0] == MINUS_INF ? 0 : c->ref[0], c->ref[1] == MINUS_INF ? 0 : c->ref[1]};
    float added[2];
    exponentials(c, base, added);
    c->sum[0] += added[0];
    c->sum[1] += added[1];
}

/* The same under the references that stand. No maximum is taken: probabilities are positive, so a small sum says that
 * none of them is large. A large one, an infinity or a NaN (which a row that has seen nothing makes: its reference is
 * -inf) sends the warp back to do it anew. After the first tiles of a row that is rare. */
SAC_FN void softmax(consumer *c) {
    float added[2];
    exponentials(c, c->ref, added);
    const int outgrown[2] = {!(added[0] <= MOST_ADDED), !(added[1] <= MOST_ADDED)};
    if (warp_has(outgrown[0] | outgrown[1])) {
        softmax_anew(c, outgrown);
        return;
    }
    c->sum[0] += added[0];
    c->sum[1] += added[1];
}

#endif
