/* test_tile_walk.c - the walk against a dense mask: every band rule, all small lengths, tiles and blocks, in both
 * directions. For each walk: tiles ascend, are disjoint, at most `step` wide, cover every visible pair with the right
 * kind, and hold nothing that nobody sees; FULL is really full, `banded` exact, DIAGONAL one diagonal. */
#include <stdlib.h>
#include <string.h>

#include "shared/tile_walk.h"
#include "support/cmocka_all.h"
#include "support/dense_band.h"
#include "support/random.h"

static const sac_band_rule no_band = {.window_left = -1, .window_right = -1};

enum { LONGEST = 13, MAX_BLOCKS = LONGEST, NO_PERIOD = 0, NO_PARTS = 0 };

/* One masked rectangle, dense, beside the arguments that describe it. */
typedef struct world {
    sac_attention_args args;
    sac_band_rule rule;
    int32_t nq, nk;
    bool band[LONGEST][LONGEST];
    uint8_t kind[LONGEST][LONGEST];     /* sac_tile_kind of each pair's block */
    uint8_t left_out[LONGEST][LONGEST]; /* the pair's part of the queries did not list the block */
    uint64_t seed;
    int64_t row_offsets[MAX_BLOCKS + 1], column_offsets[MAX_BLOCKS + 1];
    int32_t row_entries[MAX_BLOCKS * MAX_BLOCKS], column_entries[MAX_BLOCKS * MAX_BLOCKS];
    uint32_t row_bits[MAX_BLOCKS * MAX_BLOCKS], column_bits[MAX_BLOCKS * MAX_BLOCKS];
} world;

/* One walk over it. */
typedef struct walked {
    const world *w;
    bool keys; /* queries walk keys; false: keys walk queries */
    sac_range fixed;
    int32_t step;
} walked;

static void fail_walk(const walked *k, const sac_tile *tile, const char *what, int32_t i, int32_t j) {
    char text[128];
    const sac_block_mask_args *mask = &k->w->args.blocks;
    fail_msg("%s; blocks %d x %d, period %d, seed %llu, mask_mod %d; %s [%d, %d) in steps of %d, "
             "tile [%d, %d) kind %d banded %d delta %d: %s at query %d, key %d",
             dense_band_text(text, &k->w->rule, k->w->nq, k->w->nk), mask->q_block, mask->kv_block,
             mask->period, (unsigned long long)k->w->seed, k->w->args.has_mask_mod,
             k->keys ? "queries" : "keys", k->fixed.begin, k->fixed.end, k->step, tile->begin, tile->end,
             tile->kind, tile->banded, tile->delta, what, i, j);
}

static bool on_diagonal(const world *w, int32_t i, int32_t j) {
    int32_t period = w->args.blocks.period;
    return period && (j - i) % period == 0;
}

/* ---- making worlds ---- */

/* The lengths of the sequence; a block mask may have been made for longer ones. */
static void set_lengths(world *w, int32_t nq, int32_t nk) {
    w->nq = nq;
    w->nk = nk;
    for (int32_t i = 0; i < nq; i++)
        for (int32_t j = 0; j < nk; j++) w->band[i][j] = dense_band_sees(&w->rule, nq, nk, i, j);
}

static void make_band(world *w, const sac_band_rule *rule, int32_t nq, int32_t nk) {
    memset(w, 0, sizeof *w);
    w->rule = w->args.band = *rule;
    set_lengths(w, nq, nk);
}

static void fill_kinds(world *w, sac_tile_kind kind) {
    for (int32_t i = 0; i < w->nq; i++) memset(w->kind[i], kind, (size_t)w->nk);
}

/* The parts of a block row that list the block of key j; those without queries count in, as in the lists that devices
 * make. */
static uint32_t bits_of(const world *w, int32_t row, int32_t j) {
    const sac_block_mask_args *mask = &w->args.blocks;
    uint32_t bits = SAC_ALL_PARTS;
    for (int32_t i = row * mask->q_block; i < sac_min((row + 1) * mask->q_block, w->nq); i++)
        if (w->left_out[i][j]) bits &= ~(1u << (i - row * mask->q_block) / mask->part);
    return bits;
}

