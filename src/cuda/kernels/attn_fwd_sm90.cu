/* attn_fwd_sm90.cu - forward attention on Hopper. CTAs that stay, mostly one a multiprocessor, take query tiles until
 * none is left.
 *
 *   producer (one thread)                         consumers (CONSUMERS warpgroups, 64 query rows each)
 *   for each query tile handed out:               for each query tile:
 *     load q                                        s = q k(0)^T;  p = softmax(s)
 *     walk its key tiles:                           for j = 1 ..:
 *       load k(j), v(j-1)                             s = q k(j)^T  and  out += p v(j-1)  at the same time
 *     load v(last)                                    p = softmax(s)
 *                                                   out += p v(last);  store out / sum, lse
 *
 * What decides its speed, in this order. Energy: the chip runs at its power limit, hence query tiles as large as
 * registers allow. Instructions issued per score, hence
 *   - no maximum is taken while the tile's own sum says that the row's reference still serves. Invariant: out and sum
 *     are the true ones divided by 2^ref, where ref is a maximum the row once had; p is at most 2^8;
 *   - scores stay unscaled: scaling and subtracting ref is one FMA inside the exponent;
 *   - only warps with a hidden pair in the tile run code for masking.
 * Infinities and NaN among the values of hidden pairs are kept from their rows (attn_fwd_sm90_unfinite.h).
 *
 * Needs from attn_fwd_sm90.c, beside the modifiers' text: HEAD_DIM, HEAD_DIM_V, DTYPE; CONSUMERS, KV_TILE, Q_SLOTS,
 * KV_STAGES, P_BUFFERS, CTAS_PER_SM, PRODUCER_REGS, CONSUMER_REGS (its table of tiles); and, each 0 or 1, what a
 * variant computes: BLOCK_MASK, PACK (block lists with bits: their heads share a tile, of one warpgroup), MASK_MOD,
 * SCORE_MOD, SOFTCAP, ALIBI, PRESCALED (scores are scaled before the softmax, see sac_sm90_prescales), BOUNDED (a
 * softcap keeps 2^score in the range of bf16), RAGGED (lengths come from device memory), SPLIT (the keys of the last
 * query tiles are split), CLASSIFIED (mask_tiles.cu has found which tiles the mask_mod hides, and which it leaves
 * whole). JOINED: of so many calls the sum is stored (attn_fwd_sm90_join.h), 0: out as it is.
 */
#include "cuda/kernels/attn_fwd_sm90_diagonal.h"
#include "cuda/kernels/attn_fwd_sm90_products.h"
#include "cuda/kernels/attn_fwd_sm90_softmax.h"
#include "cuda/kernels/attn_fwd_sm90_store.h"
#include "cuda/kernels/attn_fwd_sm90_unfinite.h"
#include "cuda/kernels/attn_sm90_consumer.h"

/* Scores are modified while the product with the values runs. */
#define VALUES_LATE PRESCALED

/* What the softmax is taken of, -inf where hidden; and how exponents are made of it. */
SAC_FN exponent finish_scores(consumer *c, const kv_record *tile) {
    const exponent e = modify(c, tile);
    hide(c->s, MINUS_INF, c->args, c->q, &c->limits, tile);
    c->v_begin = tile->begin;
    c->v_masked = tile->flags & KV_MASKED;
    return e;
}

/* Does this warpgroup see some of the tile, and more than a diagonal? */
SAC_FN int multiplies(const consumer *c, const kv_record *tile) {
    return tile->begin < c->keys.end && tile->end > c->keys.begin && !is_diagonal(tile);
}

SAC_FN void first_tile(consumer *c, const kv_record *tile) {
    issue_scores(c);
    ptx_wgmma_wait(0);
    scores_arrived(c);
    const exponent e = finish_scores(c, tile);
    first_softmax(c, &e);
}

/* The scores of this tile and the values of the one before are multiplied together; then this tile's p. */
SAC_FN void next_tile(consumer *c, const kv_record *tile, int from, int to) {
    before_values(c, from);
    issue_scores(c);
    wait_v(c);
    issue_values(c, from);
    if (P_BUFFERS == 2 || VALUES_LATE)
        ptx_wgmma_wait(1);
    else
        values_arrived(c);
    scores_arrived(c);
    const exponent e = finish_scores(c, tile);
    if (P_BUFFERS == 1 && VALUES_LATE) values_arrived(c);
    softmax(c, tile, &e, to);
}

/* The tiles that follow, while this warpgroup multiplies them: 1 if that was to the last. p ends in buffer *at. */
SAC_FN int next_tiles(consumer *c, kv_record *tile, int *at) {
    for (;;) {
        if (warp_has(tile->flags & KV_LAST)) return 1;
        *tile = wait_k(c);
        if (!warp_has(multiplies(c, tile))) return 0;
        next_tile(c, tile, 0, P_BUFFERS - 1);
#if P_BUFFERS == 2
        *at = 1;
        if (warp_has(tile->flags & KV_LAST)) return 1;
        *tile = wait_k(c);
        if (!warp_has(multiplies(c, tile))) return 0;
        next_tile(c, tile, 1, 0);
        *at = 0;
#endif
    }
}

SAC_FN void last_values(consumer *c, int from) {
    before_values(c, from);
    wait_v(c);
    issue_values(c, from);
    values_arrived(c);
}

SAC_FN void q_multiplied(const consumer *c) {
    if (!Q_IN_REGISTERS) q_read(c);
}

/* Tiles that this warpgroup multiplies come in runs; those between are diagonals, or for others. */
SAC_FN void attend(consumer *c) {
    take_q(c);
    c->keys = keys_of(c->q);
    c->limits = row_limits_of(c->q);
    if (ALIBI) c->line = alibi_line_of(c);
    kv_record tile = wait_k(c);
    for (;;) {
        while (!warp_has(multiplies(c, &tile))) {
            if (BLOCK_MASK && !PACK && warp_has(is_diagonal(&tile)))
                attend_diagonal(c, &tile);
            else
                pass_tile(c);
            if (warp_has(tile.flags & KV_LAST)) {
                q_multiplied(c);
                return;
            }
            tile = wait_k(c);
        }
        first_tile(c, &tile);
        int at = 0;
        const int seen = next_tiles(c, &tile, &at);
        if (seen) q_multiplied(c);
        if (P_BUFFERS == 2 && warp_has(at))
            last_values(c, 1);
        else
            last_values(c, 0);
        if (seen) return;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS_PER_SM)
    attn_fwd_sm90(const __grid_constant__ sac_attn_fwd_sm90_params params) {
    run_cta(&params);
}
