/* attn_fwd_sm90.cu - forward attention on Hopper. One CTA a multiprocessor takes query tiles until none is left.
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
 *   - out is rescaled only when a row's maximum grew by more than 8 in base 2. Invariant: out and sum are the true
 *     ones divided by 2^ref, where ref is a maximum the row once had; p is at most 2^8;
 *   - scores stay unscaled: scaling and subtracting ref is one FMA inside the exponent;
 *   - only tiles that hide some pair run code for masking.
 *
 * Needs from attn_fwd_sm90.c, beside the modifiers' text: HEAD_DIM, HEAD_DIM_V, DTYPE; CONSUMERS, KV_TILE, Q_STAGES,
 * KV_STAGES, PRODUCER_REGS, CONSUMER_REGS (its table of tiles); and, each 0 or 1, what a variant computes:
 * BLOCK_MASK, MASK_MOD, SCORE_MOD, SOFTCAP, ALIBI, PRESCALED (scores are scaled before the softmax: any of the last
 * three, or a scale that is not positive), RAGGED (lengths come from device memory).
 */
#include "cuda/kernels/attn_fwd_sm90.h"
#include "cuda/kernels/ptx/convert.h"
#include "cuda/kernels/ptx/fence.h"
#include "cuda/kernels/ptx/mbarrier.h"
#include "cuda/kernels/ptx/tma.h"
#include "cuda/kernels/ptx/warpgroup.h"
#include "cuda/kernels/ptx/wgmma.h"
#include "shared/tile_walk.h"
#if MASK_MOD || SCORE_MOD
#include <modifiers.h> /* sac_score_mod, sac_mask_mod: made for the call */
#endif

#define Q_TILE (64 * CONSUMERS)
#define THREADS (128 * (1 + CONSUMERS))
#define ROW_BYTES 128 /* of a panel: 64 columns */
#define PANELS ((HEAD_DIM + 63) / 64)
#define PANELS_V ((HEAD_DIM_V + 63) / 64)
#define Q_BYTES (Q_TILE * PANELS * ROW_BYTES)
#define K_BYTES (KV_TILE * PANELS * ROW_BYTES)
#define V_BYTES (KV_TILE * PANELS_V * ROW_BYTES)
#define MINUS_INF __int_as_float(0xff800000)
#define LOG2_E 1.44269504088896340736f
#define LN_2 0.69314718055994530942f
#define MAX_GROWTH 8.0f /* base 2 */

#if DTYPE == 2
#define INPUT_TYPE "bf16"
#define pack ptx_pack_bf16
#else
#define INPUT_TYPE "f16"
#define pack ptx_pack_f16
#endif

