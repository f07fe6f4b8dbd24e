/* attn_fwd_sm90_softmax.h - from a tile of scores to probabilities: exponentials, and maxima where they are needed. */
#ifndef SAC_ATTN_FWD_SM90_SOFTMAX_H
#define SAC_ATTN_FWD_SM90_SOFTMAX_H

#include "cuda/kernels/attn_fwd_sm90_products.h"
#include "cuda/kernels/attn_fwd_sm90_softcap.h"

/* ALiBi is linear in the columns where all keys lie behind the queries, or none that is seen lies ahead, and where
 * all lie ahead: there one FMA a score does. Where keys that are ahead of none of this warp's queries end. */
#define NOWHERE (-SAC_FAR)
SAC_FN int32_t straight_end_of(const consumer *c) {
    const sac_band *band = &c->q->band;
    const int32_t first = query_at(c->q, warp_row()), shift = band->seqlen_k - band->seqlen_q;
    if (SOFTCAP || SCORE_MOD || !(c->args->scale > 1e-30f)) return NOWHERE;
    return band->hi_off <= shift + 1 && band->hi_slope == 1 ? SAC_FAR : first + shift + 1;
}
SAC_FN alibi_line alibi_line_of(const consumer *c) {
    const sac_band *band = &c->q->band;
    const alibi_line line = {c->q->slope * ptx_reciprocal(c->args->scale), c->q->slope * LOG2_E,
                             query_at(c->q, thread_row()) + band->seqlen_k - band->seqlen_q - first_column(),
                             straight_end_of(c)};
    return line;
}

/* Does ALiBi raise the scores of this warp's 16 rows from column to column; does it lower them? */
SAC_FN int is_rising(const consumer *c, const kv_record *tile) { return tile->end <= c->line.straight_end; }
SAC_FN int is_falling(const consumer *c, const kv_record *tile) {
    return c->line.straight_end != NOWHERE && tile->begin >= c->line.straight_end + 14;
}

/* By how many powers of 2 a new reference exceeds the maximum it is made of. ALiBi raises scores from tile to tile,
 * and where probabilities are stored with the exponents of fp32 they may as well be small; but not so small that
 * their products with small values vanish. */
#define HEADROOM (ALIBI && DTYPE == 2 ? 48.0f : 0.0f)

/* A probability is 2^(scale s - offset - ref). steep: the reference is outgrown in every second tile, or more often;
 * where keys are walked from the last one back, it is not. */
typedef struct exponent {
    float scale, offset[2];
    int steep;
} exponent;

/* Products become what the softmax is taken of; what that leaves for the exponent. In a straight tile a score stays a
 * product: ALiBi adds its part of the column to it, and leaves that of the row. */
SAC_FN exponent modify(consumer *c, const kv_record *tile) {
    exponent e = {c->scale_log2, {0, 0}, 0};
    if (ALIBI && warp_has(is_rising(c, tile) || is_falling(c, tile))) {
        const alibi_line *line = &c->line;
        const float sign = is_rising(c, tile) ? 1.0f : -1.0f, slope = sign * line->slope;
        const float slope_log2 = sign * line->slope_log2, distance = (float)(line->distance - tile->begin);
#pragma unroll
        for (int i = 0; i < KV_TILE / 2; i++) c->s[i] = fmaf(slope, COLUMN_OF(i), c->s[i]);
        e.scale = c->args->scale * LOG2_E;
        e.offset[0] = slope_log2 * distance;
        e.offset[1] = slope_log2 * (distance + 8);
        e.steep = BLOCK_MASK && warp_has(slope_log2 * KV_TILE > HEADROOM / 2 + 4);
        return e;
    }
#if SOFTCAP && !ALIBI && !SCORE_MOD
    cap_scores(c->s, c->args);
#elif PRESCALED
    modify_scores(c->s, c->args, c->q, &c->limits, tile);
#endif
    return e;
}

/* The largest exponent of a row, but for ref. Four lanes share the row. */
SAC_FN float row_top(const consumer *c, const exponent *e, int r) {
    float top = MINUS_INF;
#pragma unroll
    for (int i = 2 * r; i < KV_TILE / 2; i += i % 2 ? 3 : 1) top = fmaxf(top, c->s[i]);
    top = top * e->scale - e->offset[r]; /* which is not the same in all lanes */
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    return fmaxf(top, __shfl_xor_sync(~0u, top, 2));
}

SAC_FN void scale_out(consumer *c, int r, float factor) {
#pragma unroll
    for (int j = 0; j < HEAD_DIM_V / 8; j++) {
        c->out[4 * j + 2 * r] *= factor;
        c->out[4 * j + 2 * r + 1] *= factor;
    }
}

/* Raises a row's reference to `top` if that is higher. What its sums are multiplied by for it: sum here, out by who
 * calls. */
SAC_FN float raise(consumer *c, int r, float top) {
    const float old = c->ref[r];
    c->ref[r] = fmaxf(old, top);
    const float factor = old == MINUS_INF ? 0 : ptx_exp2(old - c->ref[r]);
    c->sum[r] *= factor;
    return factor;
}

