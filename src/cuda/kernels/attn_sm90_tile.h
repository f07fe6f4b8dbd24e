/* attn_sm90_tile.h - what the Hopper kernels that own query tiles have in common: the sizes of a variant, what lies in
 * shared memory, and which scores a thread holds.
 *
 * The including file defines kernel_params, a type with the members args, order, total_q and counter and the maps of
 * q, k, v; K_STAGES and V_STAGES; and BACKWARD: query tiles come with their rows of dO, which has a map too.
 */
#ifndef SAC_ATTN_SM90_TILE_H
#define SAC_ATTN_SM90_TILE_H

#include "cuda/kernels/attn_sm90.h"
#include "shared/tile_walk.h"

#define Q_TILE (64 * CONSUMERS)
#define THREADS (128 * (1 + CONSUMERS))
#define PANELS PANELS_OF(HEAD_DIM)
#define PANELS_V PANELS_OF(HEAD_DIM_V)
#define Q_BYTES (64 * PANELS * ROW_BYTES) /* one warpgroup's rows */
#define DOUT_BYTES (64 * PANELS_V * ROW_BYTES)
#define K_BYTES (KV_TILE * PANELS * ROW_BYTES)
#define V_BYTES (KV_TILE * PANELS_V * ROW_BYTES)

/* What the producer tells the consumers about a query tile and about a key tile. */
typedef struct __align__(16) q_record {
    int32_t batch, head;     /* batch -1: no more work; head: the first, with PACK */
    int32_t begin, end;      /* rows of out, of their sequence */
    int32_t any;             /* some row sees some key: there are key tiles */
    int32_t q_row;           /* where the queries of its sequence start */
    int32_t kv_head, kv_row; /* where its keys do */
    int32_t tail, part;      /* which of the cut tiles, -1: none; which part of its keys */
    sac_band band;           /* of its sequence */
    float slope;             /* ALiBi's, of its head */
    int32_t heads; /* PACK: so many share the tile; and SAC_PACK_INVERSE of it, and of the rows of a part */
    int32_t inverse, part_inverse;
}
q_record;
typedef struct __align__(16) kv_record {
    int32_t begin, end;
    int32_t flags; /* KV_LAST, KV_MASKED, and the kind << KV_KIND */
    int32_t delta; /* DIAGONAL */
#if PACK
    uint32_t bits; /* the parts that it is for */
#endif
}
kv_record;
enum { KV_LAST = 1, KV_MASKED = 2, KV_KIND = 2 };
enum { INSPECTORS = 2 };           /* forward: warps beside the producer; each has its own stages of v */
enum { V_PASS, V_INSPECT, V_END }; /* forward: what attn_fwd_sm90_unfinite.h does with a tile of values */

/* Records are read until a tile is stored, when its q may long be free: while the producer writes one, warpgroups may
 * still be at the tile before, or at as many before that as the slots of q hold. */
#define Q_RECORDS ((Q_SLOTS + CONSUMERS - 1) / CONSUMERS + 2)

typedef struct smem_layout {
    uint8_t q[Q_SLOTS][Q_BYTES]; /* a ring: of each query tile, the rows of each warpgroup in turn */
#if BACKWARD
    uint8_t dout[Q_SLOTS][DOUT_BYTES];
#endif
    uint8_t k[K_STAGES][K_BYTES];
    uint8_t v[V_STAGES][V_BYTES];
    uint64_t q_full[Q_SLOTS], q_empty[Q_SLOTS];
    uint64_t k_full[K_STAGES], k_empty[K_STAGES];
    uint64_t v_full[V_STAGES], v_empty[V_STAGES];
#if !BACKWARD
    uint64_t v_landed[V_STAGES]; /* tiles that are inspected before they count as full */
    int32_t v_task[V_STAGES];
    uint32_t unfinite[V_STAGES][4]; /* keys of an inspected tile, as bits */
#endif
    q_record q_tile[Q_RECORDS];
    kv_record kv_tile[K_STAGES];
    uint32_t parts_done[CONSUMERS];
} smem_layout;
static_assert(sizeof(smem_layout) <= 1024 + Q_SLOTS * (Q_BYTES + BACKWARD * DOUT_BYTES) + K_STAGES * K_BYTES +
                                         V_STAGES * V_BYTES,
              "hosts leave 1 KiB beside the tiles");

