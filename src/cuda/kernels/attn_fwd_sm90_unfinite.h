/* attn_fwd_sm90_unfinite.h - infinities and NaN among the values must not reach the rows that do not see them.
 *
 * A hidden pair has p = 0, but 0 times NaN is NaN. So where a tile hides some pair (or ends with its sequence: anything
 * may lie behind), one warp looks through its values before the consumers get them. Keys with a value that is no finite
 * number are noted and cleared, and consumers add by hand what such a key gives to the rows that see it.
 */
#ifndef SAC_ATTN_FWD_SM90_UNFINITE_H
#define SAC_ATTN_FWD_SM90_UNFINITE_H

#include "cuda/kernels/attn_fwd_sm90_products.h"
#include "cuda/kernels/ptx/fence.h"

/* One of the eight lanes of a row adds 0 times its part of the row, which is NaN or 0, to sums that are 0 until
 * then. */
SAC_FN void add_nothing(uint32_t sum[4], const uint8_t *v, int row) {
#pragma unroll
    for (int panel = 0; panel < PANELS_V; panel++) {
        const uint4 x = *(const uint4 *)(v + (panel * KV_TILE + row) * ROW_BYTES + lane_id() % 8 * 16);
        sum[0] = fma_pair(x.x, 0, sum[0]);
        sum[1] = fma_pair(x.y, 0, sum[1]);
        sum[2] = fma_pair(x.z, 0, sum[2]);
        sum[3] = fma_pair(x.w, 0, sum[3]);
    }
}
SAC_FN int is_unfinite(const uint32_t sum[4]) { return (sum[0] | sum[1] | sum[2] | sum[3]) != 0; }

SAC_FN void clear_row(uint8_t *v, int row) {
#pragma unroll
    for (int panel = 0; panel < PANELS_V; panel++)
        *(uint4 *)(v + (panel * KV_TILE + row) * ROW_BYTES + lane_id() % 8 * 16) = make_uint4(0, 0, 0, 0);
}

SAC_FN void set_unfinite_aside(smem_layout *smem, uint32_t stage) {
    uint8_t *v = smem->v[stage];
    uint32_t sum[4] = {0, 0, 0, 0};
#pragma unroll 4
    for (int row = lane_id() / 8; row < KV_TILE; row += 4) add_nothing(sum, v, row);
    if (lane_id() < 4) smem->unfinite[stage][lane_id()] = 0;
    if (!warp_has(is_unfinite(sum))) return;
    for (int row = lane_id() / 8; row < KV_TILE; row += 4) {
        uint32_t own[4] = {0, 0, 0, 0};
        add_nothing(own, v, row);
        const uint32_t lanes = __ballot_sync(~0u, is_unfinite(own));
        if (!(lanes >> (lane_id() & 24) & 0xff)) continue;
        clear_row(v, row);
        if (lane_id() % 8 == 0) atomicOr(&smem->unfinite[stage][row / 32], 1u << row % 32);
    }
}

/* A warp beside the producer: passes every tile of values in its stages on, or at least the buffer. A stage is always
 * the same inspector's: one that has not seen a stage's turn before could take its barrier for that of the turn to
 * come. */
SAC_FN void inspect_values(smem_layout *smem, uint32_t inspector) {
    static_assert(INSPECTORS <= V_STAGES, "each needs a stage");
    for (ring v = {0, 0};; ring_next(&v, V_STAGES)) {
        if (v.stage % INSPECTORS != inspector) continue;
        ptx_mbarrier_wait(&smem->v_landed[v.stage], v.parity);
        const int32_t task = smem->v_task[v.stage];
        if (task == V_END) return;
        if (task == V_INSPECT) {
            set_unfinite_aside(smem, v.stage);
            ptx_fence_proxy_async_shared();
            release(&smem->v_full[v.stage]);
        }
        release(&smem->v_empty[v.stage]);
    }
}

/* The r-th row's probability at a key of the tile that p belongs to. */
SAC_FN float probability(const consumer *c, int from, int r, int key) {
    const uint32_t place = 1u << key / 8;
    uint32_t pair = 0;
#pragma unroll
    for (int j = 0; j < KV_TILE / 8; j++) pair += c->p[from][2 * j + r] * (place >> j & 1);
    pair = __shfl_sync(~0u, pair, (lane_id() & ~3) | key % 8 / 2);
    const float2 both = unpack(pair);
    return key % 2 ? both.y : both.x;
}

/* out += p v for the keys that were set aside. */
SAC_FN void add_unfinite(consumer *c, int from) {
    const sac_attention_args *args = c->args;
    const int32_t b = c->q->batch;
    const uint16_t *v = (const uint16_t *)args->v.data + batch_of(&args->len_k, b) * args->v.batch_stride +
                        c->q->head / args->group * args->v.head_stride + first_column();
    for (int key = 0; key < KV_TILE; key++) {
        if (!warp_has(c->smem->unfinite[c->v.stage][key / 32] >> key % 32 & 1)) continue;
        const int64_t row = (int64_t)row_of(&args->len_k, b) + c->v_begin + key;
        /* One address, and not one each. */
        const uint32_t *pairs = (const uint32_t *)(v + row * args->v.row_stride);
        const float p[2] = {probability(c, from, 0, key), probability(c, from, 1, key)};
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int j = 0; j < HEAD_DIM_V / 8 && p[r] != 0; j++) {
                const float2 pair = unpack(pairs[4 * j]);
                c->out[4 * j + 2 * r] += p[r] * pair.x;
                c->out[4 * j + 2 * r + 1] += p[r] * pair.y;
            }
    }
}

/* Before the products with the values of an inspected tile. */
SAC_FN void before_values(consumer *c, int from) {
    if (!warp_has(c->v_masked)) return;
    wait_v(c);
    const uint32_t *keys = c->smem->unfinite[c->v.stage];
    if (warp_has((keys[0] | keys[1] | keys[2] | keys[3]) != 0)) add_unfinite(c, from);
}

#endif
