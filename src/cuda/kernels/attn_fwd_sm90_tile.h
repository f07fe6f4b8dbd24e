/* attn_fwd_sm90_tile.h - the sizes of a variant, what lies in shared memory, and what a consumer thread holds. */
#ifndef SAC_ATTN_FWD_SM90_TILE_H
#define SAC_ATTN_FWD_SM90_TILE_H

#include "cuda/kernels/attn_fwd_sm90.h"
#include "cuda/kernels/ptx/convert.h"
#include "cuda/kernels/ptx/mbarrier.h"
#include "shared/tile_walk.h"

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

/* What the producer tells the consumers about a query tile and about a key tile. */
typedef struct __align__(16) q_record {
    int32_t batch, head; /* batch -1: no more work */
    int32_t begin, end;  /* rows of out, of their sequence */
    int32_t any;         /* some row sees some key: there are key tiles */
    int32_t tail, part;  /* which of the cut tiles, -1: none; which part of its keys */
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
    q_record q_tile[2][Q_STAGES]; /* by parity: read until the tile is stored, when q is long free */
    kv_record kv_tile[KV_STAGES];
    uint32_t parts_done[CONSUMERS];
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

SAC_FN sac_sequence sequence_of(const sac_attention_args *args, int32_t b) {
    const sac_sequence whole = {0, 0, args->len_q.seqlen, args->len_k.seqlen};
    return RAGGED ? sac_sequence_of(args, b) : whole;
}
/* Where sequence b starts in the tensors of one side: its row and its batch coordinate. */
SAC_FN int32_t batch_of(const sac_lengths *len, int32_t b) { return RAGGED && len->cu_seqlens ? 0 : b; }
SAC_FN int32_t row_of(const sac_lengths *len, int32_t b) {
    return RAGGED && len->cu_seqlens ? len->cu_seqlens[b] : 0;
}

/* Rows of out that belong to sequence b, used or not. Packed rows behind the last sequence count as one more. */
SAC_FN int32_t rows_of(const sac_attn_fwd_sm90_params *params, int32_t b) {
    const sac_lengths *len = &params->args.len_q;
    if (!RAGGED || !len->cu_seqlens) return len->seqlen;
    return (b == params->args.batch ? (int32_t)params->total_q : len->cu_seqlens[b + 1]) - len->cu_seqlens[b];
}

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

SAC_FN void reset(consumer *c) {
#pragma unroll
    for (int i = 0; i < HEAD_DIM_V / 2; i++) c->out[i] = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        c->ref[r] = c->sum[r] = 0;
        c->limit[r] = MINUS_INF;
    }
}

#endif