/* One side's lists of the blocks in the dense kinds: a list for each of its block rows, or block columns. */
static void list_side(world *w, bool by_key, int64_t *offsets, int32_t *entries, uint32_t *bits) {
    const sac_block_mask_args *mask = &w->args.blocks;
    const int32_t lists = by_key ? mask->num_kv_blocks : mask->num_q_blocks;
    const int32_t longest = by_key ? mask->num_q_blocks : mask->num_kv_blocks;
    int64_t count = 0;
    for (int32_t list = 0; list < lists; list++) {
        for (int32_t n = 0; n < longest; n++) {
            const int32_t row = by_key ? n : list, column = by_key ? list : n;
            const int32_t kind = w->kind[row * mask->q_block][column * mask->kv_block];
            if (!kind) continue;
            if (mask->part) bits[count] = bits_of(w, row, column * mask->kv_block);
            entries[count++] = SAC_ENTRY(n, kind);
        }
        offsets[list + 1] = count;
    }
}

static void list_blocks(world *w, int32_t q_block, int32_t kv_block, int32_t period, int32_t part) {
    sac_block_mask_args *mask = &w->args.blocks;
    *mask =
        (sac_block_mask_args){.by_query = {w->row_offsets, w->row_entries, part ? w->row_bits : NULL},
                              .by_key = {w->column_offsets, w->column_entries, part ? w->column_bits : NULL},
                              .q_block = q_block,
                              .kv_block = kv_block,
                              .heads_per_list = 1,
                              .num_q_blocks = sac_ceil_div(w->nq, q_block),
                              .num_kv_blocks = sac_ceil_div(w->nk, kv_block),
                              .batch = 1,
                              .num_heads = 1,
                              .period = period,
                              .part = part};
    list_side(w, false, w->row_offsets, w->row_entries, w->row_bits);
    list_side(w, true, w->column_offsets, w->column_entries, w->column_bits);
}

/* What holds for the pairs of one block. */
static void fill_block(uint8_t pairs[LONGEST][LONGEST], const world *w, sac_range queries, sac_range keys,
                       uint8_t value) {
    for (int32_t i = queries.begin; i < sac_min(queries.end, w->nq); i++)
        for (int32_t j = keys.begin; j < sac_min(keys.end, w->nk); j++) pairs[i][j] = value;
}

/* Blocks of random kinds, neighbours often alike so that runs arise. */
static void random_kinds(world *w, int32_t q_block, int32_t kv_block, uint64_t seed) {
    test_random random = {seed};
    w->seed = seed;
    for (int32_t i = 0; i < w->nq; i += q_block) {
        sac_tile_kind kind = SAC_NONE;
        for (int32_t j = 0; j < w->nk; j += kv_block) {
            if (random_below(&random, 2)) kind = (sac_tile_kind)random_below(&random, 3);
            fill_block(w->kind, w, (sac_range){i, i + q_block}, (sac_range){j, j + kv_block}, (uint8_t)kind);
        }
    }
}

/* Blocks that exactly one diagonal of the period crosses become DIAGONAL, or FULL at random. */
static void diagonal_kinds(world *w, int32_t q_block, int32_t kv_block, int32_t period, uint64_t seed) {
    test_random random = {seed};
    w->seed = seed;
    for (int32_t i = 0; i < w->nq; i += q_block)
        for (int32_t j = 0; j < w->nk; j += kv_block) {
            int32_t low = j - (i + q_block - 1), high = j + kv_block - 1 - i, diagonals = 0;
            for (int32_t d = low; d <= high; d++) diagonals += d % period == 0;
            int32_t draw = random_below(&random, 6);
            uint8_t kind = draw == 0 ? SAC_FULL : diagonals == 1 && draw < 5 ? SAC_DIAGONAL : SAC_NONE;
            fill_block(w->kind, w, (sac_range){i, i + q_block}, (sac_range){j, j + kv_block}, kind);
        }
}

