/* test_block_mask.c - the analytic builders list what their rule says, on shapes that are no multiple of anything. */
#include <stdio.h>
#include <stdlib.h>

#include "mask/block_mask.h"
#include "support/cmocka_all.h"
#include "support/mask_check.h"
#include "support/test_context.h"

/* Lengths and blocks that every builder is tried with. */
static const int32_t lengths[] = {0, 1, 7, 33, 70, 96};
static const int32_t blocks[][2] = {{16, 16}, {32, 8}, {8, 24}, {1, 16}, {16, 1}, {5, 7}, {1, 1}, {128, 64}};

typedef void (*shape_fn)(const saccade_mask_shape *shape);

static void for_each_shape(shape_fn run) {
    for (size_t q = 0; q < sizeof lengths / sizeof *lengths; q++)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
            for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
                run(&(saccade_mask_shape){.q_len = lengths[q],
                                          .kv_len = lengths[k],
                                          .q_block = blocks[i][0],
                                          .kv_block = blocks[i][1]});
}

static void check_and_destroy(saccade_block_mask *mask, const char *name, visible_fn visible,
                              const void *rule) {
    assert_mask_is(ctx, mask, &(expected_mask){name, visible, rule});
    saccade_block_mask_destroy(mask);
}

/* ---- causal and windows ---- */

typedef struct band {
    int64_t left, right, shift; /* -1: unbounded */
} band;

static bool in_band(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const band *w = rule;
    (void)b, (void)h;
    return (w->left < 0 || j >= i + w->shift - w->left) && (w->right < 0 || j <= i + w->shift + w->right);
}

static void try_causal(const saccade_mask_shape *shape) {
    for (int bottom_right = 0; bottom_right < 2; bottom_right++) {
        saccade_block_mask *mask;
        must(saccade_block_mask_causal(ctx, &mask, shape, bottom_right));
        band rule = {-1, 0, bottom_right ? shape->kv_len - shape->q_len : 0};
        check_and_destroy(mask, bottom_right ? "causal bottom_right" : "causal top_left", in_band, &rule);
    }
}

static void causal_lists_the_triangle(void **state) {
    (void)state;
    for_each_shape(try_causal);
}

static void try_windows(const saccade_mask_shape *shape) {
    static const int32_t windows[][2] = {{0, 0},  {3, 0},   {0, 5},   {20, 11},
                                         {-1, 4}, {17, -1}, {-1, -1}, {500, 500}};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
        for (int bottom_right = 0; bottom_right < 2; bottom_right++) {
            saccade_block_mask *mask;
            must(saccade_block_mask_window(ctx, &mask, shape, windows[i][0], windows[i][1], bottom_right));
            band rule = {windows[i][0], windows[i][1], bottom_right ? shape->kv_len - shape->q_len : 0};
            char name[64];
            snprintf(name, sizeof name, "window %d,%d%s", windows[i][0], windows[i][1],
                     bottom_right ? " br" : "");
            check_and_destroy(mask, name, in_band, &rule);
        }
}

static void window_lists_the_band(void **state) {
    (void)state;
    for_each_shape(try_windows);
}

/* ---- documents, prefix-LM, block-diagonal ---- */

static bool same_document(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const int32_t *document = rule;
    (void)b, (void)h;
    return document[i] == document[j];
}

static void documents_see_themselves_only(void **state) {
    (void)state;
    static const int32_t packs[][6] = {{70},    {1, 69}, {16, 0, 16, 0, 38}, {3, 3, 3, 3, 3, 55},
                                       {0, 70}, {69, 1}};
    for (size_t p = 0; p < sizeof packs / sizeof *packs; p++)
        for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
            int32_t document[70], t = 0;
            for (int32_t d = 0; d < 6; d++)
                for (int32_t n = 0; n < packs[p][d]; n++) document[t++] = d;
            saccade_block_mask *mask;
            saccade_mask_shape shape = {
                .q_len = 70, .kv_len = 70, .q_block = blocks[i][0], .kv_block = blocks[i][1], .batch = 2};
            must(saccade_block_mask_documents(ctx, &mask, &shape, packs[p], 6));
            check_and_destroy(mask, "documents", same_document, document);
        }
}

