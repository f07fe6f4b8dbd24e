/* attn_fwd_sm90.cu - forward attention on Hopper. Needs from attn_fwd_sm90.c: HEAD_DIM, HEAD_DIM_V, BF16 (else
 * fp16), CONSUMERS, KV_TILE, Q_STAGES, KV_STAGES, PRODUCER_REGS, CONSUMER_REGS. Grid: one block a multiprocessor.
 *
 *   producer (one thread)                         consumers (CONSUMERS warpgroups, 64 query rows each)
 *   for each query tile handed out:               for each query tile:
 *     load q                                        s = q k(0)^T;  p = softmax(s)
 *     walk its key tiles:                           for j = 1 ..:
 *       load k(j), v(j-1)                             s = q k(j)^T and out += p v(j-1)    at the same time
 *     load v(last)                                    p = softmax(s)
 *                                                   out += p v(last);  store out / sum, lse
 *
 * What the measurements say matters, in this order (notes in docs/performance.md): energy, since the chip runs at
 * its power limit, hence query tiles as large as registers allow; instructions issued per score, hence
 *   - out is rescaled only when a row's maximum grew by more than 8 in base 2. Invariant: out and sum are the true
 *     ones divided by 2^(row_ref), where row_ref is a maximum the row once had; p is at most 2^8;
 *   - scores stay unscaled: scaling and subtracting row_ref is one FMA inside the exponent;
 *   - only tiles that hide some pair run code for masking.
 */
#include "cuda/kernels/attn_fwd_sm90.h"
#include "cuda/kernels/ptx/math.h"
#include "cuda/kernels/ptx/mbarrier.h"
#include "cuda/kernels/ptx/tma.h"
#include "cuda/kernels/ptx/warpgroup.h"
#include "cuda/kernels/ptx/wgmma.h"
#include "shared/tile_walk.h"

#define Q_TILE (64 * CONSUMERS)
#define THREADS (128 * (1 + CONSUMERS))
#define PANELS ((HEAD_DIM + 63) / 64)
#define PANELS_V ((HEAD_DIM_V + 63) / 64)
#define Q_BYTES (Q_TILE * PANELS * 128)
#define K_BYTES (KV_TILE * PANELS * 128)
#define V_BYTES (KV_TILE * PANELS_V * 128)
#define MINUS_INF __int_as_float(0xff800000)
#define MAX_GROWTH 8.0f /* base 2 */

#if BF16
#define INPUT_TYPE "bf16"
#define pack_input pack_bf16
#else
#define INPUT_TYPE "f16"
#define pack_input pack_f16
#endif

WGMMA_SS(mma_scores_set, KV_TILE, INPUT_TYPE, WGMMA_SET)
WGMMA_SS(mma_scores_add, KV_TILE, INPUT_TYPE, WGMMA_ADD)
WGMMA_RS(mma_values_add, HEAD_DIM_V, INPUT_TYPE, WGMMA_ADD)

/* What the producer tells the consumers with a query tile, and with a key tile. */
typedef struct __align__(16) q_record {
    int32_t batch, head; /* batch -1: no more work */
    int32_t begin;       /* its first row */
    int32_t any;         /* some key is visible */
} q_record;
typedef struct __align__(16) kv_record {
    int32_t begin, end;
    int32_t masked; /* some pair of the tile is hidden */
    int32_t last;
} kv_record;

typedef struct smem_layout {
    uint8_t q[Q_STAGES][Q_BYTES];
    uint8_t k[KV_STAGES][K_BYTES];
    uint8_t v[KV_STAGES][V_BYTES];
    uint64_t q_full[Q_STAGES], q_empty[Q_STAGES];
    uint64_t k_full[KV_STAGES], k_empty[KV_STAGES];
    uint64_t v_full[KV_STAGES], v_empty[KV_STAGES];
    q_record q_tile[Q_STAGES];
    kv_record kv_tile[KV_STAGES];
} smem_layout;