SAC_FN q_record *record_after(smem_layout *smem, q_record *q) {
    return q + 1 == smem->q_tile + Q_RECORDS ? smem->q_tile : q + 1;
}

SAC_FN void init_barriers(smem_layout *smem) {
    const uint32_t warps = 4 * CONSUMERS; /* each arrives once it has read */
    for (int i = 0; i < Q_SLOTS; i++) {
        ptx_mbarrier_init(&smem->q_full[i], 1);
        ptx_mbarrier_init(&smem->q_empty[i], 4);
    }
    for (int i = 0; i < K_STAGES; i++) {
        ptx_mbarrier_init(&smem->k_full[i], 1);
        ptx_mbarrier_init(&smem->k_empty[i], warps);
    }
    for (int i = 0; i < V_STAGES; i++) {
        ptx_mbarrier_init(&smem->v_full[i], 1);
        ptx_mbarrier_init(&smem->v_empty[i], warps + !BACKWARD);
#if !BACKWARD
        ptx_mbarrier_init(&smem->v_landed[i], 1);
#endif
    }
    ptx_mbarrier_fence_init();
}

/* Rows of out that belong to sequence b, used or not. Packed rows behind the last sequence count as one more. */
SAC_FN int32_t rows_of(const kernel_params *params, int32_t b) {
    const sac_lengths *len = &params->args.len_q;
    if (!RAGGED) return len->seqlen;
    return b == params->args.batch ? (int32_t)params->total_q - len->cu_seqlens[b] : sac_rows_of(len, b);
}

/* A tile's rows are queries of one head. With PACK they are those of all heads that share a block list, so that its
 * keys are read once: row r is query r / heads of head r % heads, counted from the tile's first of each. */
SAC_FN int32_t query_at(const q_record *q, int32_t row) {
    return q->begin + (PACK ? row * q->inverse >> 16 : row);
}
SAC_FN int32_t head_at(const q_record *q, int32_t row) {
    return q->head + (PACK ? row - (row * q->inverse >> 16) * q->heads : 0);
}

/* Of the consumers. */
SAC_FN int warpgroup(void) { return threadIdx.x / 128 - 1; }

/* A thread holds two rows of its warpgroup's 64 and, of each eight columns of a tile, two: s[i] is the score of row
 * thread_row + ROW_OF(i) and column first_column + COLUMN_OF(i) of the tile. */
#define ROW_OF(i) ((i) / 2 % 2 * 8)
#define COLUMN_OF(i) ((i) / 4 * 8 + (i) % 2)
SAC_FN int32_t warp_row(void) { return (threadIdx.x / 32 - 4) * 16; }
SAC_FN int32_t thread_row(void) { return warp_row() + lane_id() / 4; }
SAC_FN int first_column(void) { return lane_id() % 4 * 2; }

/* Keys that some row of this warpgroup sees by the band. */
SAC_FN sac_range keys_of(const q_record *q) {
    const int32_t first = warpgroup() * 64;
    const sac_range rows = {query_at(q, first), sac_min(query_at(q, first + 63) + 1, q->end)}, none = {0, 0};
    const sac_band band = q->band;
    return rows.begin < rows.end ? sac_band_keys_any(&band, rows) : none;
}

/* Rows of a sequence that one turn of query tiles covers: only behind the last sequence there may be more. */
SAC_FN int32_t rows_a_turn(const kernel_params *params) {
    const int32_t q_block = BLOCK_MASK ? params->args.blocks.q_block : 0;
    return sac_tile_rows(params->order.num_tiles, SAC_FAR, Q_TILE, q_block).begin;
}

#endif