PTX_WGMMA_SS(mma_scores_set, KV_TILE, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS(mma_scores_add, KV_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
PTX_WGMMA_RS(mma_values_add, HEAD_DIM_V, INPUT_TYPE, PTX_WGMMA_ADD)

/* What the producer tells the consumers about a query tile and about a key tile. */
typedef struct __align__(16) q_record {
    int32_t batch, head; /* batch -1: no more work */
    int32_t begin, end;  /* rows of out, of their sequence */
    int32_t any;         /* some row sees some key: there are key tiles */
}
q_record;
typedef struct __align__(16) kv_record {
    int32_t begin, end;
    int32_t flags; /* KV_LAST, KV_MASKED, and the kind << KV_KIND */
    int32_t delta; /* DIAGONAL */
}
kv_record;
enum { KV_LAST = 1, KV_MASKED = 2, KV_KIND = 2 };

typedef struct smem_layout {
    uint8_t q[Q_STAGES][Q_BYTES];
    uint8_t k[KV_STAGES][K_BYTES];
    uint8_t v[KV_STAGES][V_BYTES];
    uint64_t q_full[Q_STAGES], q_empty[Q_STAGES];
    uint64_t k_full[KV_STAGES], k_empty[KV_STAGES];
    uint64_t v_full[KV_STAGES], v_empty[KV_STAGES];
    q_record q_tile[Q_STAGES + 1]; /* one more: read until the tile is stored, when q is long free */
    kv_record kv_tile[KV_STAGES];
} smem_layout;

/* A position in a ring of buffers; parity flips with every turn. */
typedef struct ring {
    uint32_t stage, parity;
} ring;
SAC_FN void ring_next(ring *r, uint32_t stages) {
    if (++r->stage == stages) {
        r->stage = 0;
        r->parity ^= 1;
    }
}

/* ---- producer ---- */

typedef struct producer {
    const sac_attn_fwd_sm90_params *params;
    smem_layout *smem;
    ring q, k, v;
    uint32_t q_tile;                   /* where the next q_record goes */
    int32_t kv_head, kv_batch, kv_row; /* where the tile's keys start */
} producer;

/* A tile: one box for each panel of 64 columns. */
SAC_FN void load_tile(uint8_t *to, const sac_tensor_map *map, uint64_t *full, int rows, int panels,
                      int32_t row, int32_t head, int32_t batch) {
    ptx_mbarrier_arrive_expect(full, rows * panels * ROW_BYTES);
    for (int p = 0; p < panels; p++)
        ptx_tma_load(to + p * rows * ROW_BYTES, map, full, p * 64, row, head, batch);
}

SAC_FN sac_sequence sequence_of(const sac_attention_args *args, int32_t b) {
    const sac_sequence whole = {0, 0, args->len_q.seqlen, args->len_k.seqlen};
    return RAGGED ? sac_sequence_of(args, b) : whole;
}
/* Where sequence b starts in the tensors of one side: its row and its batch coordinate. */
SAC_FN int32_t batch_of(const sac_lengths *len, int32_t b) { return RAGGED && len->cu_seqlens ? 0 : b; }
SAC_FN int32_t row_of(const sac_lengths *len, int32_t b) {
    return RAGGED && len->cu_seqlens ? len->cu_seqlens[b] : 0;
}

SAC_FN void load_q(producer *w, const q_record *q) {
    smem_layout *smem = w->smem;
    const sac_attn_fwd_sm90_params *params = w->params;
    uint32_t s = w->q.stage;
    ptx_mbarrier_wait(&smem->q_empty[s], w->q.parity ^ 1);
    smem->q_tile[w->q_tile] = *q;
    if (q->any)
        load_tile(smem->q[s], &params->q, &smem->q_full[s], Q_TILE, PANELS,
                  row_of(&params->args.len_q, q->batch) + q->begin, q->head,
                  batch_of(&params->args.len_q, q->batch));
    else
        ptx_mbarrier_arrive(&smem->q_full[s]);
    ring_next(&w->q, Q_STAGES);
    w->q_tile = w->q_tile == Q_STAGES ? 0 : w->q_tile + 1;
}

SAC_FN void load_k(producer *w, const sac_tile *tile, int last) {
    smem_layout *smem = w->smem;
    const sac_attn_fwd_sm90_params *params = w->params;
    uint32_t s = w->k.stage;
    int masked = tile->banded || tile->end - tile->begin < KV_TILE ||
                 (MASK_MOD && tile->kind == SAC_PARTIAL) || tile->kind == SAC_DIAGONAL;
    ptx_mbarrier_wait(&smem->k_empty[s], w->k.parity ^ 1);
    kv_record record = {tile->begin, tile->end,
                        (last ? KV_LAST : 0) | (masked ? KV_MASKED : 0) | tile->kind << KV_KIND, tile->delta};
    smem->kv_tile[s] = record;
    load_tile(smem->k[s], &params->k, &smem->k_full[s], KV_TILE, PANELS, w->kv_row + tile->begin, w->kv_head,
              w->kv_batch);
    ring_next(&w->k, KV_STAGES);
}

SAC_FN void load_v(producer *w, int32_t begin) {
    smem_layout *smem = w->smem;
    const sac_attn_fwd_sm90_params *params = w->params;
    uint32_t s = w->v.stage;
    ptx_mbarrier_wait(&smem->v_empty[s], w->v.parity ^ 1);
    load_tile(smem->v[s], &params->v, &smem->v_full[s], KV_TILE, PANELS_V, w->kv_row + begin, w->kv_head,
              w->kv_batch);
    ring_next(&w->v, KV_STAGES);
}

/* Rows of out that belong to sequence b, used or not. Packed rows behind the last sequence count as one more. */
SAC_FN int32_t rows_of(const sac_attn_fwd_sm90_params *params, int32_t b) {
    const sac_lengths *len = &params->args.len_q;
    if (!RAGGED || !len->cu_seqlens) return len->seqlen;
    return (b == params->args.batch ? (int32_t)params->total_q : len->cu_seqlens[b + 1]) - len->cu_seqlens[b];
}

/* The index-th query tile in the order of work. */
SAC_FN q_record locate(const sac_attn_fwd_sm90_params *params, int32_t index) {
    const sac_tile_place place = sac_tile_place_of(&params->order, index);
    q_record q;
    q.batch = place.head / params->args.num_heads;
    q.head = place.head % params->args.num_heads;
    const int32_t q_block = BLOCK_MASK ? params->args.blocks.q_block : 0;
    const sac_range rows = sac_tile_rows(place.tile, rows_of(params, q.batch), Q_TILE, q_block);
    q.begin = rows.begin;
    q.end = RAGGED && q.batch == params->args.batch ? rows_of(params, q.batch) : rows.end;
    q.any = 0;
    return q;
}

SAC_FN sac_walk walk_keys(const sac_attention_args *args, const q_record *q) {
    sac_sequence sequence = sequence_of(args, q->batch);
    sac_band band = sac_band_make(&args->band, sequence.q_len, sequence.k_len);
    sac_range rows = {q->begin, sac_min(q->end, sequence.q_len)};
    sac_walk walk = sac_walk_keys(args, &band, q->batch, q->head, rows, KV_TILE);
    if (!BLOCK_MASK) walk.entry = walk.entry_end = 0; /* and the compiler forgets them */
    if (rows.begin >= rows.end) walk.run.end = walk.run.begin;
    return walk;
}

/* k leads v by one tile, as the consumers want them. */
SAC_FN void produce_tile(producer *w, q_record *q) {
    const sac_attention_args *args = &w->params->args;
    if (RAGGED && q->batch == args->batch) {
        load_q(w, q);
        return;
    }
    sac_walk walk = walk_keys(args, q);
    sac_tile tile, next;
    q->any = sac_walk_next(&walk, &tile);
    load_q(w, q);
    if (!q->any) return;
    w->kv_head = q->head / args->group;
    w->kv_batch = batch_of(&args->len_k, q->batch);
    w->kv_row = row_of(&args->len_k, q->batch);
    int more = sac_walk_next(&walk, &next);
    load_k(w, &tile, !more);
    while (more) {
        int32_t begin = tile.begin;
        tile = next;
        more = sac_walk_next(&walk, &next);
        load_k(w, &tile, !more);
        load_v(w, begin);
    }
    load_v(w, tile.begin);
}

/* Query tiles are handed out one at a time, so that the CTAs end together. */
SAC_FN void produce(const sac_attn_fwd_sm90_params *params, smem_layout *smem) {
    producer w = {params, smem, {0, 0}, {0, 0}, {0, 0}, 0, 0, 0, 0};
    int32_t index = blockIdx.x;
    while (index < params->order.total) {
        int32_t next = gridDim.x + atomicAdd(params->next_tile, 1);
        q_record q = locate(params, index);
        if (q.begin < q.end) produce_tile(&w, &q);
        index = next;
    }
    q_record end = {-1, 0, 0, 0, 0};
    load_q(&w, &end);
}

/* ---- consumers ---- */

typedef struct consumer {
    const sac_attention_args *args;
    smem_layout *smem;
    const q_record *q; /* the tile at hand */
    ring q_ring, k, v;
    uint32_t warpgroup;
    uint32_t q_rows;           /* where this warpgroup's rows of q lie */
    int32_t key_end;           /* its rows see no key from here on */
    int32_t v_rows;            /* keys of the tile that p belongs to */
    float scale_log2;          /* what s is multiplied by in the exponent */
    float s[KV_TILE / 2];      /* scores */
    uint32_t p[KV_TILE / 4];   /* probabilities, packed as operands */
    float out[HEAD_DIM_V / 2]; /* these four hold what the invariant at the top says */
    float sum[2];              /* over this thread's columns */
    float ref[2];              /* 0 for a row that has seen nothing */
    float limit[2];            /* the score up to which ref serves; -inf for a row that has seen nothing */
} consumer;

SAC_FN int lane_id(void) { return threadIdx.x % 32; }
SAC_FN void release(uint64_t *empty) {
    if (lane_id() == 0) ptx_mbarrier_arrive(empty);
}

/* A condition on which all lanes agree, said in a way that keeps the branch uniform. */
SAC_FN int warp_has(int condition) { return __any_sync(~0u, condition); }

/* A thread holds two rows of its warpgroup's 64 and, of each eight columns of a tile, two: s[i] is the score of row
 * first_row + ROW_OF(i) and column first_column + COLUMN_OF(i) of the tile. */
#define ROW_OF(i) ((i) / 2 % 2 * 8)
#define COLUMN_OF(i) ((i) / 4 * 8 + (i) % 2)
SAC_FN int32_t first_row(const consumer *c) {
    return c->q->begin + c->warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane_id() / 4;
}
SAC_FN int first_column(void) { return lane_id() % 4 * 2; }

/* s = q k^T, asynchronously. */
SAC_FN void issue_scores(consumer *c) {
    uint64_t q = ptx_wgmma_desc_k_major(c->q_rows);
    uint64_t k = ptx_wgmma_desc_k_major(ptx_smem_of(c->smem->k) + c->k.stage * K_BYTES);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < (HEAD_DIM + 15) / 16; i++) {
        uint64_t q_step = q + PTX_WGMMA_ADVANCE(i / 4 * Q_TILE * ROW_BYTES + i % 4 * 32);
        uint64_t k_step = k + PTX_WGMMA_ADVANCE(i / 4 * KV_TILE * ROW_BYTES + i % 4 * 32);
        if (i == 0)
            mma_scores_set(c->s, q_step, k_step);
        else
            mma_scores_add(c->s, q_step, k_step);
    }
    ptx_wgmma_commit();
}
SAC_FN void scores_arrived(consumer *c) {
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    release(&c->smem->k_empty[c->k.stage]);
    ring_next(&c->k, KV_STAGES);
}

/* out += p v, asynchronously. */
SAC_FN void issue_values(consumer *c) {
    uint64_t v = ptx_wgmma_desc_mn_major(ptx_smem_of(c->smem->v) + c->v.stage * V_BYTES, KV_TILE * ROW_BYTES);
    ptx_wgmma_pin(c->out, HEAD_DIM_V / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++)
        mma_values_add(c->out, c->p + 4 * i, v + PTX_WGMMA_ADVANCE(16 * i * ROW_BYTES));
    ptx_wgmma_commit();
}
SAC_FN void values_arrived(consumer *c) {
    ptx_wgmma_pin(c->out, HEAD_DIM_V / 2);
    release(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, KV_STAGES);
}

SAC_FN kv_record wait_k(consumer *c) {
    ptx_mbarrier_wait(&c->smem->k_full[c->k.stage], c->k.parity);
    return c->smem->kv_tile[c->k.stage];
}

/* Behind a sequence's last key may lie anything, and 0 times NaN is NaN: every warpgroup clears those rows of v for
 * itself. Where lengths are the tensor's own, the copy engine has written zeros there. */
SAC_FN void clear_unused(consumer *c) {
    uint8_t *v = c->smem->v[c->v.stage];
    int rows = KV_TILE - c->v_rows;
    for (int i = threadIdx.x % 128; i < rows * PANELS_V * 8; i += 128) {
        int row = c->v_rows + i / 8 % rows, panel = i / 8 / rows;
        *(uint4 *)(v + (panel * KV_TILE + row) * ROW_BYTES + i % 8 * 16) = make_uint4(0, 0, 0, 0);
    }
    ptx_fence_proxy_async_shared();
    ptx_barrier_sync(1 + c->warpgroup, 128);
}
SAC_FN void wait_v(consumer *c) {
    ptx_mbarrier_wait(&c->smem->v_full[c->v.stage], c->v.parity);
    if (RAGGED && c->v_rows < KV_TILE) clear_unused(c);
}

#if PRESCALED
/* 2^-11 relative error, one instruction. */
SAC_FN float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Scores become what the softmax is taken of: scale, softcap, ALiBi, score_mod. */
SAC_FN void modify(consumer *c, const kv_record *tile) {
    const sac_attention_args *args = c->args;
    const int b = c->q->batch, h = c->q->head;
    const int32_t row = first_row(c), column = tile->begin + first_column();
    const sac_sequence sequence = sequence_of(args, b);
    const float scale = SOFTCAP ? args->scale / args->softcap : args->scale;
    const float slope = ALIBI ? args->alibi_slopes[b * args->alibi_batch_stride + h] : 0;
    const float distance = (float)(row + sequence.k_len - sequence.q_len - column);
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) {
        float *s = &c->s[i];
        *s *= scale;
        if (SOFTCAP) *s = tanh_approx(*s);
        if (SOFTCAP && (ALIBI || SCORE_MOD)) *s *= args->softcap;
        if (ALIBI) *s -= slope * fabsf(distance + (ROW_OF(i) - COLUMN_OF(i)));
#if SCORE_MOD
        *s = sac_score_mod(*s, b, h, sac_min(row + ROW_OF(i), sequence.q_len - 1),
                           sac_min(column + COLUMN_OF(i), sequence.k_len - 1), &args->score_aux);
#endif
    }
}
#endif