/* A position in a ring of buffers; parity flips with every turn. */
typedef struct ring {
    uint32_t stage, parity;
} ring;
static __device__ __forceinline__ void ring_next(ring *r, uint32_t stages) {
    if (++r->stage == stages) {
        r->stage = 0;
        r->parity ^= 1;
    }
}

/* ---- producer ---- */

/* Every load of a tile: one box for each panel of 64 columns. */
static __device__ __forceinline__ void load_tile(uint8_t *smem, const sac_tensor_map *map, uint64_t *full, int rows,
                                                 int panels, int32_t row, int32_t head, int32_t batch) {
    mbarrier_arrive_expect(full, rows * panels * 128);
    for (int p = 0; p < panels; p++) tma_load(smem + p * rows * 128, map, full, p * 64, row, head, batch);
}

typedef struct producer {
    const sac_attn_fwd_sm90_params *params;
    smem_layout *smem;
    ring q, k, v;
} producer;

static __device__ __forceinline__ void load_k(producer *w, const q_record *q, const sac_tile *tile, int last) {
    smem_layout *smem = w->smem;
    uint32_t s = w->k.stage;
    mbarrier_wait(&smem->k_empty[s], w->k.parity ^ 1);
    kv_record record = {tile->begin, tile->end, 0, last};
    record.masked = tile->banded || tile->end - tile->begin < KV_TILE;
    smem->kv_tile[s] = record;
    load_tile(smem->k[s], &w->params->k, &smem->k_full[s], KV_TILE, PANELS, tile->begin,
              q->head / w->params->args.group, q->batch);
    ring_next(&w->k, KV_STAGES);
}
static __device__ __forceinline__ void load_v(producer *w, const q_record *q, int32_t begin) {
    smem_layout *smem = w->smem;
    uint32_t s = w->v.stage;
    mbarrier_wait(&smem->v_empty[s], w->v.parity ^ 1);
    load_tile(smem->v[s], &w->params->v, &smem->v_full[s], KV_TILE, PANELS_V, begin,
              q->head / w->params->args.group, q->batch);
    ring_next(&w->v, KV_STAGES);
}
static __device__ __forceinline__ void load_q(producer *w, const q_record *q) {
    smem_layout *smem = w->smem;
    uint32_t s = w->q.stage;
    mbarrier_wait(&smem->q_empty[s], w->q.parity ^ 1);
    smem->q_tile[s] = *q;
    if (q->any)
        load_tile(smem->q[s], &w->params->q, &smem->q_full[s], Q_TILE, PANELS, q->begin, q->head, q->batch);
    else
        mbarrier_arrive(&smem->q_full[s]);
    ring_next(&w->q, Q_STAGES);
}

/* The index-th query tile in the order of work. */
static __device__ __forceinline__ q_record locate(const sac_attn_fwd_sm90_params *params, int32_t index) {
    const sac_tile_order *order = &params->order;
    const sac_attention_args *args = &params->args;
    int32_t section = index / (order->section_heads * order->num_tiles);
    int32_t first = section * order->section_heads;
    int32_t heads = sac_min(order->section_heads, order->num_heads - first);
    int32_t rest = index - first * order->num_tiles;
    int32_t head = first + rest % heads;
    q_record q;
    q.batch = head / args->num_heads;
    q.head = head % args->num_heads;
    q.begin = (order->num_tiles - 1 - rest / heads) * Q_TILE;
    return q;
}

/* k leads v by one tile, as the consumers want them. */
static __device__ __forceinline__ void produce_tile(producer *w, q_record *q) {
    const sac_attention_args *args = &w->params->args;
    sac_sequence sequence = sac_sequence_of(args, q->batch);
    sac_band band = sac_band_make(&args->band, sequence.q_len, sequence.k_len);
    sac_range rows = {q->begin, sac_min(q->begin + Q_TILE, sequence.q_len)};
    sac_walk walk = sac_walk_keys(args, &band, q->batch, q->head, rows, KV_TILE);
    sac_tile tile, next;
    q->any = sac_walk_next(&walk, &tile);
    load_q(w, q);
    if (!q->any) return;
    int more = sac_walk_next(&walk, &next);
    load_k(w, q, &tile, !more);
    while (more) {
        int32_t begin = tile.begin;
        tile = next;
        more = sac_walk_next(&walk, &next);
        load_k(w, q, &tile, !more);
        load_v(w, q, begin);
    }
    load_v(w, q, tile.begin);
}

