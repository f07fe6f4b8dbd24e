/* attn_bwd_diagonal_sm90.cu - the backward pass of key tiles that are seen along diagonals only, as in the later rounds
 * of an Eagle3: a query sees one key there, so that the five products of a tile are five of rows.
 *
 *   for each key tile, a period apart:     a few lanes a key
 *     for each query that sees the key:      the same one in all tiles: its rows and its dq stay in registers
 *       s = q k,  dp = dout v
 *       p = exp(s - lse),  ds = p (dp - delta)
 *       dv += p dout,  dk += ds q,  dq += ds k
 *     store dk, dv
 *   add dq to its sums
 *
 * At the least it reads k and v, and writes dk and dv, once. As tiles of products they would be two waits for memory
 * with a few products between, one CTA an SM (attn_bwd_sm90.cu, which leaves them out). Here an SM has several CTAs, and
 * each has the next tiles' rows on their way to shared memory, where every thread reads what it asked for itself: there
 * are no barriers.
 *
 * Grid: tiles of a period x key heads x batch, heads fastest. Needs, beside the modifiers' text: HEAD_DIM, HEAD_DIM_V,
 * DTYPE, KEY_LANES, NUM_THREADS, MIN_CTAS; and, each 0 or 1, SUM_DQ, MASK_MOD, SCORE_MOD, SOFTCAP, ALIBI, PRESCALED,
 * RAGGED.
 */
#include "cuda/kernels/attn_bwd_sm90.h"
#include "cuda/kernels/ptx/reduce.h"
#include "cuda/kernels/ptx/shared_memory.h"
#include "shared/tile_walk.h"

#define BACKWARD 1
#include "cuda/kernels/attn_sm90_score.h"

enum {
    CHUNK = 8,  /* columns in 16 bytes */
    CHUNKS = 2, /* of a lane */
    KEYS = NUM_THREADS / KEY_LANES,
    STAGES = 4, /* tiles whose rows are at hand, or on their way */
    SUM_GROUPS = (HEAD_DIM + SAC_SUM_COLUMNS - 1) / SAC_SUM_COLUMNS,
    SUM_GROUP_SIZE = SAC_SUM_ROWS * SAC_SUM_COLUMNS,
};
static_assert(KEY_LANES * CHUNKS * CHUNK >= HEAD_DIM && KEY_LANES * CHUNKS * CHUNK >= HEAD_DIM_V,
              "the lanes of a key hold its rows");

/* A lane's part of a row: every KEY_LANES-th chunk of it; zeros behind its last column, and where there is no row. */
typedef struct row_part {
    uint4 chunk[CHUNKS];
} row_part;
/* Of two rows, k and v or q and dout, in shared memory: each thread's own. They are read anew where they are used, which
 * spares registers. */
typedef uint4 staged_part[CHUNKS][NUM_THREADS];
typedef staged_part staged_pair[2];
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

SAC_FN void load_row(staged_part to, const sac_view *view, const sac_lengths *len, int32_t b, int32_t head,
                     int32_t row, int columns) {
    const uint16_t *from = row_at(view, len, b, head, row);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        to[i][threadIdx.x] =
            column_of(i) < columns ? *(const uint4 *)(from + column_of(i)) : make_uint4(0, 0, 0, 0);
}

SAC_FN row_part staged_row(const staged_part part) {
    row_part r;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) r.chunk[i] = ptx_ld_u32x4(ptx_smem_of(&part[i][threadIdx.x]));
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
SAC_FN float row_product(const staged_part first, const staged_part second) {
    const row_part a = staged_row(first), b = staged_row(second);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float x[CHUNK], y[CHUNK];
        unpack_chunk(&a.chunk[i], x);
        unpack_chunk(&b.chunk[i], y);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) sum = fmaf(x[j], y[j], sum);
    }
#pragma unroll
    for (int other = KEY_LANES / 2; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
    return sum;
}

SAC_FN void add_row(row_sums *sums, float factor, const staged_part part) {
    const row_part row = staged_row(part);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float x[CHUNK];
        unpack_chunk(&row.chunk[i], x);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) sums->x[i][j] = fmaf(factor, x[j], sums->x[i][j]);
    }
}

/* The keys of a CTA: of one head, the same part of a block in each period. */
typedef struct key_tiles {
    const sac_attention_args *args;
    int32_t batch, head;   /* of keys */
    int32_t block, offset; /* of the tile at hand */
    int32_t a_period;      /* blocks */
    sac_sequence sequence;
    sac_band band;
} key_tiles;

SAC_FN key_tiles own_tiles(const sac_attn_bwd_sm90_params *params) {
    const sac_attention_args *args = &params->args;
    const int32_t heads = args->batch * args->num_kv_heads,
                  a_block = sac_ceil_div(args->blocks.kv_block, KEYS);
    const int32_t head = blockIdx.x % heads, tile = blockIdx.x / heads;
    key_tiles t;
    t.args = args;
    t.batch = head / args->num_kv_heads;
    t.head = head % args->num_kv_heads;
    t.block = params->diagonals_from + tile / a_block;
    t.offset = tile % a_block * KEYS;
    t.a_period = sac_blocks_a_period(&args->blocks);
    t.sequence = sequence_of(args, t.batch);
    t.band = sac_band_make(&args->band, t.sequence.q_len, t.sequence.k_len);
    return t;
}

