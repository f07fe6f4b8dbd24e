/* test_block_mask_algebra.c - and, or, not list exactly what the combined rule says. */
#include <stdio.h>
#include <stdlib.h>

#include "mask/block_mask.h"
#include "support/cmocka_all.h"
#include "support/mask_check.h"
#include "support/test_context.h"

enum { N = 48, ROUNDS = 2, KV = ROUNDS * N };

/* ---- the operands: one mask of each origin, and its rule ---- */

static bool causal_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h;
    return j <= i;
}
static bool window_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h;
    return j >= i - 10 && j <= i + 21;
}
static bool eagle3_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h;
    return j < N ? j <= i : (j - i) % N == 0;
}
static bool dilated_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h;
    return llabs(i - j) % 40 == 0;
}
static bool prefix_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)h;
    return j < (b ? 70 : 20) || j <= i;
}
static bool chosen_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b;
    return j / 16 == (h ? 2 : i / 16) || j / 16 == 5;
}
static bool dense_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h;
    return (i * 7 + j * 13) % 29 < 3 || (i < 16 && j < 40);
}
static bool empty_rule(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h, (void)i, (void)j;
    return false;
}

/* Of all shapes that broadcast together: batch 1 or 2, heads 1 or 2, coarse and fine blocks. */
static saccade_mask_shape shape_of(int32_t batch, int32_t heads, int32_t q_block, int32_t kv_block) {
    return (saccade_mask_shape){batch, heads, N, KV, q_block, kv_block};
}

static saccade_status make_causal(saccade_block_mask **mask) {
    saccade_mask_shape shape = shape_of(1, 1, 16, 16);
    return saccade_block_mask_causal(ctx, mask, &shape, false);
}
static saccade_status make_fine_window(saccade_block_mask **mask) {
    saccade_mask_shape shape = shape_of(1, 1, 4, 8);
    return saccade_block_mask_window(ctx, mask, &shape, 10, 21, false);
}
static saccade_status make_eagle3(saccade_block_mask **mask) {
    saccade_mask_shape shape = shape_of(1, 1, 16, 8);
    return saccade_block_mask_eagle3(ctx, mask, &shape, NULL);
}
static saccade_status make_coarse_eagle3(saccade_block_mask **mask) {
    saccade_mask_shape shape = shape_of(1, 2, 16, 16);
    return saccade_block_mask_eagle3(ctx, mask, &shape, NULL);
}
static saccade_status make_dilated(saccade_block_mask **mask) {
    saccade_mask_shape shape = shape_of(1, 1, 16, 16);
    return saccade_block_mask_dilated(ctx, mask, &shape, 1000, 40);
}
static saccade_status make_prefix(saccade_block_mask **mask) {
    saccade_mask_shape shape = shape_of(2, 1, 32, 32);
    return saccade_block_mask_prefix_lm(ctx, mask, &shape, (int32_t[]){20, 70});
}
static saccade_status make_chosen(saccade_block_mask **mask) {
    static const int32_t chosen[2][3][2] = {{{0, 5}, {1, 5}, {2, 5}}, {{2, 5}, {2, 5}, {2, 5}}};
    saccade_mask_shape shape = shape_of(1, 2, 16, 16);
    return saccade_block_mask_from_indices(ctx, mask, &shape, SACCADE_TENSOR(chosen, SACCADE_I32, 1, 2, 3, 2),
                                           SACCADE_FULL);
}
static saccade_status make_dense(saccade_block_mask **mask) {
    static uint8_t data[N][KV];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < KV; j++) data[i][j] = dense_rule(NULL, 0, 0, i, j);
    return saccade_block_mask_from_dense(ctx, mask, SACCADE_TENSOR(data, SACCADE_U8, 1, 1, N, KV), 16, 16);
}
static saccade_status make_empty(saccade_block_mask **mask) {
    static const int32_t none[3] = {-1, -1, -1};
    saccade_mask_shape shape = shape_of(1, 1, 16, 16);
    return saccade_block_mask_from_indices(ctx, mask, &shape, SACCADE_TENSOR(none, SACCADE_I32, 1, 1, 3, 1),
                                           SACCADE_FULL);
}