/* Query tiles are handed out one at a time, longest first, so that the blocks end together. */
static __device__ __forceinline__ void produce(const sac_attn_fwd_sm90_params *params, smem_layout *smem) {
    producer w = {params, smem, {0, 0}, {0, 0}, {0, 0}};
    q_record q;
    int32_t index = blockIdx.x;
    while (index < params->order.total) {
        int32_t next = gridDim.x + atomicAdd(params->next_tile, 1);
        q = locate(params, index);
        produce_tile(&w, &q);
        index = next;
    }
    q.batch = -1;
    q.any = 0;
    load_q(&w, &q);
}

/* ---- consumers ---- */

typedef struct consumer {
    smem_layout *smem;
    ring q, k, v;
    uint32_t warpgroup;
    uint32_t q_rows; /* where this warpgroup's rows of q lie */
    float scale_log2;
    float s[KV_TILE / 2];     /* scores */
    float out[HEAD_DIM_V / 2]; /* times 2^row_ref / sum: what is stored */
    uint32_t p[KV_TILE / 4];  /* probabilities, packed as operands */
    float ref[2];             /* scale_log2 * (a maximum the row once had); 0 for a row that has seen nothing */
    float limit[2];           /* the score up to which ref serves; -inf for a row that has seen nothing */
    float sum[2];             /* of this thread's columns */
} consumer;

static __device__ __forceinline__ int lane_id(void) { return threadIdx.x % 32; }
static __device__ __forceinline__ void release(uint64_t *empty) {
    if (lane_id() == 0) mbarrier_arrive(empty);
}

/* s = q k^T, asynchronously. */
static __device__ __forceinline__ void issue_scores(consumer *c) {
    smem_layout *smem = c->smem;
    uint64_t q = wgmma_desc_k_major(c->q_rows);
    uint64_t k = wgmma_desc_k_major(smem_address(smem->k) + c->k.stage * K_BYTES);
    wgmma_pin(c->s, KV_TILE / 2);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < (HEAD_DIM + 15) / 16; i++) {
        uint64_t dq = q + WGMMA_ADVANCE(i / 4 * Q_TILE * 128 + i % 4 * 32);
        uint64_t dk = k + WGMMA_ADVANCE(i / 4 * KV_TILE * 128 + i % 4 * 32);
        if (i == 0)
            mma_scores_set(c->s, dq, dk);
        else
            mma_scores_add(c->s, dq, dk);
    }
    wgmma_commit();
}

/* out += p v, asynchronously. */
static __device__ __forceinline__ void issue_values(consumer *c) {
    uint64_t v = wgmma_desc_mn_major(smem_address(c->smem->v) + c->v.stage * V_BYTES, KV_TILE * 128);
    wgmma_pin(c->out, HEAD_DIM_V / 2);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++)
        mma_values_add(c->out, c->p + 4 * i, v + WGMMA_ADVANCE(i * 2048));
    wgmma_commit();
}

static __device__ __forceinline__ void scores_arrived(consumer *c) {
    wgmma_pin(c->s, KV_TILE / 2);
    release(&c->smem->k_empty[c->k.stage]);
    ring_next(&c->k, KV_STAGES);
}
static __device__ __forceinline__ void values_arrived(consumer *c) {
    wgmma_pin(c->out, HEAD_DIM_V / 2);
    release(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, KV_STAGES);
}

/* The first of this thread's two rows; the other is 8 below. */
static __device__ __forceinline__ int32_t first_row(const consumer *c, const q_record *q) {
    return q->begin + c->warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane_id() / 4;
}

