/* attn_bwd_sm90_diagonal.h - key tiles that are seen along diagonals only, as in the later rounds of an Eagle3: a
 * query sees one key there, so that the five products of a tile are five of rows.
 *
 * As tiles they would be a few products between two waits for memory, one CTA an SM. By hand they are what memory
 * gives: a few lanes share a key, so that the rows of as many keys as a warp has quads are on their way at once; the
 * query that sees it is read for it, and its dQ added. All threads of the CTA take part, and neither shared memory
 * nor a barrier is used.
 */
#ifndef SAC_ATTN_BWD_SM90_DIAGONAL_H
#define SAC_ATTN_BWD_SM90_DIAGONAL_H

#include "cuda/kernels/attn_bwd_sm90_producer.h"
#include "cuda/kernels/attn_bwd_sm90_score.h"
#include "cuda/kernels/attn_bwd_sm90_store.h"

enum {
    CHUNK = 8,  /* columns in 16 bytes */
    CHUNKS = 2, /* of a lane */
    MOST_PANELS = PANELS > PANELS_V ? PANELS : PANELS_V,
    KEY_LANES = MOST_PANELS > 2 ? 16 : 4 * MOST_PANELS,
};

/* The entries of a key tile's lists name no other blocks. */
SAC_FN int only_diagonals(const sac_attn_bwd_sm90_params *params, const key_tile *own) {
    const sac_block_mask_args *blocks = &params->args.blocks;
    const int32_t group = params->args.group, lists = blocks->num_heads == 1 ? 1 : group;
    if (!blocks->period || params->num_parts > 1) return 0;
    for (int32_t i = 0; i < lists; i++) {
        sac_walk walk = {};
        sac_walk_lists(&walk, blocks, &blocks->by_key, own->batch, own->head * group + i,
                       blocks->num_kv_blocks, own->keys.begin / blocks->kv_block, blocks->q_block);
        for (; walk.entry < walk.entry_end; walk.entry++)
            if (SAC_ENTRY_KIND(*walk.entry) != SAC_DIAGONAL) return 0;
    }
    return 1;
}

/* A lane's part of a row: every KEY_LANES-th chunk of it; zeros behind its last column, and where there is no row. */
typedef struct row_part {
    uint4 chunk[CHUNKS];
} row_part;
typedef struct row_sums {
    float x[CHUNKS][CHUNK];
} row_sums;

SAC_FN int key_lane(void) { return lane_id() % KEY_LANES; }
SAC_FN int column_of(int chunk) { return (chunk * KEY_LANES + key_lane()) * CHUNK; }

SAC_FN void unpack_chunk(const uint4 *chunk, float x[CHUNK]) {
    const uint32_t words[4] = {chunk->x, chunk->y, chunk->z, chunk->w};
#pragma unroll
    for (int i = 0; i < CHUNK / 2; i++) {
        const float2 pair = unpack(words[i]);
        x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
}

SAC_FN uint16_t *row_at(const sac_view *view, const sac_lengths *len, int32_t b, int32_t head, int32_t row) {
    return (uint16_t *)view->data + batch_of(len, b) * view->batch_stride + head * view->head_stride +
           (row_of(len, b) + (int64_t)row) * view->row_stride;
}

/* once: nobody reads it again, and the L2 had better keep queries and sums of dQ, which all rounds share. */
SAC_FN row_part load_row(const sac_view *view, const sac_lengths *len, int32_t b, int32_t head, int32_t row,
                         int columns, int there, int once) {
    const uint16_t *from = row_at(view, len, b, head, row);
    row_part r;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        if (there && column_of(i) < columns) {
            const uint4 *at = (const uint4 *)(from + column_of(i));
            r.chunk[i] = once ? __ldcs(at) : *at;
        } else {
            r.chunk[i] = make_uint4(0, 0, 0, 0);
        }
    return r;
}

SAC_FN void store_row(const row_sums *sums, const sac_view *view, const sac_lengths *len, int32_t b,
                      int32_t head, int32_t row, int columns, float scale) {
    if (!view->data) return;
    uint16_t *to = row_at(view, len, b, head, row);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const float *x = sums->x[i];
        if (column_of(i) < columns)
            __stcs((uint4 *)(to + column_of(i)),
                   make_uint4(pack(x[0] * scale, x[1] * scale), pack(x[2] * scale, x[3] * scale),
                              pack(x[4] * scale, x[5] * scale), pack(x[6] * scale, x[7] * scale)));
    }
}