/* The keys of a tile, as offsets from this thread's first column, that a row may see. */
SAC_FN sac_range visible_columns(consumer *c, const kv_record *tile, int32_t row) {
    const sac_sequence sequence = sequence_of(c->args, c->q->batch);
    const sac_band band = sac_band_make(&c->args->band, sequence.q_len, sequence.k_len);
    const int32_t column = tile->begin + first_column();
    sac_range seen = {sac_band_lo(&band, row) - column, sac_min(sac_band_hi(&band, row), tile->end) - column};
    if (BLOCK_MASK && tile->flags >> KV_KIND == SAC_DIAGONAL) {
        int32_t key = row + tile->delta - column;
        seen.begin = sac_max(seen.begin, key);
        seen.end = sac_min(seen.end, key + 1);
    }
    return seen;
}

/* Hidden scores become -inf. */
SAC_FN void mask(consumer *c, const kv_record *tile) {
    const int32_t row = first_row(c);
    const sac_range seen[2] = {visible_columns(c, tile, row), visible_columns(c, tile, row + 8)};
#if MASK_MOD
    const sac_sequence sequence = sequence_of(c->args, c->q->batch);
    const int32_t column = tile->begin + first_column();
    const int asks = tile->flags >> KV_KIND != SAC_FULL;
#endif
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i++) {
        int visible = COLUMN_OF(i) >= seen[i / 2 % 2].begin && COLUMN_OF(i) < seen[i / 2 % 2].end;
#if MASK_MOD
        visible &=
            !asks | sac_mask_mod(c->q->batch, c->q->head, sac_min(row + ROW_OF(i), sequence.q_len - 1),
                                 sac_min(column + COLUMN_OF(i), sequence.k_len - 1), &c->args->mask_aux);
#endif
        if (!visible) c->s[i] = MINUS_INF;
    }
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

