/* attn_bwd_sm90_tile.h - the sizes of a variant, what lies in shared memory, and what a consumer thread holds. */
#ifndef SAC_ATTN_BWD_SM90_TILE_H
#define SAC_ATTN_BWD_SM90_TILE_H

#include "cuda/kernels/attn_bwd_sm90.h"
#include "cuda/kernels/attn_sm90.h"
#include "shared/tile_walk.h"

#define CONSUMERS 2
/* How they share the work. 128 keys: each has 64 of them. 64: both have the same; either the first makes P and dV,
 * the second dS and dK, or each has every other query tile. 112: split roles again, with scores of queries x keys
 * (attn_bwd_by_query_sm90.cu). */
#define SPLIT_QUERIES (KV_TILE == 64 && HEAD_DIM <= 128 && HEAD_DIM_V <= 128)
#define SPLIT_ROLES (KV_TILE == 64 && !SPLIT_QUERIES)
#define BY_QUERY (KV_TILE == 112)

/* The way back needs the product itself. Otherwise scores are modified, and hidden, in their place, before anything
 * else is done to them; that leaves one path for all tiles. */
#define KEEPS_PRODUCT (SCORE_MOD || (SOFTCAP && ALIBI))

/* Where queries are columns, lse and delta are taken off by the products of the scores themselves, which have eight
 * more columns for it: ones beside the keys, and beside the queries the number in three pieces that bf16 holds. A
 * thread would otherwise load them, for all its columns, out of a shared memory that has nothing but operands to
 * spare time for. lse only where scores are not modified between their product and the exponential. Not where shared
 * memory is full (scores that cross between the warpgroups), nor where registers are and the assembler would
 * serialise all products: rows that are gathered, and a dK and dV of five panels in one warpgroup. */
#define FIVE_PANELS (KV_TILE == 128 && HEAD_DIM + HEAD_DIM_V > 256)
#define FOLDS_DELTA (!BY_QUERY && !PACK && !(SPLIT_ROLES && KEEPS_PRODUCT) && !FIVE_PANELS)
#define FOLDS_LSE (FOLDS_DELTA && !PRESCALED)

/* P is packed while the products of dQ run: its fp32 was needed for dS. Not where a softcap's slope has its place. */
#define PACKS_P_LATE (KV_TILE == 128 && !KEEPS_PRODUCT && !SOFTCAP)

/* Who looks for queries that are not finite beside pairs that are hidden: where the warpgroups' roles differ, the
 * producer (attn_bwd_sm90_unfinite.h). */
#define PRODUCER_LOOKS (SPLIT_ROLES || BY_QUERY)

#define THREADS (128 * (1 + CONSUMERS))
enum { CTA_BARRIER = 1 + CONSUMERS }; /* of all consumers, behind those of each warpgroup */
#define PANELS PANELS_OF(HEAD_DIM)
#define PANELS_V PANELS_OF(HEAD_DIM_V)
#define K_BYTES (KV_TILE * PANELS * ROW_BYTES)
#define V_BYTES (KV_TILE * PANELS_V * ROW_BYTES)
#define Q_BYTES (Q_TILE * PANELS * ROW_BYTES)
#define DOUT_BYTES (Q_TILE * PANELS_V * ROW_BYTES)
#define DS_BYTES (Q_TILE * PANELS_OF(KV_TILE) * ROW_BYTES)

/* dQ is one tile late where it needs the dS of both warpgroups. */
#define DQ_LATE (SUM_DQ && !SPLIT_QUERIES)
/* Of dS: a warpgroup may be one tile ahead of the other, and dQ is one tile late. By query, one warpgroup makes all
 * dS. */
#define DS_BUFFERS (BY_QUERY ? 2 : SPLIT_QUERIES ? Q_STAGES : 3)
/* Of what crosses where roles are split, and the words that do from each thread to its counterpart. */
#define P_BUFFERS 2
#define P_WORDS (KEEPS_PRODUCT ? Q_TILE / 2 : Q_TILE / 4)

/* Tiles of the tail may be cut; PART_VALUES: what a thread then leaves of each part. */
#define CUTS_TAIL (KV_TILE == 128)
#define PART_VALUES ((HEAD_DIM + HEAD_DIM_V) / 2)