static bool in_prefix_or_causal(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const int32_t *prefix = rule;
    (void)h;
    return j < prefix[b] || i >= j;
}

static void try_prefix(const saccade_mask_shape *shape) {
    static const int32_t prefix[] = {0, 5, 40, 1000};
    saccade_mask_shape batched = *shape;
    for (int32_t batch = 1; batch <= 4; batch += 3) {
        batched.batch = batch;
        for (int first = 0; first + batch <= 4; first++) {
            saccade_block_mask *mask;
            must(saccade_block_mask_prefix_lm(ctx, &mask, &batched, prefix + first));
            check_and_destroy(mask, "prefix_lm", in_prefix_or_causal, prefix + first);
        }
    }
}

static void prefix_is_visible_to_every_query_of_its_batch_entry(void **state) {
    (void)state;
    for_each_shape(try_prefix);
}

static bool same_group(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const int32_t *size = rule;
    (void)b, (void)h;
    return i / size[0] == j / size[1];
}

static void try_groups(const saccade_mask_shape *shape) {
    static const int32_t sizes[][2] = {{16, 16}, {1, 1},    {10, 3},
                                       {3, 10},  {1000, 7}, {SAC_MAX_SEQLEN, SAC_MAX_SEQLEN}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        saccade_block_mask *mask;
        must(saccade_block_mask_block_diagonal(ctx, &mask, shape, sizes[i][0], sizes[i][1]));
        check_and_destroy(mask, "block_diagonal", same_group, sizes[i]);
    }
}

static void block_diagonal_pairs_groups(void **state) {
    (void)state;
    for_each_shape(try_groups);
}

/* ---- dilated ---- */

static bool on_lattice(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const int32_t *reach_step = rule;
    int64_t distance = llabs(i - j);
    (void)b, (void)h;
    return distance <= (int64_t)reach_step[0] * reach_step[1] && distance % reach_step[1] == 0;
}

static void try_dilated(const saccade_mask_shape *shape) {
    static const int32_t rules[][2] = {{0, 1},  {4, 1},           {0, 3},  {2, 3},        {3, 17},
                                       {1, 40}, {100000, 100000}, {9, 33}, {2, INT32_MAX}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        saccade_block_mask *mask;
        must(saccade_block_mask_dilated(ctx, &mask, shape, rules[i][0], rules[i][1]));
        check_and_destroy(mask, "dilated", on_lattice, rules[i]);
    }
}

static void dilated_lists_the_blocks_its_diagonals_cross(void **state) {
    (void)state;
    for_each_shape(try_dilated);
}

static void far_apart_diagonals_make_diagonal_blocks(void **state) {
    (void)state;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    saccade_mask_shape shape = {.q_len = 100, .kv_len = 100, .q_block = 16, .kv_block = 8};
    must(saccade_block_mask_dilated(ctx, &mask, &shape, 3, 23)); /* 16 + 8 - 1 */
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.period, 23);
    assert_int_equal(info.partial, 0);
    assert_true(info.diagonal > 0);
    saccade_block_mask_destroy(mask);
    must(saccade_block_mask_dilated(ctx, &mask, &shape, 3, 22));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.period, 0);
    assert_int_equal(info.diagonal, 0);
    saccade_block_mask_destroy(mask);
    must(saccade_block_mask_dilated(ctx, &mask, &shape, 3, INT32_MAX));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.period, SAC_MAX_SEQLEN); /* so that walks add positions to it without overflow */
    saccade_block_mask_destroy(mask);
}

/* ---- properties of size ---- */

static void window_over_a_million_tokens_stays_small(void **state) {
    (void)state;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    saccade_mask_shape shape = {.q_len = 1 << 20, .kv_len = 1 << 20, .batch = 4, .num_heads = 32};
    must(saccade_block_mask_window(ctx, &mask, &shape, 4095, 0, false));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.num_q_blocks, 8192);
    assert_int_equal(info.full, 8192 * 31 - 31 * 32 / 2);
    assert_int_equal(info.partial, 2 * 8192 - 32);
    assert_true(info.bytes < 4 << 20); /* one list serves all batches and heads */
    assert_lists_are_consistent(mask);
    saccade_block_mask_destroy(mask);
}