SAC_FN void finish_scores(consumer *c, const kv_record *tile, int masked, float top[2]) {
    scores_arrived(c);
#if PRESCALED
    modify(c, tile);
#endif
    if (masked) mask(c, tile);
    row_max(c, top);
}

SAC_FN void first_tile(consumer *c, const kv_record *tile) {
    float top[2];
    issue_scores(c);
    ptx_wgmma_wait(0);
    finish_scores(c, tile, tile->flags & KV_MASKED, top);
    raise_reference(c, top);
    exponentials(c);
    c->v_rows = tile->end - tile->begin;
}

/* The scores of this tile and the values of the one before are multiplied together; then this tile's p. */
SAC_FN void next_tile(consumer *c, const kv_record *tile, int masked) {
    float top[2];
    issue_scores(c);
    wait_v(c);
    issue_values(c);
    ptx_wgmma_wait(1);
    finish_scores(c, tile, masked, top);
    ptx_wgmma_wait(0);
    values_arrived(c);
    raise_reference(c, top);
    exponentials(c);
    c->v_rows = tile->end - tile->begin;
}

/* Passes over the tiles from this one on, which only other warpgroups see. A stage may be given back only once it is
 * full: before, its barrier may still count the turn before. */
SAC_FN void skip_tiles(consumer *c, kv_record tile) {
    for (;; tile = wait_k(c)) {
        release(&c->smem->k_empty[c->k.stage]);
        ring_next(&c->k, KV_STAGES);
        ptx_mbarrier_wait(&c->smem->v_full[c->v.stage], c->v.parity);
        release(&c->smem->v_empty[c->v.stage]);
        ring_next(&c->v, KV_STAGES);
        if (warp_has(tile.flags & KV_LAST)) break;
    }
}