/* Over the lanes of a key. */
SAC_FN float row_product(const row_part *a, const row_part *b) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float x[CHUNK], y[CHUNK];
        unpack_chunk(&a->chunk[i], x);
        unpack_chunk(&b->chunk[i], y);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) sum = fmaf(x[j], y[j], sum);
    }
#pragma unroll
    for (int other = KEY_LANES / 2; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
    return sum;
}

SAC_FN void add_row(row_sums *sums, float factor, const row_part *row) {
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float x[CHUNK];
        unpack_chunk(&row->chunk[i], x);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) sums->x[i][j] = fmaf(factor, x[j], sums->x[i][j]);
    }
}

/* A pair on a diagonal. */
typedef struct lone_pair {
    int32_t b, head, query, key;
    int seen;
} lone_pair;

/* lse, base 2, and delta of a query. */
SAC_FN float2 load_lse_and_delta(const sac_attn_bwd_sm90_params *params, const lone_pair *at) {
    const sac_row_view *lse = &params->args.lse;
    const sac_lengths *len = &params->args.len_q;
    const int64_t row = row_of(len, at->b) + (int64_t)at->query;
    const int64_t before = len->cu_seqlens ? 0 : (int64_t)at->b * len->seqlen;
    if (!at->seen) return make_float2(0, 0);
    return make_float2(lse_log2(lse->data[batch_of(len, at->b) * lse->batch_stride +
                                          at->head * lse->head_stride + row * lse->row_stride]),
                       params->delta[at->head * params->total_q + before + row]);
}

/* P and dS, from the products of their rows. One lane asks: gradients of aux tensors must be added once. */
SAC_FN float2 pair_gradients(const sac_attention_args *args, const lone_pair *at,
                             const sac_sequence *sequence, float2 lse_and_delta, float s, float dp) {
    const float lse = lse_and_delta.x, delta = lse_and_delta.y;
    float p = 0, ds = 0;
    if (at->seen && key_lane() == 0) {
#if PRESCALED
        const int32_t distance = at->query + sequence->k_len - sequence->q_len - at->key;
        const score_place place = {at->b, at->head, at->query, at->key,
                                   ALIBI ? args->alibi_slopes[at->b * args->alibi_batch_stride + at->head] *
                                               fabsf((float)distance)
                                         : 0};
        const modified_score m = modify_score(args, &place, s);
        p = ptx_exp2(fmaf(m.score, score_to_log2(args), -lse));
        ds = modify_gradient(args, &place, &m, p * (dp - delta));
#else
        p = ptx_exp2(fmaf(s, score_to_log2(args), -lse));
        ds = p * (dp - delta);
#endif
    }
    const int first = lane_id() & -KEY_LANES;
    return make_float2(__shfl_sync(~0u, p, first), __shfl_sync(~0u, ds, first));
}

#if SUM_DQ
/* Adds to the sums of dQ, where 16 bytes are two columns of one chunk and two of the next, which a neighbour has. */
SAC_FN void add_dq_row(const sac_attn_bwd_sm90_params *params, const lone_pair *at, float ds,
                       const row_part *k) {
    const int odd = key_lane() % 2;
    const int64_t row = at->head * params->sum_rows + sac_sum_row(&params->args.len_q, at->b) + at->query;
    float *first = params->dq_sum + row / SAC_SUM_ROWS * SUM_GROUPS * SUM_GROUP_SIZE +
                   row % SAC_SUM_ROWS * SAC_SUM_COLUMNS + odd * 4;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float x[CHUNK], other[4];
        unpack_chunk(&k->chunk[i], x);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) x[j] *= ds;