/* The longest lengths there are: offsets and positions pass 2^31 when blocks are multiplied out carelessly. */
static void longest_lengths_fit_their_indices(void **state) {
    (void)state;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    saccade_mask_shape shape = {
        .q_len = 3, .kv_len = SAC_MAX_SEQLEN, .q_block = SAC_MAX_SEQLEN, .kv_block = SAC_MAX_SEQLEN / 2 + 1};
    must(saccade_block_mask_causal(ctx, &mask, &shape, true));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.full, 1);
    assert_int_equal(info.partial, 1);
    saccade_block_mask_destroy(mask);
    shape = (saccade_mask_shape){.q_len = 1, .kv_len = SAC_MAX_SEQLEN, .q_block = 1, .kv_block = 64};
    must(saccade_block_mask_window(ctx, &mask, &shape, 128, 0, true));
    int32_t last = SAC_MAX_SEQLEN / 64 - 1;
    assert_int_equal(saccade_block_mask_kind(mask, 0, 0, 0, last), SACCADE_FULL);
    assert_int_equal(saccade_block_mask_kind(mask, 0, 0, 0, last - 2), SACCADE_PARTIAL);
    assert_int_equal(saccade_block_mask_kind(mask, 0, 0, 0, last - 3), 0);
    saccade_block_mask_destroy(mask);
}

/* ---- refusals ---- */

/* Of blocks of 128, 2^29 tokens have 2^22. */
static void masks_beyond_memory_are_refused_before_any_is_touched(void **state) {
    (void)state;
    saccade_block_mask *thin, *untouched = (saccade_block_mask *)&ctx, *mask = untouched;
    saccade_mask_shape shape = {.q_len = SAC_MAX_SEQLEN, .kv_len = SAC_MAX_SEQLEN};
    const saccade_status full = SACCADE_OUT_OF_MEMORY;
    assert_refused(saccade_block_mask_causal(ctx, &mask, &shape, false), full,
                   "8796095119360 listed blocks need 65536.0 GiB");
    assert_refused(saccade_block_mask_dilated(ctx, &mask, &shape, SAC_MAX_SEQLEN, 2), full,
                   "17592186044416 listed blocks");
    must(saccade_block_mask_window(ctx, &thin, &shape, 0, 0, false));
    assert_refused(saccade_block_mask_not(ctx, &mask, thin), full, "17592186044416 listed blocks");
    assert_ptr_equal(mask, untouched);
    saccade_block_mask_destroy(thin);
}