/* One past the last key that the band lets this warpgroup's rows see. */
SAC_FN int32_t key_end(const consumer *c) {
    const sac_sequence sequence = sequence_of(c->args, c->q->batch);
    const sac_band band = sac_band_make(&c->args->band, sequence.q_len, sequence.k_len);
    const int32_t begin = c->q->begin + c->warpgroup * 64, end = sac_min(begin + 64, c->q->end);
    return begin < end ? sac_band_hi(&band, end - 1) : 0;
}

SAC_FN void attend(consumer *c) {
    c->q_rows = ptx_warp_uniform(ptx_smem_of(c->smem->q[c->q_ring.stage]) + c->warpgroup * 64 * ROW_BYTES);
    c->key_end = key_end(c);
    kv_record tile = wait_k(c);
    int hidden = 0;
    first_tile(c, &tile);
    while (!warp_has(tile.flags & KV_LAST)) {
        tile = wait_k(c);
        hidden = warp_has(tile.flags & KV_MASKED && tile.begin >= c->key_end);
        if (hidden) break;
        if (warp_has(tile.flags & KV_MASKED))
            next_tile(c, &tile, 1);
        else
            next_tile(c, &tile, 0);
    }
    release(&c->smem->q_empty[c->q_ring.stage]);
    wait_v(c);
    issue_values(c);
    ptx_wgmma_wait(0);
    values_arrived(c);
    if (hidden) skip_tiles(c, tile);
}

