/* attention_case.h - one attention problem, declared once: it serves forward and backward, every dtype, every
 * layout and every backend. Zero is the default of every field. */
#ifndef TEST_ATTENTION_CASE_H
#define TEST_ATTENTION_CASE_H

#include <saccade/attention.h>

#include "support/test_tensor.h"

enum { TEST_NONE = -1 }; /* where 0 means the default: really none */

typedef enum test_lengths {
    LENGTHS_FULL,          /* (B, N, H, D), everything used */
    LENGTHS_USED,          /* (B, N, H, D) with seqused */
    LENGTHS_PACKED,        /* (T, H, D) with cu_seqlens */
    LENGTHS_PACKED_PADDED, /* also seqused: unused rows after each sequence, and after the last of cu_seqlens */
} test_lengths;

typedef enum test_inputs {
    INPUTS_NORMAL,
    INPUTS_LARGE,        /* peaked: one key takes nearly all of each row */
    INPUTS_EQUAL,        /* every score of every row is the same */
    INPUTS_TINY,         /* 1e-5: subnormal in fp16, every score 0 or nearly */
    INPUTS_FAR_NEGATIVE, /* every q.k near -262144: below whatever finite number stands for minus infinity */
    INPUTS_NEGATIVE,     /* every score below 0 */
    INPUTS_ORTHOGONAL,   /* first half of each row: scores exactly 0; second half all negative */
    INPUTS_RISING,       /* scores rise by 0.25 a key and more: every tile has new maxima */
    INPUTS_JUMPING,      /* every 150th score is higher by more than 2^110 than all before it */
    INPUTS_REAL,         /* activations of a trained model; head_dim 64, up to 8 heads, 2 key heads */
} test_inputs;

typedef enum test_alibi { ALIBI_NONE, ALIBI_PER_HEAD, ALIBI_PER_BATCH } test_alibi;

typedef enum test_block_pattern {
    BLOCKS_NONE,
    BLOCKS_RANDOM,  /* imported: none, PARTIAL (the case's mask_mod decides) or FULL at random */
    BLOCKS_RAGGED,  /* imported: one row has all blocks, some none, the others one */
    BLOCKS_MOD,     /* classified from the case's mask_mod, which the mask then carries */
    BLOCKS_CAUSAL,  /* analytic, top_left */
    BLOCKS_EAGLE3,  /* analytic, seqlen_k a multiple of seqlen_q; DIAGONAL blocks */
    BLOCKS_DILATED, /* analytic: keys 150 apart, two each way; DIAGONAL blocks where two make at most 151 */
} test_block_pattern;

typedef struct test_blocks {
    test_block_pattern pattern;
    int32_t q_block, kv_block;
    bool per_batch, per_head; /* false: broadcast */
} test_blocks;

struct test_modifier;
enum { TEST_MAX_SEQUENCES = 8, TEST_MAX_DIM = 256 };

typedef struct attention_case {
    const char *name;
    int32_t batch, seqlen_q, seqlen_k; /* 1, -, seqlen_q */
    int32_t num_heads, num_kv_heads;   /* 1, num_heads */
    int32_t head_dim, head_dim_v;      /* 64, head_dim */
    test_lengths lengths;              /* but FULL: used rows of sequence b, at [b % 8]: */
    int32_t lens_q[TEST_MAX_SEQUENCES], lens_k[TEST_MAX_SEQUENCES];
    float scale;     /* 0: the default, */
    bool zero_scale; /* but for 0 itself */
    saccade_causal causal;
    saccade_window window;
    float softcap;
    bool sink;
    test_alibi alibi;
    const struct test_modifier *score_mod, *mask_mod;
    test_blocks blocks;
    test_inputs inputs;
    test_layout layout;
    bool lse_grad; /* the loss looks at lse too */
    bool deterministic;
    bool as_text;  /* modifiers are given as text, to be compiled at run time */
    uint64_t seed; /* added to what the name gives */
} attention_case;

/* The case with every default filled in, but for the scale's; TEST_NONE becomes 0. */
attention_case attention_case_resolved(const attention_case *declared);

/* What products are multiplied by. */
float attention_case_scale(const attention_case *c);

#endif