/* ---- checking one walk ---- */

/* Everything about one tile, given as (queries, keys). */
static void check_rectangle(const walked *k, const sac_tile *tile, sac_range queries, sac_range keys) {
    const world *w = k->w;
    bool outside = false, useful = false;
    for (int32_t i = queries.begin; i < queries.end; i++)
        for (int32_t j = keys.begin; j < keys.end; j++) {
            outside |= !w->band[i][j];
            useful |= w->band[i][j];
            if (tile->kind == SAC_DIAGONAL && on_diagonal(w, i, j) != (j - i == tile->delta))
                fail_walk(k, tile, "the diagonal of the tile is another", i, j);
            if (w->kind[i][j] != tile->kind) fail_walk(k, tile, "the kind is another", i, j);
            bool left_out =
                tile->bits != SAC_ALL_PARTS && !(tile->bits >> sac_part_of(&w->args.blocks, i) & 1);
            if (left_out != w->left_out[i][j]) fail_walk(k, tile, "the bits are others", i, j);
        }
    if ((bool)tile->banded != outside) fail_walk(k, tile, "banded is wrong", queries.begin, keys.begin);
    if (!useful && tile->kind != SAC_DIAGONAL)
        fail_walk(k, tile, "nobody sees anything", queries.begin, keys.begin);
    if (tile->kind != SAC_DIAGONAL) return;
    int32_t shift = k->keys ? -tile->delta : tile->delta; /* from the walked side to the one that walks */
    if (tile->begin + shift < k->fixed.begin || tile->end + shift > k->fixed.end)
        fail_walk(k, tile, "the tile goes beyond its diagonal", queries.begin, keys.begin);
}

static void check_walk(const walked *k) {
    const world *w = k->w;
    bool reached[LONGEST][LONGEST] = {{false}};
    sac_band band = sac_band_make(&w->args.band, w->nq, w->nk);
    sac_walk walk = k->keys ? sac_walk_keys(&w->args, &band, 0, 0, k->fixed, k->step)
                            : sac_walk_queries(&w->args, &band, 0, 0, k->fixed, k->step);
    int32_t limit = k->keys ? w->nk : w->nq, last_end = 0;
    sac_tile tile = {0};
    while (sac_walk_next(&walk, &tile)) {
        sac_range range = {tile.begin, tile.end};
        if (tile.begin < last_end || tile.end <= tile.begin || tile.end > limit ||
            tile.end - tile.begin > k->step)
            fail_walk(k, &tile, "tiles must ascend, be disjoint, and be 1 to step wide", last_end, limit);
        last_end = tile.end;
        sac_range queries = k->keys ? k->fixed : range, keys = k->keys ? range : k->fixed;
        check_rectangle(k, &tile, queries, keys);
        for (int32_t i = queries.begin; i < queries.end; i++)
            for (int32_t j = keys.begin; j < keys.end; j++) reached[i][j] = true;
    }
    const sac_range queries = k->keys ? k->fixed : (sac_range){0, w->nq};
    const sac_range keys = k->keys ? (sac_range){0, w->nk} : k->fixed;
    for (int32_t i = queries.begin; i < queries.end; i++)
        for (int32_t j = keys.begin; j < keys.end; j++) {
            bool visible =
                w->band[i][j] && w->kind[i][j] && (w->kind[i][j] != SAC_DIAGONAL || on_diagonal(w, i, j));
            if (visible && !reached[i][j]) fail_walk(k, &tile, "a visible pair lies in no tile", i, j);
        }
}

/* All tiles of one side, which must cut it without gap or overlap and stay inside their blocks. */
static void check_side(const world *w, bool keys, int32_t tile_size, int32_t step) {
    int32_t len = keys ? w->nq : w->nk, expected_begin = 0;
    int32_t block = keys ? w->args.blocks.q_block : w->args.blocks.kv_block;
    int32_t count = sac_num_tiles(len, tile_size, block);
    for (int32_t index = 0; index < count; index++) {
        walked k = {w, keys, sac_tile_rows(index, len, tile_size, block), step};
        assert_int_equal(k.fixed.begin, expected_begin);
        assert_in_range(k.fixed.end - k.fixed.begin, 1, tile_size);
        if (block) assert_int_equal(k.fixed.begin / block, (k.fixed.end - 1) / block);
        expected_begin = k.fixed.end;
        check_walk(&k);
    }
    assert_int_equal(expected_begin, len);
}