SAC_FN sac_range keys_of(const key_tiles *t, int32_t block) {
    const int32_t first = block * t->args->blocks.kv_block, begin = first + t->offset;
    const sac_range keys = {
        begin, sac_min(sac_min(begin + KEYS, first + t->args->blocks.kv_block), t->sequence.k_len)};
    return keys;
}

SAC_FN void fetch_row(staged_part to, const sac_view *view, const sac_lengths *len, int32_t b, int32_t head,
                      int32_t row, int columns, int there) {
    const uint16_t *from = row_at(view, len, b, head, row);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        ptx_cp_async(ptx_smem_of(&to[i][threadIdx.x]), from + column_of(i), there && column_of(i) < columns);
}

/* Behind the last block nothing comes, but the turn is taken. */
SAC_FN void fetch_key(const key_tiles *t, int32_t block, staged_pair to) {
    const sac_attention_args *args = t->args;
    if (block < args->blocks.num_kv_blocks) {
        const sac_range keys = keys_of(t, block);
        const int32_t index = keys.begin + threadIdx.x / KEY_LANES;
        const int there = index < keys.end;
        fetch_row(to[0], &args->k, &args->len_k, t->batch, t->head, index, HEAD_DIM, there);
        fetch_row(to[1], &args->v, &args->len_k, t->batch, t->head, index, HEAD_DIM_V, there);
    }
    ptx_cp_async_commit();
}

/* A lane's key. */
typedef struct lone_key {
    int32_t index;
    int there;
    const staged_part *rows; /* k and v */
} lone_key;

/* The one that was asked for first. */
SAC_FN lone_key take_key(sac_range keys, const staged_pair rows) {
    const int32_t index = keys.begin + threadIdx.x / KEY_LANES;
    const lone_key key = {index, index < keys.end, rows};
    PTX_CP_ASYNC_WAIT_ALL_BUT(STAGES - 2);
    return key;
}

/* The query that sees it: its rows, and its dQ as far as it is known. */
typedef struct lone_query {
    int32_t head, index; /* head -1: none yet */
    staged_part *rows;   /* q and dout */
    float lse, delta;    /* lse: base 2 */
    row_sums dq;
} lone_query;

SAC_FN void load_query(const sac_attn_bwd_sm90_params *params, int32_t b, int32_t head, int32_t index,
                       lone_query *query) {
    const sac_attention_args *args = &params->args;
    const sac_row_view *lse = &args->lse;
    const sac_lengths *len = &args->len_q;
    const int64_t row = row_of(len, b) + (int64_t)index;
    const int64_t before = len->cu_seqlens ? 0 : (int64_t)b * len->seqlen;
    query->head = head;
    query->index = index;
    load_row(query->rows[0], &args->q, len, b, head, index, HEAD_DIM);
    load_row(query->rows[1], &args->dout, len, b, head, index, HEAD_DIM_V);
    query->lse = lse_log2(
        lse->data[batch_of(len, b) * lse->batch_stride + head * lse->head_stride + row * lse->row_stride]);
    query->delta = params->delta[head * params->total_q + before + row];
}

/* Of a chunk each of four lanes' pairs of columns: the i-th pair of all four goes to the i-th lane. */
SAC_FN void share_pairs(float x[CHUNK]) {
    uint32_t even[4], odd[4];
#pragma unroll
    for (int i = 0; i < 4; i++) even[i] = __float_as_uint(x[2 * i]), odd[i] = __float_as_uint(x[2 * i + 1]);
    quad_transpose(even);
    quad_transpose(odd);
#pragma unroll
    for (int i = 0; i < 4; i++) x[2 * i] = __uint_as_float(even[i]), x[2 * i + 1] = __uint_as_float(odd[i]);
}

/* Adds a query's dQ to its sums, where a chunk is one row of a group, a pair of columns in each 16 bytes; and begins it
 * anew. Four lanes add to one chunk after the other, as fewer parts of lines as may be. */
SAC_FN void leave_dq(const sac_attn_bwd_sm90_params *params, int32_t b, lone_query *query, int leaves) {
#if SUM_DQ
    const int lane = key_lane() % 4, used = leaves && query->head >= 0;
    const int64_t row = query->head * params->sum_rows + sac_sum_row(&params->args.len_q, b) + query->index;
    float *first = params->dq_sum + row / SAC_SUM_ROWS * SUM_GROUPS * SUM_GROUP_SIZE + row % 8 * 16 +
                   row % SAC_SUM_ROWS / 8 * 2 + lane * 4;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int group = column_of(i) / CHUNK - lane;
        row_sums shared = query->dq;
        share_pairs(shared.x[i]);
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (used && group + j < SUM_GROUPS)
                ptx_add_f32x2(first + (group + j) * SUM_GROUP_SIZE, shared.x[i][2 * j],
                              shared.x[i][2 * j + 1]);
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
            if (leaves) query->dq.x[i][j] = 0;
    }
