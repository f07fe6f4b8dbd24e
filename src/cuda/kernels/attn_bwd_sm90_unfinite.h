/* attn_bwd_sm90_unfinite.h - infinities and NaN must not reach the gradients of rows that have no part in them.
 *
 * A hidden pair has P = 0 and dS = 0, but 0 times NaN is NaN. Three products carry rows of their second operand to
 * others:
 *
 * dq = ds k: looked for once, when a CTA's keys have come. Such a key becomes 0, and its value NaN, so that the
 * gradients of all pairs that see it are NaN; dv, which has no part in the value, gets its NaN at the end.
 *
 * dv += p dout, dk += ds q: such a query shows in its scores, or in their gradients. Where a tile hides pairs those are
 * looked through, and if need be the tile is multiplied by hand, without the pairs whose weight is 0. Where the
 * warpgroups' roles differ that is too much code for their loops, and the producer looks (set_rows_aside): such a query
 * becomes zeros, with an lse under which P is infinite where it is seen. Then only gradients of hidden scores are to
 * become 0 again, beside values that are not finite (hides_unfinite).
 */
#ifndef SAC_ATTN_BWD_SM90_UNFINITE_H
#define SAC_ATTN_BWD_SM90_UNFINITE_H

#include "cuda/kernels/attn_bwd_sm90_by_hand.h"
#include "cuda/kernels/attn_bwd_sm90_tile.h"
#include "cuda/kernels/ptx/fence.h"

/* Of 16 bytes in shared memory. */
SAC_FN int has_unfinite_chunk(const uint8_t *chunk) {
    const uint4 x = *(const uint4 *)chunk;
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
    return has_unfinite_words(words, 4);
}

/* ---- keys ---- */

/* Each lane of eight looks through its chunks of a row. */
SAC_FN int unfinite_part(const uint8_t *tile, int row, int panels) {
    int found = 0;
#pragma unroll
    for (int panel = 0; panel < panels; panel++)
        found |= has_unfinite_chunk(tile + (panel * KV_TILE + row) * ROW_BYTES + lane_id() % 8 * 16);
    return found;
}

SAC_FN void fill_part(uint8_t *tile, int row, int panels, uint32_t word) {
    for (int panel = 0; panel < panels; panel++)
        *(uint4 *)(tile + (panel * KV_TILE + row) * ROW_BYTES + lane_id() % 8 * 16) =
            make_uint4(word, word, word, word);
}

/* All consumers, when k and v have come. Keys behind the tile's last have no part in anything. */
SAC_FN void prepare_keys(smem_layout *smem) {
    const int num_keys = smem->own.keys.end - smem->own.keys.begin;
    int found = 0, values = 0;
#pragma unroll 1
    for (int row = (threadIdx.x - 128) / 8; row < KV_TILE; row += 16 * CONSUMERS) {
        const int unused = RAGGED && row >= num_keys;
        const uint32_t lanes = __ballot_sync(~0u, unused || (SUM_DQ && unfinite_part(smem->k, row, PANELS)));
        values |= PRODUCER_LOOKS && unfinite_part(smem->v, row, PANELS_V);
        if (!(lanes >> (lane_id() & 24) & 0xff)) continue;
        fill_part(smem->k, row, PANELS, 0);
        fill_part(smem->v, row, PANELS_V, row < num_keys ? 0xffffffffu : 0);
        found |= row < num_keys;
    }
    if (found) smem->unfinite_keys = 1;
    if (found | values) smem->unfinite_values = 1;
    ptx_fence_proxy_async_shared();
    ptx_barrier_sync(CTA_BARRIER, 128 * CONSUMERS);
}

#if !BY_QUERY
/* dV of a key that was set aside and that some query sees is NaN, as its dK is. */
SAC_FN void mark_dv(consumer *c) {
    if (!warp_has(c->smem->unfinite_keys)) return;
#pragma unroll
    for (int i = 0; i < HEAD_DIM_V / 2; i++) c->dv[i] += 0 * c->dk[i / 2 % 2 * 2];
}

/* A pair without weight has no gradient, whatever its dP is. */
SAC_FN void hide_gradients(consumer *c) {
#pragma unroll
    for (int i = 0; i < Q_TILE / 4; i++) c->ds_packed[i] = without_weightless(c->ds_packed[i], c->p[i]);
}
#endif

#endif
