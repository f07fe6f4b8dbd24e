/* attn_fwd_sm90_tile.h - what a consumer thread of the forward kernel holds. */
#ifndef SAC_ATTN_FWD_SM90_TILE_H
#define SAC_ATTN_FWD_SM90_TILE_H

#include "cuda/kernels/attn_fwd_sm90.h"

typedef sac_attn_fwd_sm90_params kernel_params;
#define BACKWARD 0
#define K_STAGES KV_STAGES
#define V_STAGES KV_STAGES
#include "cuda/kernels/attn_sm90_mask.h"

/* With PACK a key tile has as few rows as q, which would be read from shared memory as often: half of what products
 * take from there. */
#define Q_IN_REGISTERS (PACK && HEAD_DIM <= 128)

#define MOST_ADDED 256.0f /* to a sum, by a thread, in a tile, before its reference is too low */

/* What ALiBi needs of a query tile where it is linear in the columns (attn_fwd_sm90_softmax.h): its slope in products
 * and in powers of 2, how far this thread's first column lies before its first row in a tile that begins with key 0,
 * and where keys that are ahead of none of the warp's queries end. */
typedef struct alibi_line {
    float slope, slope_log2;
    int32_t distance, straight_end;
} alibi_line;

typedef struct consumer {
    const kernel_params *params;
    const sac_attention_args *args;
    smem_layout *smem;
    q_record *q; /* the tile at hand */
    ring q_ring, k, v;
#if Q_IN_REGISTERS
    uint32_t q_rows[(HEAD_DIM + 15) / 16][4]; /* this warpgroup's rows of q as operands */
#else
    uint32_t q_rows; /* where this warpgroup's rows of q lie */
#endif
    sac_range keys;                     /* that its rows see by the band */
    row_limits limits;                  /* and those that this thread's two see */
    int32_t v_begin, v_masked;          /* of the tile that p belongs to: its first key; are pairs hidden? */
    float scale_log2;                   /* what s is multiplied by in the exponent */
    alibi_line line;                    /* ALIBI */
    float s[KV_TILE / 2];               /* scores */
    uint32_t p[P_BUFFERS][KV_TILE / 4]; /* probabilities, packed as operands */
    float out[HEAD_DIM_V / 2];          /* these three hold what the invariant at the top says */
    float sum[2];                       /* over this thread's columns */
    float ref[2];                       /* -inf for a row that has seen nothing; always 0 where BOUNDED */
} consumer;

SAC_FN void start_rows(consumer *c) {
#pragma unroll
    for (int i = 0; i < HEAD_DIM_V / 2; i++) c->out[i] = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        c->sum[r] = 0;
        c->ref[r] = BOUNDED ? 0 : MINUS_INF;
    }
}

#endif