static const struct {
    const char *name;
    saccade_status (*make)(saccade_block_mask **mask);
    visible_fn visible;
} operands[] = {
    {"causal", make_causal, causal_rule},    {"fine window", make_fine_window, window_rule},
    {"eagle3", make_eagle3, eagle3_rule},    {"coarse eagle3", make_coarse_eagle3, eagle3_rule},
    {"dilated", make_dilated, dilated_rule}, {"prefix", make_prefix, prefix_rule},
    {"chosen", make_chosen, chosen_rule},    {"dense", make_dense, dense_rule},
    {"empty", make_empty, empty_rule},
};
enum { NUM_OPERANDS = sizeof operands / sizeof *operands };

/* ---- rules of combinations ---- */

typedef enum { AND, OR, NOT } operator;

typedef struct pair_rule {
    operator op;
    expected_mask a, b;
} pair_rule;

static bool combined(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const pair_rule *pair = rule;
    bool x = pair->a.visible(pair->a.rule, b, h, i, j);
    if (pair->op == NOT) return !x;
    bool y = pair->b.visible(pair->b.rule, b, h, i, j);
    return pair->op == AND ? x && y : x || y;
}

static saccade_status combine(saccade_block_mask **mask, operator op, const saccade_block_mask *a,
                              const saccade_block_mask *b) {
    return op == AND  ? saccade_block_mask_and(ctx, mask, a, b)
           : op == OR ? saccade_block_mask_or(ctx, mask, a, b)
                      : saccade_block_mask_not(ctx, mask, a);
}

static void every_operand_is_its_rule(void **state) {
    (void)state;
    for (int i = 0; i < NUM_OPERANDS; i++) {
        saccade_block_mask *mask;
        must(operands[i].make(&mask));
        assert_mask_is(ctx, mask, &(expected_mask){operands[i].name, operands[i].visible, NULL});
        saccade_block_mask_destroy(mask);
    }
}

static void try_pair(int i, int j, operator op) {
    saccade_block_mask *a, *b, *mask;
    must(operands[i].make(&a));
    must(operands[j].make(&b));
    must(combine(&mask, op, a, b));
    saccade_block_mask_destroy(a); /* the result stands alone */
    saccade_block_mask_destroy(b);
    char name[64];
    snprintf(name, sizeof name, "%s %s %s", operands[i].name,
             op == AND  ? "and"
             : op == OR ? "or"
                        : "(not), beside",
             operands[j].name);
    pair_rule rule = {op, {NULL, operands[i].visible, NULL}, {NULL, operands[j].visible, NULL}};
    assert_mask_is(ctx, mask, &(expected_mask){name, combined, &rule});
    saccade_block_mask_destroy(mask);
}

static void and_of_every_pair_is_the_conjunction(void **state) {
    (void)state;
    for (int i = 0; i < NUM_OPERANDS; i++)
        for (int j = 0; j < NUM_OPERANDS; j++) try_pair(i, j, AND);
}

static void or_of_every_pair_is_the_disjunction(void **state) {
    (void)state;
    for (int i = 0; i < NUM_OPERANDS; i++)
        for (int j = 0; j < NUM_OPERANDS; j++) try_pair(i, j, OR);
}

static void not_is_the_complement_and_undoes_itself(void **state) {
    (void)state;
    for (int i = 0; i < NUM_OPERANDS; i++) {
        try_pair(i, i, NOT);
        saccade_block_mask *mask, *inverse, *back;
        must(operands[i].make(&mask));
        must(saccade_block_mask_not(ctx, &inverse, mask));
        must(saccade_block_mask_not(ctx, &back, inverse));
        assert_mask_is(ctx, back, &(expected_mask){operands[i].name, operands[i].visible, NULL});
        saccade_block_mask_destroy(mask);
        saccade_block_mask_destroy(inverse);
        saccade_block_mask_destroy(back);
    }
}

/* A combination is an operand like any other: not (a and b) = (not a) or (not b), block by block. */
static void de_morgan_holds_block_by_block(void **state) {
    (void)state;
    for (int i = 0; i < NUM_OPERANDS; i++)
        for (int j = 0; j < i; j++) {
            saccade_block_mask *a, *b, *both, *left, *not_a, *not_b, *right;
            must(operands[i].make(&a));
            must(operands[j].make(&b));
            must(saccade_block_mask_and(ctx, &both, a, b));
            must(saccade_block_mask_not(ctx, &left, both));
            must(saccade_block_mask_not(ctx, &not_a, a));
            must(saccade_block_mask_not(ctx, &not_b, b));
            must(saccade_block_mask_or(ctx, &right, not_a, not_b));
            assert_same_blocks(left, right);
            saccade_block_mask *all[] = {a, b, both, left, not_a, not_b, right};
            for (size_t n = 0; n < sizeof all / sizeof *all; n++) saccade_block_mask_destroy(all[n]);
        }
}

