/* test_attention_random.c - features thrown together at random, forward and backward: what no list of cases thinks of.
 * SACCADE_TEST_RANDOM=N runs N cases instead of the first 60; case i is the same whatever N. */
#include <stdio.h>
#include <stdlib.h>

#include "support/attention_suite.h"
#include "support/random.h"

enum { DEFAULT_CASES = 60, NAME_SIZE = 32 };

static bool one_in(test_random *random, int32_t n) { return random_below(random, n) == 0; }

/* Short ones often, since edges are where lengths are small. */
static int32_t random_length(test_random *random) {
    static const int32_t most[] = {3, 20, 70, 140, 300};
    return 1 + random_below(random, most[random_below(random, COUNT_OF(most))]);
}

static void random_lengths(test_random *random, attention_case *c) {
    c->batch = 1 + random_below(random, 3);
    c->seqlen_q = random_length(random);
    c->seqlen_k = one_in(random, 3) ? c->seqlen_q : random_length(random);
    c->lengths = (test_lengths)random_below(random, 4);
    for (int32_t b = 0; b < c->batch; b++) { /* any part of the length, often none or all */
        c->lens_q[b] = one_in(random, 4) ? c->seqlen_q : random_below(random, c->seqlen_q + 1);
        c->lens_k[b] = one_in(random, 4) ? c->seqlen_k : random_below(random, c->seqlen_k + 1);
    }
}

static void random_heads(test_random *random, attention_case *c) {
    static const int32_t dims[] = {8, 16, 24, 40, 64, 64, 72, 96, 128, 128, 160, 192, 256};
    c->num_kv_heads = 1 + random_below(random, 2);
    c->num_heads = c->num_kv_heads * (1 + random_below(random, 4));
    c->head_dim = dims[random_below(random, COUNT_OF(dims))];
    c->head_dim_v = one_in(random, 2) ? c->head_dim : dims[random_below(random, COUNT_OF(dims))];
}

static void random_band(test_random *random, attention_case *c) {
    c->causal = (saccade_causal)random_below(random, 3);
    if (!one_in(random, 3)) return;
    c->window = (saccade_window){.enabled = true,
                                 .left = one_in(random, 3) ? -1 : random_below(random, 80),
                                 .right = one_in(random, 3) ? -1 : random_below(random, 80),
                                 .align = (saccade_align)random_below(random, 2)};
}

static void random_mods(test_random *random, attention_case *c) {
    static const test_modifier *const score_mods[] = {&test_smooth_cap, &test_relative_bias,
                                                      &test_temperature, &test_head_slope};
    static const test_modifier *const mask_mods[] = {&test_prefix_lm, &test_documents, &test_dilated,
                                                     &test_blind_rows, &test_head_parity};
    if (one_in(random, 3)) c->score_mod = score_mods[random_below(random, COUNT_OF(score_mods))];
    if (one_in(random, 3)) c->mask_mod = mask_mods[random_below(random, COUNT_OF(mask_mods))];
    if (one_in(random, 4)) c->softcap = 1 + (float)random_below(random, 5);
    c->sink = one_in(random, 4);
    if (one_in(random, 4)) c->alibi = (test_alibi)(1 + random_below(random, 2));
    if (one_in(random, 4)) c->scale = 0.05f * (float)(random_below(random, 8) - 3);
}

static void random_blocks(test_random *random, attention_case *c) {
    static const int32_t sizes[] = {1, 16, 32, 64, 80, 112, 128, 256};
    if (!one_in(random, 3)) return;
    c->blocks = (test_blocks){.pattern = (test_block_pattern)(1 + random_below(random, BLOCKS_EAGLE3)),
                              .q_block = sizes[random_below(random, COUNT_OF(sizes))],
                              .kv_block = sizes[random_below(random, COUNT_OF(sizes))],
                              .per_batch = one_in(random, 2),
                              .per_head = one_in(random, 2)};
    if (c->blocks.pattern == BLOCKS_MOD) { /* of b and h, so the mask must be too */
        c->mask_mod = &test_head_parity;
        c->blocks.per_batch = c->blocks.per_head = true;
    }
    if (c->blocks.pattern == BLOCKS_CAUSAL || c->blocks.pattern == BLOCKS_EAGLE3)
        c->mask_mod = NULL; /* their own */
    if (c->blocks.pattern == BLOCKS_EAGLE3) {
        c->lengths = LENGTHS_FULL;
        c->seqlen_k = c->seqlen_q * (1 + random_below(random, 4));
    }
}

static attention_case random_case(int32_t index, char *name) {
    test_random random = {(uint64_t)index * 1000003};
    attention_case c = {.name = name, .lse_grad = one_in(&random, 2), .deterministic = one_in(&random, 2)};
    snprintf(name, NAME_SIZE, "random_%d", index);
    random_lengths(&random, &c);
    random_heads(&random, &c);
    random_band(&random, &c);
    random_mods(&random, &c);
    random_blocks(&random, &c);
    if (one_in(&random, 3)) c.inputs = (test_inputs)random_below(&random, INPUTS_FAR_NEGATIVE);
    if (one_in(&random, 2)) c.layout = (test_layout)random_below(&random, LAYOUT_MIXED + 1);
    return c;
}

int main(void) {
    const char *wanted = getenv("SACCADE_TEST_RANDOM");
    size_t count = wanted ? strtoul(wanted, NULL, 10) : DEFAULT_CASES;
    attention_case *cases = calloc(count, sizeof *cases);
    char(*names)[NAME_SIZE] = calloc(count, sizeof *names);
    if (!cases || !names) return 1;
    for (size_t i = 0; i < count; i++) cases[i] = random_case((int32_t)i, names[i]);
    int failed = attention_suite("attention_random", cases, count, NULL, 0, false);
    free(cases);
    free(names);
    return failed;
}