static void check_world(const world *w) {
    static const int32_t sizes[] = {1, 2, 3, 5, 8};
    for (size_t t = 0; t < sizeof sizes / sizeof sizes[0]; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            check_side(w, true, sizes[t], sizes[s]);
            check_side(w, false, sizes[t], sizes[s]);
        }
}

/* ---- tests ---- */

static void only_the_first_tile_is_short_where_that_is_asked(void **state) {
    (void)state;
    for (int32_t len = 0; len <= 20; len++)
        for (int32_t size = 1; size <= 8; size++) {
            const int32_t count = sac_num_tiles(len, size, 0);
            int32_t expected_begin = 0;
            for (int32_t index = 0; index < count; index++) {
                const sac_range rows = sac_tile_rows_short_first(index, len, size);
                assert_int_equal(rows.begin, expected_begin);
                assert_in_range(rows.end - rows.begin, index == 0 ? 1 : size, size);
                expected_begin = rows.end;
            }
            assert_int_equal(expected_begin, len);
            const sac_range behind = sac_tile_rows_short_first(count, len, size);
            assert_true(behind.begin >= behind.end);
        }
}

/* Every band over all small lengths, without blocks; with a mask_mod in every other world. */
static void for_every_band(void (*check)(const world *w)) {
    sac_band_rule rule;
    world w;
    for (int index = 0; dense_band_rule(index, &rule); index++)
        for (int32_t nq = 0; nq <= 9; nq++)
            for (int32_t nk = 0; nk <= LONGEST; nk++) {
                make_band(&w, &rule, nq, nk);
                w.args.has_mask_mod = (nq + nk) % 2;
                fill_kinds(&w, w.args.has_mask_mod ? SAC_PARTIAL : SAC_FULL);
                check(&w);
            }
}

static void every_band_is_walked_exactly(void **state) {
    (void)state;
    for_every_band(check_world);
}

static void check_back(const world *w, sac_range queries, int32_t step) {
    const sac_band band = sac_band_make(&w->args.band, w->nq, w->nk);
    sac_walk on = sac_walk_keys(&w->args, &band, 0, 0, queries, step), back = on;
    sac_tile tiles[LONGEST], tile;
    int count = 0;
    while (sac_walk_next(&on, &tile)) tiles[count++] = tile;
    const walked k = {w, true, queries, step};
    while (sac_walk_back(&back, &tile)) {
        if (--count < 0) fail_walk(&k, &tile, "one tile more than on the way forwards", queries.begin, 0);
        const sac_tile *same = &tiles[count];
        if (tile.begin != same->begin || tile.end != same->end || tile.kind != same->kind ||
            tile.banded != same->banded || tile.bits != same->bits)
            fail_walk(&k, &tile, "another tile than on the way forwards", queries.begin, count);
    }
    assert_int_equal(count, 0);
}

/* All queries of a world, and its last one, in steps of several widths. */
static void check_ways_back(const world *w) {
    const sac_range all = {0, w->nq}, last = {w->nq - 1, w->nq};
    for (int32_t step = 1; w->nq > 0 && step <= 5; step++) {
        check_back(w, all, step);
        check_back(w, last, step);
    }
}

static void the_way_back_meets_the_same_tiles_the_last_one_first(void **state) {
    (void)state;
    for_every_band(check_ways_back);
}

/* Keys that walk queries in whole tiles of q_tile: the index-th to come to such a tile is that many tiles behind the one
 * with the first key that the tile sees. dQ is summed in this order. */