static void diagonals_survive_where_they_can(void **state) {
    (void)state;
    saccade_block_mask *eagle3, *causal, *above, *dilated, *mask;
    saccade_block_mask_info info;
    must(make_eagle3(&eagle3));
    must(make_causal(&causal));
    must(make_dilated(&dilated));
    must(saccade_block_mask_not(ctx, &above, causal));
    must(saccade_block_mask_and(ctx, &mask, above, eagle3)); /* what is left is the second round */
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.period, N);
    assert_int_equal(info.diagonal, N / 8);
    assert_int_equal(info.partial + info.full, 0);
    saccade_block_mask_destroy(mask);
    must(saccade_block_mask_or(ctx, &mask, eagle3, eagle3));
    assert_same_blocks(mask, eagle3);
    saccade_block_mask_destroy(mask);
    must(saccade_block_mask_and(ctx, &mask, eagle3, dilated)); /* periods 48 and 40: eagle3's is kept, */
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.diagonal, 0); /* but its diagonals hold nothing of the other's */
    assert_true(info.partial > 0);
    saccade_block_mask_destroy(mask);
    must(saccade_block_mask_or(ctx, &mask, dilated, eagle3));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.period, 40);
    assert_true(info.partial > 0);
    saccade_block_mask_destroy(mask);
    saccade_block_mask_destroy(eagle3);
    saccade_block_mask_destroy(causal);
    saccade_block_mask_destroy(above);
    saccade_block_mask_destroy(dilated);
}

static void unequal_shapes_are_refused(void **state) {
    (void)state;
    saccade_block_mask *a, *b, *mask = NULL;
    static const struct {
        saccade_mask_shape shape;
        const char *words;
    } cases[] = {{{1, 1, N, KV + 1, 16, 16}, "48 x 96 and 48 x 97"},
                 {{1, 1, N, KV, 24, 16}, "q_block is 16 and 24"},
                 {{1, 1, N, KV, 16, 12}, "kv_block is 16 and 12"},
                 {{3, 1, N, KV, 16, 16}, "batch is 2 and 3"},
                 {{1, 5, N, KV, 16, 16}, "num_heads is 2 and 5"}};
    saccade_mask_shape shape = shape_of(2, 2, 16, 16);
    must(saccade_block_mask_causal(ctx, &a, &shape, false));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        must(saccade_block_mask_causal(ctx, &b, &cases[i].shape, false));
        assert_refused(saccade_block_mask_and(ctx, &mask, a, b), SACCADE_INVALID_ARGUMENT, cases[i].words);
        saccade_block_mask_destroy(b);
    }
    assert_refused(saccade_block_mask_or(ctx, &mask, a, NULL), SACCADE_INVALID_ARGUMENT, "b: is NULL");
    assert_refused(saccade_block_mask_not(ctx, &mask, NULL), SACCADE_INVALID_ARGUMENT, "a: is NULL");
    saccade_block_mask_destroy(a);
    assert_null(mask);
}

static void mask_decided_at_the_call_does_not_combine(void **state) {
    (void)state;
    static const int32_t first[3] = {0, 0, 0};
    saccade_block_mask *a, *b, *mask = NULL;
    saccade_mask_shape shape = shape_of(1, 1, 16, 16);
    must(make_causal(&a));
    must(saccade_block_mask_from_indices(ctx, &b, &shape, SACCADE_TENSOR(first, SACCADE_I32, 1, 1, 3, 1),
                                         SACCADE_PARTIAL));
    assert_refused(saccade_block_mask_and(ctx, &mask, a, b), SACCADE_INVALID_ARGUMENT,
                   "b: has PARTIAL blocks");
    assert_null(mask);
    saccade_block_mask_destroy(a);
    saccade_block_mask_destroy(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operand_is_its_rule),
        cmocka_unit_test(and_of_every_pair_is_the_conjunction),
        cmocka_unit_test(or_of_every_pair_is_the_disjunction),
        cmocka_unit_test(not_is_the_complement_and_undoes_itself),
        cmocka_unit_test(de_morgan_holds_block_by_block),
        cmocka_unit_test(diagonals_survive_where_they_can),
        cmocka_unit_test(unequal_shapes_are_refused),
        cmocka_unit_test(mask_decided_at_the_call_does_not_combine),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
