/* nsa_work.h - what the kernels of native sparse attention are given beside sac_nsa_args.
 *
 *   nsa_offsets      where packed sequences' compressed keys and tiles start
 *   nsa_compress     block means of keys and values
 *   nsa_weights      rows of a side times its weights, or their transpose
 *   nsa_gate         three outputs to one
 *   nsa_gate_bwd     one branch's part of that backward
 *   nsa_query_grads  dq, and parts of dw_gate
 *   nsa_key_grads    dk, dv
 *   nsa_join         parts of the compressed rows' gradients to the whole
 *   nsa_outer        parts of dw_k or dw_v
 *   nsa_sum_parts    parts of a gradient to the whole, in a fixed order
 * but for those that choose blocks.
 */
#ifndef SAC_KERNELS_NSA_WORK_H
#define SAC_KERNELS_NSA_WORK_H

#include "shared/nsa_args.h"

/* Compressed rows that a thread of nsa_weights carries through one element of the weights. */
enum { SAC_NSA_WEIGHT_ROWS = 8 };
/* Rows and columns of dw that a CTA of nsa_outer sums up, 4 x 4 a thread. */
enum { SAC_NSA_OUTER_TILE = 64 };

/* -DGATE */
#define SAC_NSA_GATE_UNIFORM 0
#define SAC_NSA_GATE_WEIGHTS 1
#define SAC_NSA_GATE_GIVEN 2

/* Keys or values, and their block means: in fp32, (cmp_rows, Hkv, dim) contiguous, or, where that is NULL, in the
 * view, if it has data. */
typedef struct sac_nsa_means {
    sac_view tokens, compressed;
    float *fp32;
    int32_t dim, pad;
} sac_nsa_means;

/* compressed = rows * w[h], or, transposed, rows = compressed * w[h]^T. */
typedef struct sac_nsa_weights {
    const void *w; /* (Hkv, dim, dim) */
    float *rows;   /* (cmp_rows, Hkv, dim) */
    sac_view compressed;
    int32_t dim, transposed;
} sac_nsa_weights;

typedef struct sac_nsa_gate_work {
    sac_view branch_out[3], out;
} sac_nsa_gate_work;

typedef struct sac_nsa_gate_bwd_work {
    sac_view dout, branch_out, branch_dout;
    float *dgates; /* NULL: not wanted */
    int64_t dgates_row_stride;
    sac_row_view lse;
    float *gated_lse, *delta; /* FOLDED */
    int32_t branch, pad;
} sac_nsa_gate_bwd_work;

typedef struct sac_nsa_query_grads_work {
    sac_view branch_dq[3], dq;
    const float *dgates; /* of a w_gate */
    int64_t dgates_row_stride;
    float *dw_part; /* (parts, H, 3, D), or NULL: not wanted */
} sac_nsa_query_grads_work;

/* Of keys, or of values. A block's share is that of each of its tokens, times the block's length. */
typedef struct sac_nsa_key_grads_work {
    sac_view slc, win, sum;
    sac_view share_view;     /* (cmp_rows, Hkv, dim), or, where not NULL: */
    const float *share_fp32; /* the same, contiguous */
    int32_t dim, pad;
} sac_nsa_key_grads_work;

/* part[c][h][i][j] = sum over the c-th stretch of rows of a[row][h][i] b[row][h][j]. Rows of b as of a view. */
typedef struct sac_nsa_outer {
    const float *a; /* (cmp_rows, Hkv, dim) */
    sac_view b;
    float *part; /* (parts, Hkv, dim, dim) */
    int32_t dim, parts;
} sac_nsa_outer;

/* Elements of the dtype, parts one behind the other; the sum takes the place of the first. */
typedef struct sac_nsa_join {
    void *data;
    int64_t size; /* of a part; a multiple of 8 */
} sac_nsa_join;

typedef struct sac_nsa_parts {
    const float *part; /* (count, size) */
    float *sum;        /* (size) */
    int64_t size;
    int32_t count, pad;
} sac_nsa_parts;

#endif
