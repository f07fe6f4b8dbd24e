/* attention_product.c - masks x lengths x heads x head dims x what becomes of a score. */
#include "support/attention_product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/modifiers.h"

/* What hides pairs.  */
static const attention_case masks[] = {
    {.name = "no mask"},
    {.name = "causal top_left", .causal = SACCADE_CAUSAL_TOP_LEFT},
    {.name = "causal bottom_right", .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "window (17, 5)", .window = {true, 17, 5}},
    {.name = "window (33, 0) bottom_right", .window = {true, 33, 0, SACCADE_BOTTOM_RIGHT}},
    {.name = "causal bottom_right, window (40, -1) top_left",
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT,
     .window = {true, 40, -1}},
    {.name = "mask_mod prefix_lm", .mask_mod = &test_prefix_lm},
    {.name = "mask_mod dilated, causal", .mask_mod = &test_dilated, .causal = SACCADE_CAUSAL_TOP_LEFT},
    {.name = "mask_mod documents", .mask_mod = &test_documents},
    {.name = "mask_mod blind_rows", .mask_mod = &test_blind_rows},
    {.name = "blocks 32x48 random",
     .blocks = {BLOCKS_RANDOM, 32, 48, .per_batch = true, .per_head = true},
     .mask_mod = &test_head_parity},
    {.name = "blocks 16x64 ragged, causal",
     .blocks = {BLOCKS_RAGGED, 16, 64},
     .causal = SACCADE_CAUSAL_TOP_LEFT},
    {.name = "blocks 64x32 of prefix_lm",
     .blocks = {BLOCKS_MOD, 64, 32, .per_batch = true},
     .mask_mod = &test_prefix_lm},
    {.name = "blocks 128x128 causal", .blocks = {BLOCKS_CAUSAL, 128, 128}},
    {.name = "blocks 32x16 Eagle3", .blocks = {BLOCKS_EAGLE3, 32, 16}},
};

static const attention_case lengths[] = {
    {.name = "full", .batch = 2, .seqlen_q = 97, .seqlen_k = 150},
    {.name = "full, more queries", .batch = 1, .seqlen_q = 161, .seqlen_k = 70},
    {.name = "used",
     .batch = 3,
     .seqlen_q = 80,
     .seqlen_k = 150,
     .lengths = LENGTHS_USED,
     .lens_q = {80, 0, 33},
     .lens_k = {131, 70, 150}},
    {.name = "packed",
     .batch = 4,
     .lengths = LENGTHS_PACKED,
     .lens_q = {33, 0, 90, 1},
     .lens_k = {70, 5, 64, 129}},
    {.name = "packed, padded",
     .batch = 3,
     .lengths = LENGTHS_PACKED_PADDED,
     .lens_q = {65, 17, 31},
     .lens_k = {65, 100, 0}},
};

static const int32_t heads[][2] = {{2, 2}, {4, 2}, {3, 1}};

static const int32_t dims[][2] = {{64, 64}, {128, 128}, {192, 128}, {128, 64},  {64, 128}, {40, 40},
                                  {96, 64}, {72, 96},   {128, 96},  {256, 256}, {8, 8}};

static const attention_case scores[] = {
    {.name = "plain"},
    {.name = "softcap", .softcap = 4},
    {.name = "sink", .sink = true},
    {.name = "alibi", .alibi = ALIBI_PER_HEAD},
    {.name = "scale 0.3", .scale = 0.3f},
    {.name = "relative_bias", .score_mod = &test_relative_bias},
    {.name = "alibi (B, H), softcap, sink", .alibi = ALIBI_PER_BATCH, .softcap = 2, .sink = true},
    {.name = "temperature, sink", .score_mod = &test_temperature, .sink = true},
    {.name = "peaked", .inputs = INPUTS_LARGE},
    {.name = "smooth_cap, alibi", .score_mod = &test_smooth_cap, .alibi = ALIBI_PER_HEAD},
    {.name = "head_slope", .score_mod = &test_head_slope},
    {.name = "orthogonal", .inputs = INPUTS_ORTHOGONAL},
    {.name = "equal scores", .inputs = INPUTS_EQUAL},
};

/* Eagle3 asks for whole rounds; here they are 32 queries and three rounds of keys. */
static void fit_lengths(attention_case *c) {
    if (c->blocks.pattern != BLOCKS_EAGLE3) return;
    c->lengths = LENGTHS_FULL;
    c->seqlen_q = 96;
    c->seqlen_k = 3 * 96;
}

static attention_case combined(size_t index) {
    const attention_case *mask = &masks[index % COUNT_OF(masks)], *length = &lengths[index / COUNT_OF(masks)];
    size_t turn = index + index / COUNT_OF(masks);
    const attention_case *score = &scores[turn % COUNT_OF(scores)];
    const int32_t *head = heads[turn % COUNT_OF(heads)], *dim = dims[turn % COUNT_OF(dims)];
    attention_case c = *length;
    c.num_heads = head[0];
    c.num_kv_heads = head[1];
    c.head_dim = dim[0];
    c.head_dim_v = dim[1];
    c.causal = mask->causal;
    c.window = mask->window;
    c.mask_mod = mask->mask_mod;
    c.blocks = mask->blocks;
    c.scale = score->scale;
    c.softcap = score->softcap;
    c.sink = score->sink;
    c.alibi = score->alibi;
    c.score_mod = score->score_mod;
    c.inputs = score->inputs;
    c.layout = (test_layout)(turn % LAYOUT_ODD);
    c.lse_grad = turn % 2;
    c.deterministic = turn / 2 % 2 && !score->score_mod; /* gradients of aux tensors may be refused then */
    fit_lengths(&c);
    char name[200];
    snprintf(name, sizeof name, "%s; %s; heads %d/%d; dims %d/%d; %s", mask->name, length->name, head[0],
             head[1], dim[0], dim[1], score->name);
    c.name = strdup(name);
    return c;
}

attention_case *attention_product(size_t first, size_t step, size_t *count) {
    size_t all = COUNT_OF(masks) * COUNT_OF(lengths);
    attention_case *cases = calloc(all, sizeof *cases);
    *count = 0;
    for (size_t index = first; cases && index < all; index += step) cases[(*count)++] = combined(index);
    return cases;
}

void attention_product_free(attention_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) free((char *)cases[i].name);
    free(cases);
}
