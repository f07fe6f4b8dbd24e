/* attn_fwd_sm90_diagonal.h - a tile of which each row sees one key at most: its products by hand.
 *
 * Multiplied whole, the tile would be KV_TILE products a row for one that counts. Here a warp multiplies its 16 rows
 * with their 16 keys, and each lane adds its own columns of the one value that a row sees. So such values need no
 * inspection.
 */
#ifndef SAC_ATTN_FWD_SM90_DIAGONAL_H
#define SAC_ATTN_FWD_SM90_DIAGONAL_H

#include "cuda/kernels/attn_fwd_sm90_softmax.h"
#include "cuda/kernels/ptx/mma.h"

/* Lists with bits have none. */
SAC_FN int is_diagonal(const kv_record *tile) {
    return BLOCK_MASK && !PACK && tile->flags >> KV_KIND == SAC_DIAGONAL;
}

/* q k of this thread's two rows, each with its own key. They are the diagonals of two products of the warp's 16 rows:
 * with the keys of its first eight rows, and with those of its last. In which order columns are summed is free, so
 * that lanes load whole chunks. */
SAC_FN void products_of(const consumer *c, const int key[2], float product[2]) {
    const uint8_t *q = c->smem->q[c->q_ring.stage], *k = c->smem->k[c->k.stage];
    const int row = thread_row() % 64, of_eight = lane_id() / 4;
    float upper[4] = {0, 0, 0, 0}, lower[4] = {0, 0, 0, 0};
#pragma unroll
    for (int chunk = lane_id() % 4; chunk < 8 * PANELS; chunk += 4) {
        const uint4 x = *(const uint4 *)chunk_of(q, 64, row, chunk),
                    y = *(const uint4 *)chunk_of(q, 64, row + 8, chunk);
        const uint4 u = *(const uint4 *)chunk_of(k, KV_TILE, key[0], chunk);
        const uint4 v = *(const uint4 *)chunk_of(k, KV_TILE, key[1], chunk);
        const uint32_t rows[2][4] = {{x.x, y.x, x.y, y.y}, {x.z, y.z, x.w, y.w}};
        const uint32_t first[2][2] = {{u.x, u.y}, {u.z, u.w}}, last[2][2] = {{v.x, v.y}, {v.z, v.w}};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            mma_warp(upper, rows[i], first[i]);
            mma_warp(lower, rows[i], last[i]);
        }
    }
    const int owner = (lane_id() & ~3) + of_eight / 2;
    product[0] = __shfl_sync(~0u, of_eight % 2 ? upper[1] : upper[0], owner);
    product[1] = __shfl_sync(~0u, of_eight % 2 ? lower[3] : lower[2], owner);
}

/* The key of the tile that the r-th row sees; -1: none. */
SAC_FN int key_seen(const consumer *c, const kv_record *tile, int r) {
    const int32_t i = query_at(c->q, thread_row() + 8 * r), j = i + tile->delta;
    if (i >= c->q->end || j < tile->begin || j >= tile->end || !sac_band_visible(&c->q->band, i, j))
        return -1;
#if MASK_MOD
    if (!sac_mask_mod(c->q->batch, c->q->head, i, j, &c->args->mask_aux)) return -1;
#endif
    return j - tile->begin;
}

/* The exponent of 2 that a product stands for. */
SAC_FN float exponent_of_product(const consumer *c, float product, int32_t i, int32_t j) {
#if PRESCALED
    const int32_t distance = i + c->q->band.seqlen_k - c->q->band.seqlen_q - j;
    const score_place at = {c->q->batch, c->q->head, i, j, ALIBI ? c->q->slope * fabsf((float)distance) : 0};
    product = modify_score(c->args, &at, product).score;
#endif
    return product * c->scale_log2;
}

SAC_FN void add_value(consumer *c, int r, int key, float p) {
    const uint8_t *v = c->smem->v[c->v.stage];
#pragma unroll
    for (int j = 0; j < HEAD_DIM_V / 8; j++) {
        const float2 pair = unpack(*(const uint32_t *)(chunk_of(v, KV_TILE, key, j) + lane_id() % 4 * 4));
        c->out[4 * j + 2 * r] = fmaf(p, pair.x, c->out[4 * j + 2 * r]);
        c->out[4 * j + 2 * r + 1] = fmaf(p, pair.y, c->out[4 * j + 2 * r + 1]);
    }
}

/* All of a tile, with its turns of k and v. */
SAC_FN void attend_diagonal(consumer *c, const kv_record *tile) {
    const int key[2] = {key_seen(c, tile, 0), key_seen(c, tile, 1)},
              loaded[2] = {sac_max(key[0], 0), sac_max(key[1], 0)};
    float product[2], p[2];
    products_of(c, loaded, product);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t i = query_at(c->q, thread_row() + 8 * r);
        const float top =
            key[r] < 0 ? MINUS_INF : exponent_of_product(c, product[r], i, tile->begin + key[r]);
        if (warp_has(top > c->ref[r])) scale_out(c, r, raise(c, r, top));
        p[r] = ptx_exp2(top - (c->ref[r] == MINUS_INF ? 0 : c->ref[r]));
        if (lane_id() % 4 == 0) c->sum[r] += p[r];
    }
    release(&c->smem->k_empty[c->k.stage]);
    ring_next(&c->k, KV_STAGES);

    wait_v(c);
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (key[r] >= 0) add_value(c, r, key[r], p[r]);
    release(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, KV_STAGES);
}

#endif
