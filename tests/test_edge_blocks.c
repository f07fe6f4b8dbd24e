/* test_edge_blocks.c - block masks of many sizes and lengths, with modifiers and groups, forward and backward. */
#include "support/attention_suite.h"

/* A causal mask written as blocks is the same as causal = true: both have the same expectation. */
#define CAUSAL_AS_BLOCKS(q_, kv_, d, dv)                                                                     \
    {                                                                                                        \
        .name = "causal_as_blocks_" #q_ "x" #kv_ "_head_dim_" #d "_" #dv, .seqlen_q = 280, .num_heads = 2,   \
        .num_kv_heads = 1, .head_dim = d, .head_dim_v = dv, .blocks = {                                      \
            BLOCKS_CAUSAL,                                                                                   \
            q_,                                                                                              \
            kv_                                                                                              \
        }                                                                                                    \
    }
#define CAUSAL_AS_BLOCKS_OF_EVERY_SIZE(d, dv)                                                                \
    CAUSAL_AS_BLOCKS(64, 64, d, dv), CAUSAL_AS_BLOCKS(64, 128, d, dv), CAUSAL_AS_BLOCKS(128, 64, d, dv),     \
        CAUSAL_AS_BLOCKS(128, 112, d, dv), CAUSAL_AS_BLOCKS(128, 80, d, dv),                                 \
        CAUSAL_AS_BLOCKS(256, 128, d, dv), CAUSAL_AS_BLOCKS(1, 64, d, dv)

#define LENGTH(n)                                                                                            \
    {                                                                                                        \
        .name = "blocks_score_mod_group_at_length_" #n, .seqlen_q = n, .num_heads = 2, .num_kv_heads = 1,    \
        .head_dim = 32, .score_mod = &test_relative_bias, .mask_mod = &test_head_parity, .blocks = {         \
            BLOCKS_RANDOM,                                                                                   \
            64,                                                                                              \
            32,                                                                                              \
            .per_head = true                                                                                 \
        }                                                                                                    \
    }

/* Rounds whose keys a query sees one of each, of more tiles than one of a kernel that takes them row by row. */
#define EAGLE3_OF(dim, dim_v, kv_heads, ...)                                                                 \
    {                                                                                                        \
        .name = "eagle3_of_head_dims_" #dim "_and_" #dim_v "_of_4_heads_by_" #kv_heads #__VA_ARGS__,         \
        .batch = 2, .seqlen_q = 160, .seqlen_k = 640, .num_heads = 4, .num_kv_heads = kv_heads,              \
        .head_dim = dim, .head_dim_v = dim_v, .blocks = {BLOCKS_EAGLE3, 80, 40}, __VA_ARGS__                 \
    }

/* No key is seen otherwise than along diagonals, several of them. Blocks of 50 keys repeat with their period. */
#define DILATED_OF(dim, dim_v, block, ...)                                                                   \
    {                                                                                                        \
        .name = "dilated_of_head_dims_" #dim "_and_" #dim_v "_in_blocks_of_" #block #__VA_ARGS__,            \
        .batch = 2, .seqlen_q = 500, .seqlen_k = 500, .num_heads = 4, .num_kv_heads = 2, .head_dim = dim,    \
        .head_dim_v = dim_v, .blocks = {BLOCKS_DILATED, 64, block}, __VA_ARGS__                              \
    }