#pragma unroll
        for (int j = 0; j < 4; j++) /* the even lane has columns 0, 1, 4, 5 of both, the odd one the others */
            other[j] = __shfl_xor_sync(~0u, odd ? x[j / 2 * 4 + j % 2] : x[j / 2 * 4 + 2 + j % 2], 1);
        float *to = first + column_of(i) / SAC_SUM_COLUMNS * SUM_GROUP_SIZE;
        if (!at->seen || column_of(i) / SAC_SUM_COLUMNS >= SUM_GROUPS) continue;
        if (odd) {
            ptx_add_f32x4(to, other[0], other[1], x[2], x[3]);
            ptx_add_f32x4(to + 8, other[2], other[3], x[6], x[7]);
        } else {
            ptx_add_f32x4(to, x[0], x[1], other[0], other[1]);
            ptx_add_f32x4(to + 8, x[4], x[5], other[2], other[3]);
        }
    }
}
#endif

/* The rows of a key, and the sums of its gradients. */
typedef struct lone_key {
    row_part k, v;
    row_sums dk, dv;
} lone_key;

SAC_FN void add_pair(const sac_attn_bwd_sm90_params *params, const lone_pair *at,
                     const sac_sequence *sequence, lone_key *key) {
    const sac_attention_args *args = &params->args;
    const row_part q = load_row(&args->q, &args->len_q, at->b, at->head, at->query, HEAD_DIM, at->seen, 0);
    const row_part dout =
        load_row(&args->dout, &args->len_q, at->b, at->head, at->query, HEAD_DIM_V, at->seen, 0);
    const float2 lse_and_delta = load_lse_and_delta(params, at);
    const float s = row_product(&q, &key->k), dp = row_product(&dout, &key->v);
    const float2 g = pair_gradients(args, at, sequence, lse_and_delta, s, dp);
    add_row(&key->dv, g.x, &dout);
    add_row(&key->dk, g.y, &q);
#if SUM_DQ
    add_dq_row(params, at, g.y, &key->k);
#endif
}

/* A lane's key: its rows. */
SAC_FN void load_key(const sac_attn_bwd_sm90_params *params, const key_tile *own, int32_t index, row_part *k,
                     row_part *v) {
    const sac_attention_args *args = &params->args;
    const int there = index < own->keys.end;
    *k = load_row(&args->k, &args->len_k, own->batch, own->head, index, HEAD_DIM, there, 1);
    *v = load_row(&args->v, &args->len_k, own->batch, own->head, index, HEAD_DIM_V, there, 1);
}

/* All queries that see a lane's key. */
SAC_FN void attend_key(const sac_attn_bwd_sm90_params *params, const key_tile *own, int32_t index,
                       lone_key *key) {
    const sac_attention_args *args = &params->args;
    const sac_band band = sac_band_make(&args->band, own->sequence.q_len, own->sequence.k_len);
    const int there = index < own->keys.end;
    for (int32_t i = 0; i < args->group; i++) {
        lone_pair at = {own->batch, own->head * args->group + i, 0, index, 0};
        sac_walk walk = sac_walk_queries(args, &band, own->batch, at.head, own->keys, KV_TILE);
        for (sac_tile tile; sac_walk_next(&walk, &tile);) {
            at.query = index - tile.delta;
            at.seen = there && at.query >= tile.begin && at.query < tile.end &&
                      sac_band_visible(&band, at.query, index);
#if MASK_MOD
            at.seen = at.seen && sac_mask_mod(at.b, at.head, at.query, index, &args->mask_aux);
#endif
            if (warp_has(at.seen)) add_pair(params, &at, &own->sequence, key);
        }
    }
    if (!there) return;
    store_row(&key->dk, &args->dk, &args->len_k, own->batch, own->head, index, HEAD_DIM, args->scale);
    store_row(&key->dv, &args->dv, &args->len_k, own->batch, own->head, index, HEAD_DIM_V, 1);
}

/* The next key's rows are on their way meanwhile. */
SAC_FN void attend_diagonals(const sac_attn_bwd_sm90_params *params, const key_tile *own) {
    enum { STEP = THREADS / KEY_LANES };
    int32_t index = own->keys.begin + threadIdx.x / KEY_LANES;
    row_part k, v;
    load_key(params, own, index, &k, &v);
    for (; warp_has(index < own->keys.end); index += STEP) {
        lone_key key = {k, v};
        load_key(params, own, index + STEP, &k, &v);
        attend_key(params, own, index, &key);
    }
}

#endif