static void check_turns(const world *w, int32_t q_tile, int32_t kv_tile) {
    const sac_band band = sac_band_make(&w->args.band, w->nq, w->nk);
    int32_t came[LONGEST] = {0};
    for (int32_t i = 0; i < sac_num_tiles(w->nk, kv_tile, 0); i++) {
        const walked k = {w, false, sac_tile_rows(i, w->nk, kv_tile, 0), q_tile};
        const sac_range run = sac_walk_queries(&w->args, &band, 0, 0, k.fixed, q_tile).run;
        const sac_tile tile = {.begin = run.begin, .end = run.end};
        for (int32_t m = run.begin / q_tile; run.begin < run.end && m * q_tile < run.end; m++)
            if (i - sac_band_lo(&band, m * q_tile) / kv_tile != came[m]++)
                fail_walk(&k, &tile, "key tiles do not come one after the other", m * q_tile, k.fixed.begin);
    }
}

static void check_all_turns(const world *w) {
    for (int32_t q_tile = 1; q_tile <= 4; q_tile++)
        for (int32_t kv_tile = 1; kv_tile <= 4; kv_tile++) check_turns(w, q_tile, kv_tile);
}

static void keys_come_to_a_query_tile_one_after_the_other(void **state) {
    (void)state;
    for_every_band(check_all_turns);
}

static const int32_t block_sizes[][2] = {{1, 1}, {1, 4}, {4, 1}, {2, 2}, {2, 3},
                                         {3, 2}, {4, 4}, {6, 3}, {5, 16}};

/* Tiles smaller and larger than blocks, rectangular blocks, partial last blocks, under every band rule. */
static void every_block_size_is_walked_exactly_whatever_the_tile(void **state) {
    (void)state;
    sac_band_rule rule;
    world w;
    uint64_t seed = 1;
    for (int index = 0; dense_band_rule(index, &rule); index++)
        for (size_t s = 0; s < sizeof block_sizes / sizeof block_sizes[0]; s++)
            for (int length = 0; length < 4; length++) {
                make_band(&w, &rule, 4 + 3 * length, 13 - 2 * length);
                w.args.has_mask_mod = length % 2;
                random_kinds(&w, block_sizes[s][0], block_sizes[s][1], seed++);
                list_blocks(&w, block_sizes[s][0], block_sizes[s][1], NO_PERIOD, NO_PARTS);
                check_world(&w);
            }
}

static void every_small_length_is_walked_exactly_in_blocks(void **state) {
    (void)state;
    world w;
    for (int32_t nq = 0; nq <= LONGEST; nq++)
        for (int32_t nk = 0; nk <= LONGEST; nk++)
            for (size_t s = 0; s < sizeof block_sizes / sizeof block_sizes[0]; s++) {
                make_band(&w, &no_band, nq, nk);
                random_kinds(&w, block_sizes[s][0], block_sizes[s][1], (uint64_t)(nq * 100 + nk));
                list_blocks(&w, block_sizes[s][0], block_sizes[s][1], NO_PERIOD, NO_PARTS);
                check_world(&w);
            }
}

static void blocks_beyond_the_used_length_are_not_walked(void **state) {
    (void)state;
    sac_band_rule rule;
    world w;
    uint64_t seed = 1;
    for (int index = 0; dense_band_rule(index, &rule); index += 3)
        for (int32_t nq = 0; nq < LONGEST; nq += 3)
            for (int32_t nk = 0; nk < LONGEST; nk += 2) {
                make_band(&w, &rule, LONGEST, LONGEST);
                random_kinds(&w, 4, 3, seed++);
                list_blocks(&w, 4, 3, NO_PERIOD, NO_PARTS);
                set_lengths(&w, nq, nk);
                check_world(&w);
            }
}

static void diagonal_blocks_hold_one_key_a_row(void **state) {
    (void)state;
    sac_band_rule rule;
    world w;
    uint64_t seed = 1;
    for (int index = 0; dense_band_rule(index, &rule); index++)
        for (size_t s = 0; s < sizeof block_sizes / sizeof block_sizes[0]; s++)
            for (int32_t period = 4; period <= 12; period += 2) {
                make_band(&w, &rule, sac_min(4 + period, LONGEST), LONGEST);
                diagonal_kinds(&w, block_sizes[s][0], block_sizes[s][1], period, seed++);
                list_blocks(&w, block_sizes[s][0], block_sizes[s][1], period, NO_PARTS);
                check_world(&w);
            }
}

