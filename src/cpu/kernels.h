/* kernels.h - what each instruction set offers to the rest of the CPU backend.
 *
 * A query tile is up to SAC_CPU_Q_TILE rows: the queries `q` of num_heads neighbouring heads, which share one key
 * head; more than one head where a single one would leave most of the tile empty (decoding), and in windows, where
 * fewer queries have fewer keys that not all of them see.
 * Kernels are called by any thread, each with scratch of its own, and allocate nothing.
 */
#ifndef SAC_CPU_KERNELS_H
#define SAC_CPU_KERNELS_H

#include "base/attention_call.h"
#include "base/isa.h"

enum { SAC_CPU_Q_TILE = 96, SAC_CPU_MAX_TOGETHER = 4, SAC_CPU_MAX_LANES = 16 };

typedef struct sac_cpu_tile {
    int32_t b, h, num_heads; /* sequence; first head and how many */
    sac_range q;
    int32_t kv_tile; /* keys in the key tiles that it visits, at most */
} sac_cpu_tile;

/* Query tiles that are worked on together, since they visit the same keys, or nearly: each key tile is fetched and
 * prepared once for all of them. They are the rows of `all`, cut by heads and by queries; SAC_CPU_MAX_TOGETHER at
 * most. */
typedef struct sac_cpu_bundle {
    sac_cpu_tile all;
    int32_t head_tiles, row_tiles;
} sac_cpu_bundle;

/* Rows of fp32 sums are as long as whole vectors, the widest. */
static inline int32_t sac_cpu_padded(int32_t dim) {
    return sac_ceil_div(dim, SAC_CPU_MAX_LANES) * SAC_CPU_MAX_LANES;
}

/* Floats of the state of a query tile's softmax: row_max, row_sum and out, transposed. */
static inline size_t sac_cpu_state_size(const sac_attention_args *args) {
    return SAC_CPU_Q_TILE * (2 + (size_t)sac_cpu_padded(args->head_dim_v));
}

/* Where the tiles of one key head add up what they give to others; one thread at a time. */
typedef struct sac_cpu_sums {
    float *dk, *dv; /* (keys of the sequence, sac_cpu_padded(head_dim)), unscaled; and (.., head_dim_v) */
    float *dsink;   /* (group) or NULL */
    const saccade_aux *aux; /* the score_mod's, with gradients of its own to add to */
} sac_cpu_sums;

/* Where weighted outputs of several calls are added up: rows of fp32 for every query and head of a piece of work. */
typedef struct sac_cpu_mix {
    sac_cpu_tile piece;
    const float *weight; /* of the call at hand: (num_heads, queries), weight_stride apart */
    int32_t weight_stride;
    float *sums; /* (num_heads, queries, sac_cpu_padded(head_dim_v)) */
    bool adds;   /* to what the sums hold; else the call at hand is the first */
} sac_cpu_mix;

/* Number of a piece's row. */
static inline int64_t sac_cpu_mix_row(const sac_cpu_mix *mix, int32_t h, int32_t i) {
    const sac_cpu_tile *p = &mix->piece;
    return (int64_t)(h - p->h) * (p->q.end - p->q.begin) + i - p->q.begin;
}

struct gemm;

typedef struct sac_cpu_kernels {
    /* Keys in a key tile. */
    int32_t (*kv_tile)(const sac_attention_args *args, bool backward);
    /* Bytes of scratch for one thread, which works on num_tiles tiles together. */
    size_t (*scratch_bytes)(const sac_attention_args *args, bool backward, int num_tiles);
    /* Writes out, unless that has no data, and lse of the rows, and adds weighted outputs to the mix, unless NULL. */
    void (*forward)(const sac_attention_call *call, const sac_cpu_bundle *rows, const sac_cpu_mix *mix,
                    void *scratch);
    /* The same for one tile and over a part of the keys: leaves the softmax's state; and merges such parts into out and
     * lse. */
    void (*forward_part)(const sac_attention_call *call, const sac_cpu_tile *tile, sac_range keys,
                         float *state, void *scratch);
    void (*combine)(const sac_attention_call *call, const sac_cpu_tile *tile, const float *states,
                    int num_states, void *scratch);
    /* Writes dq of the rows and adds to the sums of their key head. */
    void (*backward)(const sac_attention_call *call, const sac_cpu_bundle *rows, const sac_cpu_sums *sums,
                     void *scratch);
    /* target (dim values of dtype) = factor * the sum of num_parts rows of fp32, `stride` apart. */
    void (*reduce)(void *target, const float *parts, size_t stride, int num_parts, float factor, int dtype,
                   int dim);
    /* n values, a multiple of 8, of fp32 to dtype. */
    void (*narrow)(void *target, const float *values, int dtype, int n);
    /* The product that these are made of, for whoever tests or times it alone: kernels/gemm.h says what it computes.
     * Columns come in multiples of `lanes`. */
    void (*multiply)(const struct gemm *g);
    int lanes;
    bool has_pairs;
} sac_cpu_kernels;

/* Of a usable set. */
const sac_cpu_kernels *sac_cpu_kernels_of(sac_isa isa);

#endif