/* Lane i of a quad holds word i of 4 chunks; afterwards it holds the 4 words of chunk i. */
SAC_FN void quad_transpose(uint32_t w[4]) {
    const int lane = lane_id();
#pragma unroll
    for (int x = 1; x <= 2; x *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & x) continue;
            const uint32_t kept = lane & x ? w[i + x] : w[i];
            const uint32_t got = __shfl_xor_sync(~0u, lane & x ? w[i] : w[i + x], x);
            w[i] = lane & x ? got : kept;
            w[i + x] = lane & x ? kept : got;
        }
}

/* What a row's out is multiplied by, and its lse in base 2; the sink joins the sum here. */
SAC_FN float finish_row(const consumer *c, int r, int used, float *lse) {
    float sum = c->sum[r], ref = c->ref[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    *lse = MINUS_INF;
    if (!used || c->limit[r] == MINUS_INF) sum = 0;
    if (c->args->sink && used) {
        float sink = c->args->sink[c->q->head] * LOG2_E, top = sum == 0 ? sink : fmaxf(ref, sink);
        float scale = sum == 0 ? 0 : exp2f(ref - top), total = sum * scale + exp2f(sink - top);
        *lse = top + log2f(total);
        return scale / total;
    }
    if (sum == 0) return 0;
    *lse = ref + log2f(sum);
    return 1 / sum;
}

/* Rows of out from `begin` on, this warpgroup's; row_shift: what was added to the tile's rows. */
SAC_FN void store(consumer *c, int32_t row_shift) {
    const sac_attention_args *args = c->args;
    const int32_t b = c->q->batch, h = c->q->head, end = c->q->end;
    const int32_t used = !RAGGED ? end : b == args->batch ? 0 : sac_length_of(&args->len_q, b);
    const int64_t first = row_of(&args->len_q, b);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t row = first_row(c) + 8 * r + row_shift;
        float lse, factor = finish_row(c, r, row < used, &lse);
        if (args->lse.data && row < end && lane_id() % 4 == 0)
            args->lse.data[batch_of(&args->len_q, b) * args->lse.batch_stride + h * args->lse.head_stride +
                           (first + row) * args->lse.row_stride] = lse * LN_2;
        uint16_t *out = (uint16_t *)args->out.data + batch_of(&args->len_q, b) * args->out.batch_stride +
                        h * args->out.head_stride + (first + row) * args->out.row_stride;
#pragma unroll
        for (int j = 0; j < HEAD_DIM_V / 8; j += 4) {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int at = j + i < HEAD_DIM_V / 8 ? 4 * (j + i) + 2 * r : 0;
                w[i] = factor == 0 ? 0 : pack(c->out[at] * factor, c->out[at + 1] * factor);
            }
            quad_transpose(w);
            const int chunk = j + lane_id() % 4;
            if (row < end && chunk < HEAD_DIM_V / 8)
                *(uint4 *)(out + 8 * chunk) = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

SAC_FN void reset(consumer *c) {
#pragma unroll
    for (int i = 0; i < HEAD_DIM_V / 2; i++) c->out[i] = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        c->ref[r] = c->sum[r] = 0;
        c->limit[r] = MINUS_INF;
    }
}

SAC_FN void consume(const sac_attn_fwd_sm90_params *params, smem_layout *smem) {
    const ring start = {0, 0};
    consumer c;
    c.args = &params->args;
    c.smem = smem;
    c.q = smem->q_tile;
    c.q_ring = c.k = c.v = start;
    c.warpgroup = threadIdx.x / 128 - 1;
    c.scale_log2 = LOG2_E * (!PRESCALED                        ? c.args->scale
                             : SOFTCAP && !ALIBI && !SCORE_MOD ? c.args->softcap
                                                               : 1);
    for (;;) {
        ptx_mbarrier_wait(&smem->q_full[c.q_ring.stage], c.q_ring.parity);
        if (warp_has(c.q->batch < 0)) break;
        reset(&c);
        if (warp_has(c.q->any))
            attend(&c);
        else
            release(&smem->q_empty[c.q_ring.stage]);
        ring_next(&c.q_ring, Q_STAGES);
        store(&c, 0);
#if RAGGED /* a call may have more packed rows behind its last sequence than a sequence has */
        const int32_t turn = params->order.num_tiles * Q_TILE;
        if (c.q->batch == c.args->batch)
            for (int32_t shift = turn; c.q->begin + shift < c.q->end; shift += turn) store(&c, shift);
#endif
        c.q = c.q == smem->q_tile + Q_STAGES ? smem->q_tile : c.q + 1;
    }
}

/* ---- the kernel ---- */

SAC_FN void init_barriers(smem_layout *smem) {
    for (int i = 0; i < Q_STAGES; i++) {
        ptx_mbarrier_init(&smem->q_full[i], 1);
        ptx_mbarrier_init(&smem->q_empty[i], 4 * CONSUMERS); /* one arrival a warp */
    }
    for (int i = 0; i < KV_STAGES; i++) {
        ptx_mbarrier_init(&smem->k_full[i], 1);
        ptx_mbarrier_init(&smem->v_full[i], 1);
        ptx_mbarrier_init(&smem->k_empty[i], 4 * CONSUMERS);
        ptx_mbarrier_init(&smem->v_empty[i], 4 * CONSUMERS);
    }
    ptx_mbarrier_fence_init();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attn_fwd_sm90(const __grid_constant__ sac_attn_fwd_sm90_params params) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    smem_layout *smem = (smem_layout *)dynamic_smem;
    if (threadIdx.x == 0) init_barriers(smem);
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx_give_registers(PRODUCER_REGS);
        if (threadIdx.x == 0) produce(&params, smem);
    } else {
        ptx_take_registers(CONSUMER_REGS);
        consume(&params, smem);
    }
}