#endif
}

/* P and dS, from the products of their rows. One lane asks: gradients of aux tensors must be added once. */
SAC_FN float2 pair_gradients(const key_tiles *t, const lone_query *query, int32_t key, int seen, float s,
                             float dp) {
    const sac_attention_args *args = t->args;
    float p = 0, ds = 0;
    if (seen && key_lane() == 0) {
#if PRESCALED
        const int32_t distance = query->index + t->sequence.k_len - t->sequence.q_len - key;
        const score_place place = {
            t->batch, query->head, query->index, key,
            ALIBI ? args->alibi_slopes[t->batch * args->alibi_batch_stride + query->head] *
                        fabsf((float)distance)
                  : 0};
        const modified_score m = modify_score(args, &place, s);
        p = ptx_exp2(fmaf(m.score, score_to_log2(args), -query->lse));
        ds = modify_gradient(args, &place, &m, p * (dp - query->delta));
#else
        p = ptx_exp2(fmaf(s, score_to_log2(args), -query->lse));
        ds = p * (dp - query->delta);
#endif
    }
    const int first = lane_id() & -KEY_LANES;
    return make_float2(__shfl_sync(~0u, p, first), __shfl_sync(~0u, ds, first));
}

/* Sums of a key's gradients. */
typedef struct key_sums {
    row_sums dk, dv;
} key_sums;

/* Where a lane's pair is not seen nothing is added: 0 times what is there might be NaN. */
SAC_FN void add_pair(const key_tiles *t, const lone_query *query, const lone_key *key, int seen,
                     key_sums *sums, row_sums *dq) {
    const float s = row_product(query->rows[0], key->rows[0]), dp = row_product(query->rows[1], key->rows[1]);
    const float2 g = pair_gradients(t, query, key->index, seen, s, dp);
    if (!seen) return;
    add_row(&sums->dv, g.x, query->rows[1]);
    add_row(&sums->dk, g.y, query->rows[0]);
    if (SUM_DQ) add_row(dq, g.y, key->rows[0]);
}

/* All queries that see a lane's key, in the tile's keys. */
SAC_FN void attend_key(const sac_attn_bwd_sm90_params *params, const key_tiles *t, sac_range keys,
                       const lone_key *key, lone_query *query) {
    const sac_attention_args *args = t->args;
    key_sums sums = {};
    for (int32_t i = 0; i < args->group; i++) {
        const int32_t head = t->head * args->group + i;
        sac_walk walk = sac_walk_queries(args, &t->band, t->batch, head, keys, KEYS);
        for (sac_tile tile; sac_walk_next(&walk, &tile);) {
            const int32_t index = key->index - tile.delta;
            int seen = key->there && index >= tile.begin && index < tile.end &&
                       (!tile.banded || sac_band_visible(&t->band, index, key->index));
#if MASK_MOD
            seen = seen && sac_mask_mod(t->batch, head, index, key->index, &args->mask_aux);
#endif
            const int other = seen && (head != query->head || index != query->index);
            if (warp_has(other)) {
                leave_dq(params, t->batch, query, other);
                if (other) load_query(params, t->batch, head, index, query);
            }
            if (warp_has(seen)) add_pair(t, query, key, seen, &sums, &query->dq);
        }
    }
    if (!key->there) return;
    store_row(&sums.dk, &args->dk, &args->len_k, t->batch, t->head, key->index, HEAD_DIM, args->scale);
    store_row(&sums.dv, &args->dv, &args->len_k, t->batch, t->head, key->index, HEAD_DIM_V, 1);
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, MIN_CTAS)
    attn_bwd_diagonal_sm90(const __grid_constant__ sac_attn_bwd_sm90_params params) {
    __shared__ staged_pair stages[STAGES], rows;
    key_tiles tiles = own_tiles(&params);
    lone_query query = {};
    query.rows = rows;
    query.head = -1;
    for (int i = 0; i < STAGES - 1; i++) fetch_key(&tiles, tiles.block + i * tiles.a_period, stages[i]);
    for (int stage = 0; tiles.block < params.args.blocks.num_kv_blocks; stage = (stage + 1) % STAGES) {
        const sac_range keys = keys_of(&tiles, tiles.block);
        const lone_key key = take_key(keys, stages[stage]);
        fetch_key(&tiles, tiles.block + (STAGES - 1) * tiles.a_period, stages[(stage + STAGES - 1) % STAGES]);
        attend_key(&params, &tiles, keys, &key, &query);
        tiles.block += tiles.a_period;
        __syncwarp();
    }
    leave_dq(&params, tiles.batch, &query, 1);
}