/* The warpgroups share the rows of dQ; else its columns, a panel each. */
#define DQ_BY_ROWS (Q_TILE == 64 * CONSUMERS)
#define SUM_GROUPS ((HEAD_DIM + SAC_SUM_COLUMNS - 1) / SAC_SUM_COLUMNS)
/* No part of dQ that a warpgroup is given is behind its last column. */
#define WHOLE_DQ                                                                                             \
    (HEAD_DIM == (BY_QUERY ? 192 : DQ_BY_ROWS || SPLIT_QUERIES ? PANELS * 64 : CONSUMERS * DQ_COLUMNS))
/* A group of the sums of dQ, and the lanes that own it, 16 bytes each. */
#define SUM_ROWS (PACK ? SAC_GATHERED_ROWS : SAC_SUM_ROWS)
#define SUM_GROUP_SIZE (SUM_ROWS * SAC_SUM_COLUMNS)
#define SUM_LANES (SUM_GROUP_SIZE / 4)
/* Of a warp's 8 groups those that the copy engine adds. All 8 would be 1 % slower. */
#define STAGED_GROUPS (STAGES_DQ ? 6 : 0)

/* Rows of a tile whose lse and delta a lane of the producer loads. */
#define LANE_ROWS ((Q_TILE + 31) / 32)

/* What the producer tells the consumers about a query tile. It lies in Q_TILE rows from origin on; the sums of dQ want
 * that to be a multiple of 16. With PACK it lies in pieces, one after the other, and smem_layout.query says where
 * from. */
typedef struct __align__(16) q_record {
    int32_t head; /* -1: no more queries */
    int32_t origin, begin, end;
    int32_t
        flags; /* Q_MASKED: some pair may be hidden; Q_PLACED: by where it is; Q_UNFINITE: some delta is not
                    * finite; and the kind << Q_KIND */
    int32_t delta; /* DIAGONAL */
#if PACK
    int32_t used;                   /* rows; behind them there is nothing */
    int64_t sum[Q_TILE / SUM_ROWS]; /* where in dq_sum each group of rows starts */
#else
    int64_t sum; /* where in dq_sum the tile's rows start */
#endif
}
q_record;
enum { Q_MASKED = 1, Q_PLACED = 2, Q_UNFINITE = 4, Q_KIND = 3 };

/* Gathering a tile takes long: then each stage has a warp. */
#define PRODUCER_WARPS (PACK ? Q_STAGES : 1)
static_assert(PRODUCER_WARPS <= 4, "the producers are a warpgroup");

/* Rows of the tile from its first on, as far as there are any. */
SAC_FN int32_t rows_of(const q_record *tile) {
#if PACK
    return tile->used;
#else
    return tile->end - tile->origin;
#endif
}

SAC_FN int is_row_of(const q_record *tile, int row) {
#if PACK
    return row < tile->used;
#else
    return row >= tile->begin - tile->origin && row < tile->end - tile->origin;
#endif
}

/* The keys of a CTA. */
typedef struct key_tile {
    int32_t batch, head;
    int32_t part, parts; /* it takes one of so many stretches of the queries */
    int32_t cut;         /* which of the tail's tiles; -1: none */
    sac_range keys;
    sac_sequence sequence;
} key_tile;

/* Where in dq_sum the dQ of a tile goes, which is known one tile later. */
typedef struct dq_place {
#if PACK
    const int64_t *sum;
#else
    int64_t sum;
#endif
    int32_t row_groups; /* of SUM_ROWS */
} dq_place;

/* The negative of a number: what is left of it, three times, in bf16; and zeros. */
typedef struct __align__(16) row_pieces {
    uint32_t first_two, third, zeros[2];
}
row_pieces;

/* Tiles first: each starts at a multiple of 1024 bytes, as swizzle and descriptors want it. Rows in pieces lie before
 * others: memcheck thinks that their product, which reads each row twice, reads as much behind them. */