/* Hidden scores become -inf. */
static __device__ __forceinline__ void mask(consumer *c, const sac_attention_args *args, const q_record *q,
                                            int32_t begin, int32_t end) {
    sac_sequence sequence = sac_sequence_of(args, q->batch);
    sac_band band = sac_band_make(&args->band, sequence.q_len, sequence.k_len);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int32_t row = first_row(c, q) + 8 * r, column = begin + lane_id() % 4 * 2;
        int32_t low = sac_band_lo(&band, row) - column, high = sac_min(sac_band_hi(&band, row), end) - column;
#pragma unroll
        for (int j = 0; j < KV_TILE / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (8 * j + i < low || 8 * j + i >= high) c->s[4 * j + 2 * r + i] = MINUS_INF;
    }
}

/* Row maxima of the tile, complete in each of the four lanes that share a row. */
static __device__ __forceinline__ void row_max(const consumer *c, float top[2]) {
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

/* Raises the reference of rows whose maximum has outgrown it. Rare after a row's first tiles, and then the whole
 * warp skips it. */
static __device__ __forceinline__ void raise_reference(consumer *c, const float top[2]) {
    if (!__any_sync(~0u, top[0] > c->limit[0] || top[1] > c->limit[1])) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float factor = 1;
        if (top[r] > c->limit[r]) {
            float ref = top[r] * c->scale_log2;
            factor = c->limit[r] == MINUS_INF ? 0 : exp2_approx(c->ref[r] - ref);
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

/* p = 2^(scale_log2 s - ref). */
static __device__ __forceinline__ void exponentials(consumer *c) {
#pragma unroll
    for (int i = 0; i < KV_TILE / 2; i += 2) {
        const int r = i / 2 % 2;
        float low = exp2_approx(fmaf(c->s[i], c->scale_log2, -c->ref[r]));
        float high = exp2_approx(fmaf(c->s[i + 1], c->scale_log2, -c->ref[r]));
        c->sum[r] += low;
        c->sum[r] += high;
        c->p[i / 2] = pack_input(low, high);
    }
}

static __device__ __forceinline__ const kv_record *wait_k(consumer *c) {
    mbarrier_wait(&c->smem->k_full[c->k.stage], c->k.parity);
    return &c->smem->kv_tile[c->k.stage];
}
static __device__ __forceinline__ void wait_v(consumer *c) {
    mbarrier_wait(&c->smem->v_full[c->v.stage], c->v.parity);
}

/* s of this tile and out of the one before are computed together; then this tile's p. */
static __device__ __forceinline__ void middle_tile(consumer *c, const sac_attention_args *args, const q_record *q,
                                                   const kv_record *tile, int masked) {
    float top[2];
    issue_scores(c);
    wait_v(c);
    issue_values(c);
    wgmma_wait(1);
    scores_arrived(c);
    if (masked) mask(c, args, q, tile->begin, tile->end);
    row_max(c, top);
    wgmma_wait(0);
    values_arrived(c);
    raise_reference(c, top);
    exponentials(c);
}

static __device__ __forceinline__ void attend(consumer *c, const sac_attention_args *args, const q_record *q) {
    kv_record tile = *wait_k(c);
    float top[2];
    c->q_rows = warp_uniform(smem_address(c->smem->q[c->q.stage] + c->warpgroup * 64 * 128));
    issue_scores(c);
    wgmma_wait(0);
    scores_arrived(c);
    if (tile.masked) mask(c, args, q, tile.begin, tile.end);
    row_max(c, top);
    raise_reference(c, top);
    exponentials(c);
    while (!__any_sync(~0u, tile.last)) {
        tile = *wait_k(c);
        if (__any_sync(~0u, tile.masked))
            middle_tile(c, args, q, &tile, 1);
        else
            middle_tile(c, args, q, &tile, 0);
    }
    release(&c->smem->q_empty[c->q.stage]);
    wait_v(c);
    issue_values(c);
    wgmma_wait(0);
    values_arrived(c);
}

/* Lane i of a quad holds words i of 4 chunks; afterwards it holds the 4 words of chunk i. */
static __device__ __forceinline__ void quad_transpose(uint32_t w[4]) {
    const int lane = lane_id();
#pragma unroll
    for (int x = 1; x <= 2; x *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & x) continue;
            uint32_t *low = &w[i], *high = &w[i + x];
            uint32_t got = __shfl_xor_sync(~0u, lane & x ? *low : *high, x);
            if (lane & x)
                *low = got;
            else
                *high = got;
        }
}

/* out / sum and the logarithm of sum, of the rows that exist. */
static __device__ __forceinline__ void store(consumer *c, const sac_attention_args *args, const q_record *q) {
    const int32_t end = sac_sequence_of(args, q->batch).q_len;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int32_t row = first_row(c, q) + 8 * r;
        float sum = c->sum[r];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        float inverse = sum == 0 ? 0 : 1 / sum;
        if (args->lse.data && row < end && lane_id() % 4 == 0)
            args->lse.data[q->batch * args->lse.batch_stride + q->head * args->lse.head_stride +
                           row * args->lse.row_stride] = sum == 0 ? MINUS_INF : (c->ref[r] + log2f(sum)) * 0.69314718f;
        uint16_t *out = (uint16_t *)args->out.data + q->batch * args->out.batch_stride +
                        q->head * args->out.head_stride + row * args->out.row_stride;
#pragma unroll
        for (int j = 0; j < HEAD_DIM_V / 8; j += 4) {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = j + i < HEAD_DIM_V / 8 ? pack_input(c->out[4 * (j + i) + 2 * r] * inverse,
                                                           c->out[4 * (j + i) + 2 * r + 1] * inverse)
                                              : 0;
            quad_transpose(w);
            int chunk = j + lane_id() % 4;
            if (row < end && chunk < HEAD_DIM_V / 8)
                *(uint4 *)(out + 8 * chunk) = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

static __device__ __forceinline__ void consume(const sac_attention_args *args, smem_layout *smem) {
    consumer c;
    c.smem = smem;
    c.q.stage = c.q.parity = c.k.stage = c.k.parity = c.v.stage = c.v.parity = 0;
    c.warpgroup = threadIdx.x / 128 - 1;
    c.scale_log2 = args->scale * 1.44269504f;
    for (;;) {
        mbarrier_wait(&smem->q_full[c.q.stage], c.q.parity);
        q_record q = smem->q_tile[c.q.stage];
        if (__any_sync(~0u, q.batch < 0)) break;
#pragma unroll
        for (int i = 0; i < HEAD_DIM_V / 2; i++) c.out[i] = 0;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            c.ref[r] = c.sum[r] = 0;
            c.limit[r] = MINUS_INF;
        }
        if (__any_sync(~0u, q.any))
            attend(&c, args, &q);
        else
            release(&smem->q_empty[c.q.stage]);
        ring_next(&c.q, Q_STAGES);
        store(&c, args, &q);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attn_fwd_sm90(const __grid_constant__ sac_attn_fwd_sm90_params params) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    smem_layout *smem = (smem_layout *)dynamic_smem;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Q_STAGES; i++) {
            mbarrier_init(&smem->q_full[i], 1);
            mbarrier_init(&smem->q_empty[i], 4 * CONSUMERS);
        }
        for (int i = 0; i < KV_STAGES; i++) {
            mbarrier_init(&smem->k_full[i], 1);
            mbarrier_init(&smem->v_full[i], 1);
            mbarrier_init(&smem->k_empty[i], 4 * CONSUMERS);
            mbarrier_init(&smem->v_empty[i], 4 * CONSUMERS);
        }
        mbarrier_fence_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        warpgroup_give_registers(PRODUCER_REGS);
        if (threadIdx.x == 0) produce(&params, smem);
    } else {
        warpgroup_take_registers(CONSUMER_REGS);
        consume(&params.args, smem);
    }
}