static void bad_arguments_are_named(void **state) {
    (void)state;
    saccade_block_mask *untouched = (saccade_block_mask *)&ctx, *mask = untouched;
    saccade_mask_shape shape = {.q_len = 10, .kv_len = 12};
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    assert_refused(saccade_block_mask_causal(NULL, &mask, &shape, false), bad, "ctx: is NULL");
    assert_refused(saccade_block_mask_causal(ctx, &mask, NULL, false), bad, "shape: is NULL");
    saccade_mask_shape huge = {SAC_MAX_SEQLEN, SAC_MAX_SEQLEN, SAC_MAX_SEQLEN, SAC_MAX_SEQLEN, 1, 1};
    assert_refused(saccade_block_mask_causal(ctx, &mask, &huge, false), bad, "beyond counting");
    assert_refused(saccade_block_mask_causal(ctx, &mask, &(saccade_mask_shape){.q_len = -1}, false), bad,
                   "shape.q_len: -1");
    assert_refused(
        saccade_block_mask_causal(ctx, &mask, &(saccade_mask_shape){.kv_len = SAC_MAX_SEQLEN + 1}, false),
        bad, "shape.kv_len: 536870913 is above 536870912");
    assert_refused(saccade_block_mask_causal(ctx, &mask, &(saccade_mask_shape){.kv_block = -4}, false), bad,
                   "shape.kv_block: -4");
    assert_refused(saccade_block_mask_causal(ctx, &mask, &(saccade_mask_shape){.batch = -1}, false), bad,
                   "shape.batch");
    assert_refused(saccade_block_mask_window(ctx, &mask, &shape, -2, 0, false), bad, "left: -2");
    assert_refused(saccade_block_mask_window(ctx, &mask, &shape, 0, -3, false), bad, "right: -3");
    assert_refused(saccade_block_mask_dilated(ctx, &mask, &shape, -1, 2), bad, "reach: -1");
    assert_refused(saccade_block_mask_dilated(ctx, &mask, &shape, 1, 0), bad, "step: 0");
    assert_refused(saccade_block_mask_block_diagonal(ctx, &mask, &shape, 0, 2), bad, "q_size: 0");
    assert_refused(saccade_block_mask_block_diagonal(ctx, &mask, &shape, 2, 0), bad, "kv_size: 0");
    assert_refused(saccade_block_mask_prefix_lm(ctx, &mask, &shape, NULL), bad, "prefix: is NULL");
    assert_refused(saccade_block_mask_prefix_lm(ctx, &mask, &shape, (int32_t[]){-6}), bad, "prefix[0]: -6");
    assert_refused(saccade_block_mask_documents(ctx, &mask, &shape, (int32_t[]){10}, 1), bad,
                   "q_len 10 and kv_len 12");
    shape.kv_len = 10;
    assert_refused(saccade_block_mask_documents(ctx, &mask, &shape, (int32_t[]){4, 5}, 2), bad, "sum to 9");
    assert_refused(saccade_block_mask_documents(ctx, &mask, &shape, (int32_t[]){11, -1}, 2), bad,
                   "lengths[1]: -1");
    assert_refused(saccade_block_mask_documents(ctx, &mask, &shape, NULL, 2), bad, "lengths: is NULL");
    assert_ptr_equal(mask, untouched);
}

static void call_of_other_sizes_is_refused(void **state) {
    (void)state;
    saccade_block_mask *mask;
    saccade_mask_shape shape = {.q_len = 10, .kv_len = 12, .batch = 3, .num_heads = 4};
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    must(saccade_block_mask_causal(ctx, &mask, &shape, false));
    must(sac_block_mask_check(mask, mask->device, 3, 4, 10, 12));
    assert_refused(sac_block_mask_check(mask, mask->device, 3, 4, 10, 13), bad, "10 queries and 12 keys");
    assert_refused(sac_block_mask_check(mask, mask->device, 3, 4, 12, 12), bad, "10 queries and 12 keys");
    assert_refused(sac_block_mask_check(mask, mask->device, 2, 4, 10, 12), bad, "batch 3");
    assert_refused(sac_block_mask_check(mask, mask->device, 3, 8, 10, 12), bad, "4 query heads");
    bool visible;
    assert_refused(saccade_block_mask_visible(ctx, mask, 3, 0, 0, 0, &visible), bad, "(3, 0)");
    assert_int_equal(saccade_block_mask_kind(mask, 0, 4, 0, 0), 0);
    saccade_block_mask_destroy(mask);
    shape.batch = shape.num_heads = 1;
    must(saccade_block_mask_causal(ctx, &mask, &shape, false));
    must(sac_block_mask_check(mask, mask->device, 7, 9, 10, 12));
    saccade_block_mask_destroy(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causal_lists_the_triangle),
        cmocka_unit_test(window_lists_the_band),
        cmocka_unit_test(documents_see_themselves_only),
        cmocka_unit_test(prefix_is_visible_to_every_query_of_its_batch_entry),
        cmocka_unit_test(block_diagonal_pairs_groups),
        cmocka_unit_test(dilated_lists_the_blocks_its_diagonals_cross),
        cmocka_unit_test(far_apart_diagonals_make_diagonal_blocks),
        cmocka_unit_test(window_over_a_million_tokens_stays_small),
        cmocka_unit_test(longest_lengths_fit_their_indices),
        cmocka_unit_test(masks_beyond_memory_are_refused_before_any_is_touched),
        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(call_of_other_sizes_is_refused),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