typedef struct smem_layout {
    uint8_t k[K_BYTES];
    uint8_t v[V_BYTES];
#if FOLDS_DELTA
    row_pieces delta[Q_STAGES][32 * LANE_ROWS];
#endif
#if FOLDS_LSE
    row_pieces lse[Q_STAGES][32 * LANE_ROWS]; /* over the scale */
#endif
    uint8_t q[Q_STAGES][Q_BYTES];
    uint8_t dout[Q_STAGES][DOUT_BYTES];
#if BY_QUERY
    uint8_t p[DS_BYTES]; /* queries x keys */
#endif
#if SUM_DQ
    uint8_t ds[DS_BUFFERS][DS_BYTES]; /* queries x keys */
#endif
#if STAGES_DQ
    float staged_dq[4 * CONSUMERS][STAGED_GROUPS * SUM_GROUP_SIZE]; /* on their way to the sums */
#endif
#if DQ_LATE
    dq_place dq_place[DS_BUFFERS];
    uint64_t ds_full[DS_BUFFERS];
#endif
#if ORDERED
    uint64_t dq_turn[DS_BUFFERS], dq_added[DS_BUFFERS]; /* a tile's dQ may be added; it has been */
#endif
#if BY_QUERY
    uint64_t dk_told, p_full, p_empty, ds_empty[DS_BUFFERS];
#elif SPLIT_ROLES
    uint4 p[P_BUFFERS][P_WORDS / 4][128]; /* P, as the threads that make it hold it */
    uint64_t p_full[P_BUFFERS], p_empty[P_BUFFERS];
#endif
#if !FOLDS_DELTA
    float delta[Q_STAGES][32 * LANE_ROWS];
#endif
#if !FOLDS_LSE
    float lse[Q_STAGES][32 * LANE_ROWS]; /* base 2; +inf for rows outside the tile, whose P is 0 then */
#endif
#if PACK
    int32_t query[Q_STAGES][Q_TILE]; /* of each row */
#endif
    q_record q_tile[Q_STAGES];
#if !BY_QUERY
    sac_range seen_by[KV_TILE]; /* the queries that see a key, by the band */
#endif
    key_tile own;
#if CUTS_TAIL
    uint32_t parts_done[CONSUMERS];
#endif
    uint32_t unfinite_keys;   /* some were set aside: attn_bwd_sm90_unfinite.h */
    uint32_t unfinite_values; /* PRODUCER_LOOKS: or their values are not finite */
#if BY_QUERY
    float marks[KV_TILE]; /* 0, or NaN, which a key's dV is to be */
#endif
    uint64_t landed[Q_STAGES]; /* a tile that its producer looks through before others see it */
#if STAYS
    uint64_t kv_empty;
#endif
    uint64_t kv_full, q_full[Q_STAGES], q_empty[Q_STAGES], dout_full[Q_STAGES], dout_empty[Q_STAGES];
} smem_layout;
static_assert(!FOLDS_DELTA || Q_STAGES * LANE_ROWS % 2 == 0,
              "rows in pieces leave tiles where swizzle wants them");
static_assert(sizeof(smem_layout) <= SMEM_BYTES, "attn_bwd_sm90.c asks for less than lies there");

/* Long tiles first: under a causal mask those of the first keys. With PACK one stretch of a head's queries follows the
 * other, and all its keys walk that before the next: its rows and their sums of dQ are at work together, in the L2. */
SAC_FN key_tile key_tile_of(const sac_attn_bwd_sm90_params *params, int32_t task) {
    const sac_tail_split *tail = &params->tail;
    const int32_t parts = params->num_parts, whole = params->order.total - tail->tiles;
    int32_t at = PACK ? task : task / parts;
    key_tile t;
    t.parts = parts, t.part = task % parts, t.cut = -1;
    if (CUTS_TAIL && tail->tiles > 0 && task >= whole) {
        const int32_t behind = task - whole;
        t.parts = tail->parts, t.part = behind % tail->parts, t.cut = behind / tail->parts;
        at = whole + t.cut;
    }
    const sac_tile_place place = sac_tile_place_of(&params->order, at);
    const int32_t index = params->order.num_tiles - 1 - place.tile,
                  head = PACK ? place.head / parts : place.head;
    if (PACK) t.part = place.head % parts;
    t.batch = head / params->args.num_kv_heads;
    t.head = head % params->args.num_kv_heads;
    t.sequence = sequence_of(&params->args, t.batch);
    t.keys = sac_tile_rows(index, t.sequence.k_len, KV_TILE, BLOCK_MASK ? params->args.blocks.kv_block : 0);
    return t;
}