/* Makes the maximum of what a row has seen, this tile included, its reference. Only where one of its lanes found it
 * outgrown: how a row is summed depends on what it sees, not on the other rows of its warp. */
SAC_FN void raise_references(consumer *c, const exponent *e, const int outgrown[2], float factor[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const uint32_t row = 0xfu << (lane_id() & ~3), lanes = __ballot_sync(~0u, outgrown[r]);
        const float top = row_top(c, e, r);
        factor[r] = 1;
        if (lanes & row) factor[r] = raise(c, r, top + HEADROOM);
    }
}

/* Probabilities under these references into buffer `to`, and what they add to the sums. */
SAC_FN void exponentials(consumer *c, const exponent *e, const float ref[2], float added[2], int to) {
    const float base[2] = {ALIBI ? ref[0] + e->offset[0] : ref[0], ALIBI ? ref[1] + e->offset[1] : ref[1]};
    added[0] = added[1] = 0;
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i += 2) {
        const int r = i / 2 % 2;
        const float low = ptx_exp2(fmaf(c->s[i], e->scale, -base[r]));
        const float high = ptx_exp2(fmaf(c->s[i + 1], e->scale, -base[r]));
        added[r] += low;
        added[r] += high;
        c->p[to][i / 2] = pack(low, high);
    }
}

/* The tile's probabilities, after raising the references that it outgrew; and what out is to be multiplied by for
 * that. A row that has seen nothing subtracts 0, not its -inf: otherwise NaN. */
SAC_FN void softmax_anew(consumer *c, const exponent *e, const int outgrown[2], float factor[2], int to) {
    raise_references(c, e, outgrown, factor);
    const float ref[2] = {c->ref[0] == MINUS_INF ? 0 : c->ref[0], c->ref[1] == MINUS_INF ? 0 : c->ref[1]};
    float added[2];
    exponentials(c, e, ref, added, to);
    c->sum[0] += added[0];
    c->sum[1] += added[1];
}

SAC_FN void scale_rows(consumer *c, const float factor[2]) {
    scale_out(c, 0, factor[0]);
    scale_out(c, 1, factor[1]);
}

#if BOUNDED
/* Nothing outgrows a reference of 0. */
SAC_FN void softmax(consumer *c, const kv_record *, const exponent *e, int to) {
    const float ref[2] = {0, 0};
    float added[2];
    exponentials(c, e, ref, added, to);
    c->sum[0] += added[0];
    c->sum[1] += added[1];
}
SAC_FN void first_softmax(consumer *c, const exponent *e) { softmax(c, 0, e, 0); }
#else

/* Of a warp's first tile. */
SAC_FN void first_softmax(consumer *c, const exponent *e) {
    const int outgrown[2] = {1, 1};
    float factor[2];
    softmax_anew(c, e, outgrown, factor, 0);
    scale_rows(c, factor);
}

/* A tile that is for none of a warp's rows. */
SAC_FN void no_probabilities(consumer *c, int to) {
#pragma unroll
    for (int i = 0; i < KV_TILE / 4; i++) c->p[to][i] = 0;
}

/* Probabilities under the references that stand. No maximum is taken: probabilities are positive, so a small sum says
 * that none of them is large. A large one, an infinity or a NaN (which a row that has seen nothing makes: its
 * reference is -inf) sends the warp back to do it anew. After the first tiles of a row that is rare. 1 if out is left
 * to be scaled. A row that the tile is not for adds nothing under any reference, also under the 0 it gets while it
 * has none. */
SAC_FN int softmax_under_references(consumer *c, const kv_record *tile, const exponent *e, float factor[2],
                                    int to) {
    const int listed[2] = {is_listed(&c->limits, tile, 0), is_listed(&c->limits, tile, 1)};
    if (PACK && !warp_has(listed[0] | listed[1])) {
        no_probabilities(c, to);
        return 0;
    }
    const float ref[2] = {listed[0] || c->ref[0] != MINUS_INF ? c->ref[0] : 0,
                          listed[1] || c->ref[1] != MINUS_INF ? c->ref[1] : 0};
    float added[2];
    int outgrown[2] = {1, 1};
    if (!ALIBI || !e->steep) {
        exponentials(c, e, ref, added, to);
        outgrown[0] = !(added[0] <= MOST_ADDED);
        outgrown[1] = !(added[1] <= MOST_ADDED);
    }
    if (warp_has(outgrown[0] | outgrown[1])) {
        softmax_anew(c, e, outgrown, factor, to);
        if (P_BUFFERS == 1) scale_rows(c, factor);
        return P_BUFFERS == 2;
    }
    c->sum[0] += added[0];
    c->sum[1] += added[1];
    return 0;
}

/* With two buffers the products of the other one run beside the exponentials. The wait for them stands outside of
 * what a warp decides: the four warps of a warpgroup must come to the same one. The assembler moves waits up, but not
 * over the branch that does exponentials anew. */
SAC_FN void softmax(consumer *c, const kv_record *tile, const exponent *e, int to) {
    float factor[2];
    const int raised = softmax_under_references(c, tile, e, factor, to);
    if (P_BUFFERS == 1) return;
    values_arrived(c);
    if (raised) scale_rows(c, factor);
}

#endif

#endif
