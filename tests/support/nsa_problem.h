/* nsa_problem.h - a native sparse attention problem, declared once, with its numbers and its results.
 *
 * Values are doubles that their format can hold, in row-major order of the operand's shape: so (B, N, ...) and packed
 * (T, ...) tensors are both rows behind rows.
 */
#ifndef TEST_NSA_PROBLEM_H
#define TEST_NSA_PROBLEM_H

#include <saccade/nsa.h>

#include "support/test_tensor.h"

enum { NSA_MAX_SEQUENCES = 8, NSA_COMPRESSED_BLOCK = 128 };

typedef enum nsa_inputs {
    NSA_NORMAL,
    NSA_EQUAL_KEYS, /* k is the same everywhere: every score ties */
    NSA_NAN_KEYS,   /* some tokens of k are NaN */
    NSA_REAL,       /* the sample: head_dim 64, up to 8 heads and 2 key heads, 2,048 tokens */
} nsa_inputs;

typedef enum nsa_gate_form { NSA_GATE_UNIFORM, NSA_GATE_WEIGHTS, NSA_GATE_TENSOR } nsa_gate_form;

/* Zero is the default of every field. */
typedef struct nsa_case {
    const char *name;
    int32_t batch, seqlen; /* 1 */
    bool packed;           /* lengths then are */
    int32_t lens[NSA_MAX_SEQUENCES];
    int32_t num_heads, num_kv_heads;          /* 1, num_heads */
    int32_t head_dim, head_dim_v;             /* 16, head_dim */
    int32_t block, top_k, window, query_tile; /* 8, 4, 24, 16: small, so that short sequences have many */
    saccade_nsa_score score;
    saccade_nsa_select_per select_per;
    saccade_nsa_visibility visibility;
    int32_t initial_blocks, local_blocks, compressed_top_k;
    float scale;       /* 0: the default */
    bool weights;      /* w_k, w_v */
    bool keep_outputs; /* of the branches, from forward to backward */
    nsa_gate_form gate;
    nsa_inputs inputs;
    test_layout layout;
    bool dout_unaligned; /* its rows begin anywhere, whatever the layout of the others */
    uint64_t seed;
} nsa_case;

/* A query tile of the sample's 2,048 tokens, or with per_query each query by itself, chooses among blocks of so
 * many. */
nsa_case nsa_case_of_sample(int32_t block, bool per_query);

typedef enum nsa_operand {
    NSA_Q,
    NSA_K,
    NSA_V,
    NSA_W_K,
    NSA_W_V,
    NSA_W_GATE,
    NSA_GATES,
    NSA_DOUT,
    NSA_CU_SEQLENS,
    NSA_NUM_INPUTS,
    NSA_OUT = NSA_NUM_INPUTS, /* results from here on */
    NSA_K_CMP,
    NSA_V_CMP,
    NSA_OUT_CMP,
    NSA_OUT_SLC,
    NSA_OUT_WIN,
    NSA_LSE_CMP,
    NSA_LSE_SLC,
    NSA_LSE_WIN,
    NSA_INDICES,
    NSA_SCORES,
    NSA_DQ,
    NSA_DK,
    NSA_DV,
    NSA_DW_K,
    NSA_DW_V,
    NSA_DW_GATE,
    NSA_DGATES,
    NSA_NUM_OPERANDS
} nsa_operand;

const char *nsa_operand_name(nsa_operand operand);
DLDataType nsa_operand_dtype(nsa_operand operand, sac_dtype dtype);

typedef struct nsa_problem {
    nsa_case c; /* resolved */
    sac_dtype dtype;
    int32_t group;                 /* query heads a key head */
    int32_t num_lists, list_heads; /* what shares a selection, and the query heads of each */
    int64_t rows, cmp_rows, tiles; /* of the tensors, through all sequences */
    int32_t longest_cmp;           /* compressed keys of the longest sequence */
    int32_t len[NSA_MAX_SEQUENCES], len_cmp[NSA_MAX_SEQUENCES], len_tiles[NSA_MAX_SEQUENCES];
    int64_t first[NSA_MAX_SEQUENCES], first_cmp[NSA_MAX_SEQUENCES], first_tile[NSA_MAX_SEQUENCES];
    double *values[NSA_NUM_INPUTS]; /* NULL: absent */
} nsa_problem;

nsa_problem *nsa_problem_create(const nsa_case *declared, sac_dtype dtype);
void nsa_problem_free(nsa_problem *p);

/* ndim 0: this problem has no such operand. */
test_shape nsa_problem_shape(const nsa_problem *p, nsa_operand operand);

/* The last query of a tile. */
int32_t nsa_tile_last(const nsa_problem *p, int32_t b, int32_t tile);

/* Where the row of (b, h, i) begins in an lse, and of (b, list, tile) in indices and scores. */
int64_t nsa_lse_index(const nsa_problem *p, int32_t b, int32_t h, int32_t i);
int64_t nsa_tile_index(const nsa_problem *p, int32_t b, int32_t list, int32_t tile);

typedef struct nsa_results {
    double *values[NSA_NUM_OPERANDS]; /* the entries of inputs, and of what there is not, are NULL */
    double steepest;                  /* the largest term of a score's gradient, before they cancel */
} nsa_results;

void nsa_results_create(const nsa_problem *p, nsa_results *r); /* all 0 */
void nsa_results_free(nsa_results *r);

#endif