static const attention_case cases[] = {
    CAUSAL_AS_BLOCKS_OF_EVERY_SIZE(64, 64),
    CAUSAL_AS_BLOCKS_OF_EVERY_SIZE(128, 128),
    CAUSAL_AS_BLOCKS_OF_EVERY_SIZE(192, 128),
    CAUSAL_AS_BLOCKS_OF_EVERY_SIZE(256, 256),
    LENGTH(1),
    LENGTH(7),
    LENGTH(33),
    LENGTH(127),
    LENGTH(129),
    LENGTH(137),
    LENGTH(257),
    LENGTH(507),
    {.name = "rows_of_very_different_block_counts",
     .seqlen_q = 512,
     .num_heads = 2,
     .blocks = {BLOCKS_RAGGED, 32, 32},
     .head_dim = 32},
    {.name = "blocks_larger_than_the_sequences",
     .batch = 2,
     .seqlen_q = 30,
     .seqlen_k = 50,
     .num_heads = 2,
     .blocks = {BLOCKS_RANDOM, 256, 128},
     .mask_mod = &test_head_parity},
    {.name = "one_row_blocks",
     .seqlen_q = 60,
     .seqlen_k = 200,
     .num_heads = 2,
     .blocks = {BLOCKS_RANDOM, 1, 64, .per_head = true}},
    {.name = "one_key_blocks",
     .seqlen_q = 200,
     .seqlen_k = 40,
     .num_heads = 2,
     .blocks = {BLOCKS_RANDOM, 64, 1}},
    {.name = "blocks_longer_than_any_sequence",
     .seqlen_q = 1,
     .seqlen_k = 70,
     .num_heads = 8,
     .num_kv_heads = 1,
     .blocks = {BLOCKS_CAUSAL, 1 << 29, 1 << 29}},
    {.name = "eagle3_four_rounds",
     .batch = 2,
     .seqlen_q = 128,
     .seqlen_k = 512,
     .num_heads = 4,
     .num_kv_heads = 2,
     .blocks = {BLOCKS_EAGLE3, 64, 32}},
    {.name = "eagle3_lengths_that_fit_no_block",
     .seqlen_q = 75,
     .seqlen_k = 225,
     .num_heads = 2,
     .blocks = {BLOCKS_EAGLE3, 64, 64}},
    {.name = "eagle3_with_window_and_sink",
     .seqlen_q = 128,
     .seqlen_k = 384,
     .num_heads = 2,
     .blocks = {BLOCKS_EAGLE3, 32, 32},
     .window = {true, -1, 200},
     .sink = true},
    EAGLE3_OF(64, 64, 2),
    EAGLE3_OF(128, 128, 2),
    EAGLE3_OF(192, 128, 2),
    EAGLE3_OF(256, 256, 2),
    EAGLE3_OF(128, 128, 4),
    EAGLE3_OF(128, 128, 4, .deterministic = true),
    EAGLE3_OF(64, 64, 1, .softcap = 3, .alibi = ALIBI_PER_HEAD),
    DILATED_OF(64, 64, 80),
    DILATED_OF(128, 128, 50),
    DILATED_OF(128, 128, 80, .deterministic = true),
    DILATED_OF(192, 128, 50, .causal = SACCADE_CAUSAL_TOP_LEFT),
    DILATED_OF(256, 256, 50),
    {.name = "broadcast_batch_and_heads",
     .batch = 3,
     .seqlen_q = 70,
     .seqlen_k = 90,
     .num_heads = 4,
     .num_kv_heads = 2,
     .blocks = {BLOCKS_RANDOM, 16, 32}},
    {.name = "own_batch_broadcast_heads",
     .batch = 3,
     .seqlen_q = 70,
     .seqlen_k = 90,
     .num_heads = 4,
     .num_kv_heads = 2,
     .blocks = {BLOCKS_RANDOM, 16, 32, .per_batch = true}},
    {.name = "own_heads_packed",
     .batch = 3,
     .lengths = LENGTHS_PACKED,
     .lens_q = {70, 0, 33},
     .lens_k = {90, 20, 1},
     .num_heads = 4,
     .num_kv_heads = 2,
     .blocks = {BLOCKS_RANDOM, 16, 32, .per_head = true},
     .mask_mod = &test_head_parity},
    {.name = "mask_mod_classified_per_head",
     .batch = 2,
     .seqlen_q = 100,
     .seqlen_k = 130,
     .num_heads = 2,
     .blocks = {BLOCKS_MOD, 32, 32, .per_batch = true, .per_head = true},
     .mask_mod = &test_head_parity},
};

int main(void) { return attention_suite("edge_blocks", cases, COUNT_OF(cases), NULL, 0, false); }