/* Blocks that some parts of their queries leave out, at random, neighbours often alike. */
static void leave_out(world *w, int32_t kv_block, int32_t part, uint64_t seed) {
    test_random random = {seed * 3 + 1};
    for (int32_t i = 0; i < w->nq; i += part) {
        bool left_out = false;
        for (int32_t j = 0; j < w->nk; j += kv_block) {
            if (random_below(&random, 2)) left_out = random_below(&random, 2);
            fill_block(w->left_out, w, (sac_range){i, i + part}, (sac_range){j, j + kv_block}, left_out);
        }
    }
}

static void bits_say_which_queries_a_tile_is_for(void **state) {
    (void)state;
    static const int32_t parts[][2] = {{1, 4},  {2, 4}, {1, 3}, {3, 6},
                                       {2, 12}, {1, 1}, {1, 13}}; /* of q_block */
    sac_band_rule rule;
    world w;
    uint64_t seed = 1;
    for (int index = 0; dense_band_rule(index, &rule); index++)
        for (size_t s = 0; s < sizeof parts / sizeof parts[0]; s++)
            for (int32_t kv_block = 1; kv_block <= 5; kv_block += 2) {
                make_band(&w, &rule, 3 + (int32_t)(seed % 11), 13 - (int32_t)(seed % 5));
                random_kinds(&w, parts[s][1], kv_block, seed);
                leave_out(&w, kv_block, parts[s][0], seed++);
                list_blocks(&w, parts[s][1], kv_block, NO_PERIOD, parts[s][0]);
                check_world(&w);
            }
}

static void bits_of_a_range_are_those_of_its_queries(void **state) {
    (void)state;
    for (int32_t part = 1; part <= 3; part++)
        for (int32_t parts = 1; parts <= 32; parts++) {
            const sac_block_mask_args mask = {.q_block = part * parts, .part = part};
            for (int32_t begin = 0; begin < 2 * part * parts; begin++) {
                uint32_t bits = 0;
                assert_int_equal(sac_parts_of(&mask, begin, begin), 0);
                for (int32_t end = begin + 1; end < begin + 2 * part * parts; end++) {
                    const uint32_t there = parts == 32 ? ~0u : (1u << parts) - 1;
                    bits |= 1u << sac_part_of(&mask, end - 1);
                    if ((sac_parts_of(&mask, begin, end) & there) != bits)
                        fail_msg("%d parts of %d: queries [%d, %d) have bits %#x, not %#x", parts, part,
                                 begin, end, sac_parts_of(&mask, begin, end), bits);
                }
            }
        }
}