#if BY_QUERY
#define SCORE_COLUMNS KV_TILE
#define BLOCKS ((HEAD_DIM + 63) / 64) /* of 64 columns: rows of dK and dV, which are columns x keys */
#define BLOCKS_V ((HEAD_DIM_V + 63) / 64)
typedef struct consumer {
    const sac_attn_bwd_sm90_params *params;
    smem_layout *smem;
    ring q;              /* of the buffers of q and dout */
    int32_t head, flags; /* of the tile at hand */
    ring ds;             /* the dS that dq is made of */
    uint32_t p_parity;
    uint32_t warpgroup;
    uint32_t lane_block;             /* offset of this lane in 16 x 16 blocks */
    float scale_log2;                /* what s is multiplied by in the exponent */
    float s[KV_TILE / 2];            /* scores, queries x keys; in the second warpgroup their gradients */
    float dv[BLOCKS_V][KV_TILE / 2]; /* of the first warpgroup */
    float dk[BLOCKS][KV_TILE / 2];   /* of the second */
    float dq[64]; /* queries x columns: the first 128 in the first warpgroup, the others in the second */
} consumer;
#else
#define SCORE_COLUMNS Q_TILE
typedef struct consumer {
    const sac_attn_bwd_sm90_params *params;
    smem_layout *smem;
    ring q;              /* of the buffers of q and dout */
    int32_t head, flags; /* of the tile at hand */
    uint32_t warpgroup;
#if STAYS
    uint32_t kv_parity;             /* of the keys at hand */
    key_tile left;                  /* those whose dK and dV leave */
#endif
    uint32_t ones[4];               /* the operand that lse and delta meet */
    uint32_t k_rows, v_rows;        /* where this warpgroup's keys lie */
    uint32_t lse_rows, delta_rows;  /* FOLDS_LSE, FOLDS_DELTA */
    uint32_t q_rows, dout_rows;     /* where the queries of the tile at hand do */
    float scale_log2;               /* what s is multiplied by in the exponent */
    float s[Q_TILE / 2];            /* scores, keys x queries */
    float dp[Q_TILE / 2];           /* their gradients */
    uint32_t p[Q_TILE / 4];         /* probabilities, packed as operands */
    uint32_t ds_packed[Q_TILE / 4]; /* gradients of scores, likewise */
    float dk[HEAD_DIM / 2];         /* keys x columns */
    float dv[HEAD_DIM_V / 2];
#if SPLIT_ROLES
    ring p_ring;
#endif
#if SUM_DQ
    ring ds;            /* DQ_LATE: the dS that dq is made of; the next buffer takes that of this tile */
    uint32_t ds_lane;   /* offset of this lane in a store of dS */
    uint32_t k_columns; /* where the columns of k lie that this warpgroup's dq is made of */
    float dq[DQ_COLUMNS / 2]; /* queries x columns; DQ_LATE: of the tile before */
#endif
} consumer;
#endif

/* A thread holds two lines of 64 and, of each eight columns of a tile, two: s[i] is the score of line ROW_OF(i) and
 * column COLUMN_OF(i) from its first. Lines are keys and columns queries, or the other way round. */
#define ROW_OF(i) ((i) / 2 % 2 * 8)
#define COLUMN_OF(i) ((i) / 4 * 8 + (i) % 2)
#define QUERY_OF(i) (BY_QUERY ? ROW_OF(i) : COLUMN_OF(i))
#define KEY_OF(i) (BY_QUERY ? COLUMN_OF(i) : ROW_OF(i))
SAC_FN int first_line(void) {
    const int warp = KV_TILE < 128 ? threadIdx.x / 32 % 4 : threadIdx.x / 32 - 4;
    return warp * 16 + lane_id() / 4;
}
SAC_FN int first_column(void) { return lane_id() % 4 * 2; }
SAC_FN int first_query(void) { return BY_QUERY ? first_line() : first_column(); }
SAC_FN int32_t first_key(const consumer *c) {
    return c->smem->own.keys.begin + (BY_QUERY ? first_column() : first_line());
}

#endif
