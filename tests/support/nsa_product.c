/* nsa_product.c - lengths x heads x tiles x blocks x how to score, select and gate. */
#include "support/nsa_product.h"

#include <stdio.h>
#include <stdlib.h>

#include "support/cmocka_all.h"
#include "support/random.h"

static const nsa_case lengths[] = {
    {.batch = 1, .seqlen = 1},
    {.batch = 2, .seqlen = 63},
    {.batch = 2, .seqlen = 64},
    {.batch = 1, .seqlen = 65},
    {.batch = 2, .seqlen = 127},
    {.batch = 1, .seqlen = 300},
    {.batch = 4, .packed = true, .lens = {65, 0, 1, 64}},
    {.batch = 3, .packed = true, .lens = {127, 63, 0}},
    {.batch = 3, .packed = true, .lens = {0, 300, 5}},
};
static const int32_t heads[][2] = {{2, 2}, {4, 2}, {4, 1}}, tiles[] = {1, 16, 256, 7};
static const int32_t blocks[][3] = {
    {8, 4, 24}, {64, 2, 512}, {16, 16, 1}, {5, 3, 40}}; /* block, top_k, window */
static const int32_t forced[][2] = {{0, 0}, {1, 2}, {1, 0}, {0, 1}};
/* Enough compressed keys for two and three of the 128-wide blocks. */
static const nsa_case sparse = {.batch = 2,
                                .packed = true,
                                .lens = {300, 257},
                                .block = 1,
                                .top_k = 5,
                                .compressed_top_k = 1,
                                .window = 9};

#define PICK(array) (array)[(uint64_t)random_below(&random, (int32_t)COUNT_OF(array))]

nsa_case nsa_product(int i, char *name, size_t size) {
    test_random random = {(uint64_t)i * 77 + 5};
    const int32_t *head = PICK(heads), *block = PICK(blocks), *force = PICK(forced);
    nsa_case c = i % 9 == 8 ? sparse : lengths[i % (int)COUNT_OF(lengths)];
    if (!c.block) c.block = block[0], c.top_k = block[1], c.window = block[2];
    c.num_heads = head[0];
    c.num_kv_heads = head[1];
    c.query_tile = tiles[i / 9 % (int)COUNT_OF(tiles)];
    c.score = (saccade_nsa_score)random_below(&random, 3);
    c.select_per = (saccade_nsa_select_per)random_below(&random, 3);
    c.visibility = (saccade_nsa_visibility)random_below(&random, 2);
    c.initial_blocks = force[0];
    c.local_blocks = c.top_k > force[0] + force[1] ? force[1] : 0;
    c.weights = random_below(&random, 2);
    c.gate = (nsa_gate_form)random_below(&random, 3);
    c.keep_outputs = i % 5 < 2;
    c.layout = (test_layout)random_below(&random, LAYOUT_ODD);
    c.seed = (uint64_t)i;
    snprintf(name, size,
             "case %d: %s%d, heads %d/%d, block %d, top_k %d, window %d, tile %d, score %d, per %d, "
             "visibility %d, "
             "forced %d + %d, compressed_top_k %d, weights %d, gate %d, keep_outputs %d, layout %d",
             i, c.packed ? "packed " : "", c.packed ? c.lens[0] : c.seqlen, head[0], head[1], c.block,
             c.top_k, c.window, c.query_tile, (int)c.score, (int)c.select_per, (int)c.visibility,
             c.initial_blocks, c.local_blocks, c.compressed_top_k, c.weights, (int)c.gate, c.keep_outputs,
             (int)c.layout);
    c.name = name;
    return c;
}
