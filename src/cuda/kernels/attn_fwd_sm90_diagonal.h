/* attn_fwd_sm90_diagonal.h - a tile of which each row sees one key at most: its products by hand.
 *
 * Multiplied whole, the tile would be KV_TILE products a row for one that counts. Here the four lanes that share a row
 * divide the product with its key, and each adds its own columns of the value. Only visible pairs are touched, so such
 * values need no inspection.
 */
#ifndef SAC_ATTN_FWD_SM90_DIAGONAL_H
#define SAC_ATTN_FWD_SM90_DIAGONAL_H

#include "cuda/kernels/attn_fwd_sm90_softmax.h"

/* Lists with bits have none. */
SAC_FN int is_diagonal(const kv_record *tile) {
    return BLOCK_MASK && !PACK && tile->flags >> KV_KIND == SAC_DIAGONAL;
}

/* Where 16 bytes of a row lie: the copy engine swaps them within their 128. */
SAC_FN const uint8_t *chunk_of(const uint8_t *tile, int rows, int row, int chunk) {
    return tile + (chunk / 8 * rows + row) * ROW_BYTES + ((chunk ^ row) % 8) * 16;
}

SAC_FN float product_of_pairs(uint32_t a, uint32_t b, float sum) {
    const float2 x = unpack(a), y = unpack(b);
    return fmaf(x.y, y.y, fmaf(x.x, y.x, sum));
}

/* q k of a row of this warpgroup and a key of the tile, in all four lanes. */
SAC_FN float product_of(const consumer *c, int row, int key) {
    const uint8_t *q = c->smem->q[c->q_ring.stage][warpgroup()], *k = c->smem->k[c->k.stage];
    float sum = 0;
#pragma unroll
    for (int chunk = 0; chunk < 8 * PANELS; chunk += 4) {
        const uint4 x = *(const uint4 *)chunk_of(q, 64, row, chunk + lane_id() % 4);
        const uint4 y = *(const uint4 *)chunk_of(k, KV_TILE, key, chunk + lane_id() % 4);
        sum = product_of_pairs(x.x, y.x, product_of_pairs(x.y, y.y, sum));
        sum = product_of_pairs(x.z, y.z, product_of_pairs(x.w, y.w, sum));
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
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
    float p[2] = {0, 0};
    int key[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = thread_row() + 8 * r;
        key[r] = key_seen(c, tile, r);
        const float product = product_of(c, row % 64, sac_max(key[r], 0));
        float top = MINUS_INF;
        if (key[r] >= 0) top = exponent_of_product(c, product, query_at(c->q, row), tile->begin + key[r]);
        if (warp_has(top > c->ref[r])) scale_row(c, r, raise(c, r, top));
        p[r] = ptx_exp2(top - (c->ref[r] == MINUS_INF ? 0 : c->ref[r]));
        if (lane_id() % 4 == 0) c->sum[r] += p[r];
    }
    __syncwarp();
    release(&c->smem->k_empty[c->k.stage]);
    ring_next(&c->k, KV_STAGES);

    wait_v(c);
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (key[r] >= 0) add_value(c, r, key[r], p[r]);
    __syncwarp();
    release(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, KV_STAGES);
}

#endif