/* Lists may serve every batch and head, or each its own. */
static void lists_are_found_by_batch_and_head(void **state) {
    (void)state;
    enum { BATCH = 2, HEADS = 3 };
    int64_t offsets[BATCH * HEADS + 1];
    int32_t entries[BATCH * HEADS];
    for (int32_t list = 0; list < BATCH * HEADS; list++) {
        offsets[list] = list;
        entries[list] = SAC_ENTRY(list, SAC_FULL); /* each list its own block */
    }
    offsets[BATCH * HEADS] = BATCH * HEADS;
    sac_attention_args args = {.band = {.window_left = -1, .window_right = -1},
                               .blocks = {.by_query = {offsets, entries, NULL},
                                          .q_block = 4,
                                          .kv_block = 4,
                                          .heads_per_list = 1,
                                          .num_q_blocks = 1,
                                          .num_kv_blocks = BATCH * HEADS}};
    sac_band band = sac_band_make(&args.band, 4, 4 * BATCH * HEADS);
    for (int broadcast = 0; broadcast < 4; broadcast++) {
        args.blocks.batch = broadcast & 1 ? 1 : BATCH;
        args.blocks.num_heads = broadcast & 2 ? 1 : HEADS;
        for (int32_t b = 0; b < BATCH; b++)
            for (int32_t h = 0; h < HEADS; h++) {
                sac_walk walk = sac_walk_keys(&args, &band, b, h, (sac_range){0, 4}, 16);
                sac_tile tile = {0};
                assert_true(sac_walk_next(&walk, &tile));
                int32_t list = (broadcast & 1 ? 0 : b) * args.blocks.num_heads + (broadcast & 2 ? 0 : h);
                assert_int_equal(tile.begin, 4 * list);
                assert_int_equal(tile.end, 4 * list + 4);
                assert_false(sac_walk_next(&walk, &tile));
            }
    }
    args.blocks.batch = BATCH;
    args.blocks.num_heads = HEADS;
    args.blocks.heads_per_list = 3; /* of 3 * HEADS query heads */
    for (int32_t h = 0; h < 3 * HEADS; h++) {
        sac_walk walk = sac_walk_keys(&args, &band, 1, h, (sac_range){0, 4}, 16);
        sac_tile tile = {0};
        assert_true(sac_walk_next(&walk, &tile));
        assert_int_equal(tile.begin, 4 * (HEADS + h / 3));
    }
}

/* Neighbouring blocks of one kind are one run, cut only by the step. */
static void neighbours_of_one_kind_share_a_tile(void **state) {
    (void)state;
    world w;
    make_band(&w, &no_band, 4, 12);
    fill_kinds(&w, SAC_FULL);
    list_blocks(&w, 4, 2, NO_PERIOD, NO_PARTS);
    sac_band band = sac_band_make(&no_band, 4, 12);
    sac_walk walk = sac_walk_keys(&w.args, &band, 0, 0, (sac_range){0, 4}, 8);
    sac_tile tile = {0};
    assert_true(sac_walk_next(&walk, &tile));
    assert_int_equal(tile.end - tile.begin, 8);
    assert_true(sac_walk_next(&walk, &tile));
    assert_int_equal(tile.end - tile.begin, 4);
    assert_false(sac_walk_next(&walk, &tile));
}

/* Which of a query's blocks adjoin must not depend on what other parts of its list visit. */
static void blocks_of_a_shared_list_are_tiles_of_their_own(void **state) {
    (void)state;
    world w;
    make_band(&w, &no_band, 4, 12);
    fill_kinds(&w, SAC_FULL);
    list_blocks(&w, 4, 2, NO_PERIOD, 1);
    sac_band band = sac_band_make(&no_band, 4, 12);
    sac_walk walk = sac_walk_keys(&w.args, &band, 0, 0, (sac_range){0, 4}, 8);
    sac_tile tile = {0};
    for (int32_t block = 0; block < 6; block++) {
        assert_true(sac_walk_next(&walk, &tile));
        assert_int_equal(tile.begin, 2 * block);
        assert_int_equal(tile.end, 2 * block + 2);
    }
    assert_false(sac_walk_next(&walk, &tile));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_first_tile_is_short_where_that_is_asked),
        cmocka_unit_test(every_band_is_walked_exactly),
        cmocka_unit_test(the_way_back_meets_the_same_tiles_the_last_one_first),
        cmocka_unit_test(keys_come_to_a_query_tile_one_after_the_other),
        cmocka_unit_test(every_block_size_is_walked_exactly_whatever_the_tile),
        cmocka_unit_test(every_small_length_is_walked_exactly_in_blocks),
        cmocka_unit_test(blocks_beyond_the_used_length_are_not_walked),
        cmocka_unit_test(diagonal_blocks_hold_one_key_a_row),
        cmocka_unit_test(bits_say_which_queries_a_tile_is_for),
        cmocka_unit_test(bits_of_a_range_are_those_of_its_queries),
        cmocka_unit_test(lists_are_found_by_batch_and_head),
        cmocka_unit_test(neighbours_of_one_kind_share_a_tile),
        cmocka_unit_test(blocks_of_a_shared_list_are_tiles_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
