/* test_block_mask_eagle3.c - the training mask of Eagle3: its rule, its block structure, its fallback. */
#include <stdio.h>

#include "mask/block_mask.h"
#include "support/cmocka_all.h"
#include "support/mask_check.h"
#include "support/test_context.h"

typedef struct eagle3 {
    int64_t q_len;
    const int32_t *lengths; /* NULL: the plain form */
} eagle3;

/* Both forms as their authors state them. */
static bool eagle3_visible(const void *rule, int32_t b, int32_t h, int64_t q, int64_t kv) {
    const eagle3 *e = rule;
    (void)h;
    bool first = kv < e->q_len && q >= kv, later = kv >= e->q_len && (kv - q) % e->q_len == 0;
    if (!e->lengths) return first || later;
    return (first && kv < e->lengths[b] && q < e->lengths[b]) || (later && kv % e->q_len < e->lengths[b]);
}

/* What the mask says of its key blocks, beside the kinds of all blocks. */
static void assert_knows_where_diagonals_are_alone(const saccade_block_mask *mask) {
    int32_t expected = mask->period ? 0 : mask->num_kv_blocks;
    for (int32_t b = 0; b < mask->list_batch; b++)
        for (int32_t row = 0; row < mask->num_q_blocks; row++)
            for (int32_t column = expected; column < mask->num_kv_blocks; column++) {
                const int32_t kind = saccade_block_mask_kind(mask, b, 0, row, column);
                if (kind == SACCADE_FULL || kind == SACCADE_PARTIAL) expected = column + 1;
            }
    assert_int_equal(mask->diagonals_from, expected);
}

static void try_eagle3(const saccade_mask_shape *shape, const int32_t *lengths, bool analytic) {
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    eagle3 rule = {shape->q_len, lengths};
    must(saccade_block_mask_eagle3(ctx, &mask, shape, lengths));
    assert_mask_is(ctx, mask,
                   &(expected_mask){lengths ? "eagle3 with lengths" : "eagle3", eagle3_visible, &rule});
    saccade_block_mask_get_info(mask, &info);
    bool has_later = shape->kv_len > shape->q_len, pairs = shape->q_block == 1 && shape->kv_block == 1;
    if (!lengths && analytic && has_later && !pairs) assert_int_equal(info.period, shape->q_len);
    if (!analytic) assert_int_equal(info.diagonal, 0);
    assert_knows_where_diagonals_are_alone(mask);
    saccade_block_mask_destroy(mask);
}

static const int32_t no_rows_to_all[] = {0, 1, 15, 16, 17, 40, 48, 100};

static void regular_shapes_follow_the_rule(void **state) {
    (void)state;
    static const int32_t blocks[][2] = {{16, 16}, {16, 8}, {48, 16}, {24, 1}, {1, 1}, {8, 4}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        for (int32_t rounds = 1; rounds <= 4; rounds++) {
            saccade_mask_shape shape = {
                .q_len = 48, .kv_len = 48 * rounds, .q_block = blocks[i][0], .kv_block = blocks[i][1]};
            try_eagle3(&shape, NULL, true);
            shape.batch = 8;
            try_eagle3(&shape, no_rows_to_all, true);
        }
}

static void irregular_shapes_follow_the_rule_too(void **state) {
    (void)state;
    static const saccade_mask_shape shapes[] = {
        {.q_len = 48, .kv_len = 96, .q_block = 16, .kv_block = 32}, /* kv_block does not divide q_block */
        {.q_len = 50, .kv_len = 100, .q_block = 16, .kv_block = 4}, /* q_block does not divide q_len */
        {.q_len = 48, .kv_len = 100, .q_block = 16, .kv_block = 4}, /* no whole rounds */
        {.q_len = 48, .kv_len = 144, .q_block = 64, .kv_block = 64}, /* one query block, longer than the queries */
        {.q_len = 7, .kv_len = 40, .q_block = 16, .kv_block = 16}, /* several diagonals a block */
        {.q_len = 0, .kv_len = 40, .q_block = 16, .kv_block = 16},
        {.q_len = 16, .q_block = 8, .kv_block = 8},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        saccade_mask_shape shape = shapes[i];
        try_eagle3(&shape, NULL, false);
        shape.batch = 8;
        try_eagle3(&shape, no_rows_to_all, false);
    }
}

/* r = q_block / kv_block key blocks a query block, n = q_len / kv_block a round. */
static int32_t stated_kind(int32_t i, int32_t j, int32_t r, int32_t n) {
    if (j < i * r) return SACCADE_FULL;
    if (j < n) return j < (i + 1) * r ? SACCADE_PARTIAL : 0;
    return j % n / r == i ? SACCADE_DIAGONAL : 0;
}

static void blocks_lie_where_the_formula_says(void **state) {
    (void)state;
    static const saccade_mask_shape shapes[] = {
        {.q_len = 1024, .kv_len = 5 * 1024, .q_block = 128, .kv_block = 128},
        {.q_len = 1024, .kv_len = 3 * 1024, .q_block = 256, .kv_block = 64},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        saccade_block_mask *mask;
        must(saccade_block_mask_eagle3(ctx, &mask, &shapes[s], NULL));
        int32_t r = shapes[s].q_block / shapes[s].kv_block, n = shapes[s].q_len / shapes[s].kv_block;
        for (int32_t i = 0; i < shapes[s].q_len / shapes[s].q_block; i++)
            for (int32_t j = 0; j < shapes[s].kv_len / shapes[s].kv_block; j++)
                if (saccade_block_mask_kind(mask, 0, 0, i, j) != stated_kind(i, j, r, n))
                    fail_msg("%s: block (%d, %d) is of kind %d, wanted %d", shape_text(&shapes[s]), i, j,
                             saccade_block_mask_kind(mask, 0, 0, i, j), stated_kind(i, j, r, n));
        assert_lists_are_consistent(mask);
        saccade_block_mask_destroy(mask);
    }
}

static void training_size_lists_its_blocks_only(void **state) {
    (void)state;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    saccade_mask_shape shape = {.q_len = 16384, .kv_len = 5 * 16384, .batch = 2, .num_heads = 32};
    must(saccade_block_mask_eagle3(ctx, &mask, &shape, NULL));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.full, 128 * 127 / 2);
    assert_int_equal(info.partial, 128);
    assert_int_equal(info.diagonal, 4 * 128);
    assert_int_equal(info.period, 16384);
    assert_true(info.bytes < 100000);
    saccade_block_mask_destroy(mask);
}

static void negative_length_is_refused(void **state) {
    (void)state;
    saccade_block_mask *mask = NULL;
    saccade_mask_shape shape = {.q_len = 16, .kv_len = 32, .q_block = 8, .kv_block = 8, .batch = 2};
    assert_refused(saccade_block_mask_eagle3(ctx, &mask, &shape, (int32_t[]){3, -7}),
                   SACCADE_INVALID_ARGUMENT, "lengths[1]: -7");
    assert_null(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regular_shapes_follow_the_rule),
        cmocka_unit_test(irregular_shapes_follow_the_rule_too),
        cmocka_unit_test(blocks_lie_where_the_formula_says),
        cmocka_unit_test(training_size_lists_its_blocks_only),
        cmocka_unit_test(negative_length_is_refused),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
