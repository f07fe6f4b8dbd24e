/* test_mask_spec.c - the language of block masks: what it accepts, what it builds, what it says when it refuses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mask_spec.h"
#include "support/cmocka_all.h"
#include "support/test_context.h"

static mask_spec *parsed(const char *text) {
    char *error;
    mask_spec *spec = mask_spec_parse(text, &error);
    if (!spec) fail_msg("%s: %s", text, error);
    return spec;
}

/* "(and causal (not window))": the tree, to compare. */
static void print_tree(const mask_spec *spec, char *text, size_t size) {
    static const char *const names[] = {"and",      "or",     "not",     "causal",         "window",
                                        "document", "prefix", "dilated", "block-diagonal", "eagle3",
                                        "mod"};
    char left[256] = "", right[256] = "";
    if (!spec->left) {
        snprintf(text, size, "%s%s%s", names[spec->kind], spec->text ? " " : "",
                 spec->text ? spec->text : "");
        return;
    }
    print_tree(spec->left, left, sizeof left);
    if (spec->right) print_tree(spec->right, right, sizeof right);
    snprintf(text, size, "(%s %.200s%s%.200s)", names[spec->kind], left, spec->right ? " " : "", right);
}

static void expect_tree(const char *text, const char *tree) {
    char found[600];
    mask_spec *spec = parsed(text);
    print_tree(spec, found, sizeof found);
    assert_string_equal(found, tree);
    mask_spec_free(spec);
}

static void expect_error(const char *text, const char *words) {
    char *error;
    mask_spec *spec = mask_spec_parse(text, &error);
    if (spec) fail_msg("\"%s\" was accepted", text);
    if (!strstr(error, words)) fail_msg("%s: \"%s\" was expected in\n%s", text, words, error);
    free(error);
}

static void and_binds_tighter_than_or_and_not_tighter_than_both(void **state) {
    (void)state;
    expect_tree("causal", "causal");
    expect_tree("causal | window:1,2 & prefix:3", "(or causal (and window prefix))");
    expect_tree("(causal | window:1,2) & prefix:3", "(and (or causal window) prefix)");
    expect_tree("!causal & eagle3:4", "(and (not causal) eagle3)");
    expect_tree("!(causal&!!dilated:1,2)", "(not (and causal (not (not dilated))))");
    expect_tree("causal&causal&causal", "(and (and causal causal) causal)");
    expect_tree("  causal  |  block-diagonal : 4 , 8  ", "(or causal block-diagonal)");
}

static void text_of_a_mod_ends_at_a_single_operator_outside_brackets(void **state) {
    (void)state;
    expect_tree("mod:q_idx >= kv_idx", "mod q_idx >= kv_idx");
    expect_tree("mod: h == 0 || q_idx < 4 & causal", "(and mod h == 0 || q_idx < 4 causal)");
    expect_tree("mod:h == 0 && b == 1 | causal", "(or mod h == 0 && b == 1 causal)");
    expect_tree("(mod:(q_idx & 3) == 0) & causal", "(and mod (q_idx & 3) == 0 causal)");
    expect_tree("mod:{ return q_idx | kv_idx; } | causal", "(or mod { return q_idx | kv_idx; } causal)");
    expect_tree("!mod:x[b & 1] > 0", "(not mod x[b & 1] > 0)");
}

static void values_are_read(void **state) {
    (void)state;
    mask_spec *spec = parsed("window:-1,7:bottom-right & document:3,0,2147483647");
    assert_int_equal(spec->left->values[0], -1);
    assert_int_equal(spec->left->values[1], 7);
    assert_true(spec->left->bottom_right);
    assert_int_equal(spec->right->num_values, 3);
    assert_int_equal(spec->right->values[2], INT32_MAX);
    assert_false(spec->right->bottom_right);
    mask_spec_free(spec);
}

static void mistakes_are_named_with_their_column(void **state) {
    (void)state;
    expect_error("", "column 1: expected causal");
    expect_error("causal &", "found the end");
    expect_error("causal & & window:1,2", "column 10");
    expect_error("causal causal", "column 8: expected &, | or the end, found \"causal\"");
    expect_error("causl", "column 1");
    expect_error("causalx", "column 7");
    expect_error("causal:left", "top-left or bottom-right");
    expect_error("(causal", "), & or |");
    expect_error("causal)", "column 7");
    expect_error("window", "window:LEFT,RIGHT");
    expect_error("window:1", "window:LEFT,RIGHT");
    expect_error("window:1,", "window:LEFT,RIGHT");
    expect_error("window:1,2,3", "expected &, | or the end, found \",3\"");
    expect_error("window:-2,0", "window:LEFT,RIGHT");
    expect_error("window:1,2147483648", "window:LEFT,RIGHT");
    expect_error("window:1,99999999999999999999", "window:LEFT,RIGHT");
    expect_error("prefix:-1", "prefix:N");
    expect_error("eagle3:0", "eagle3:Q_LEN");
    expect_error("mod:", "mod:TEXT");
    expect_error("mod: & causal", "mod:TEXT");
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    char text[100008];
    memset(text, '(', sizeof text);
    text[sizeof text - 1] = 0;
    expect_error(text, "64 levels");
    memset(text, '!', sizeof text - 1);
    expect_error(text, "64 levels");
}

/* The mask of SPEC against a formula, pair by pair. */
static void expect_pairs(const char *text, int32_t q_len, int32_t kv_len, bool (*formula)(int32_t, int32_t)) {
    saccade_mask_shape shape = {.q_len = q_len, .kv_len = kv_len, .q_block = 16, .kv_block = 8};
    modifier_sources sources = {0};
    mask_spec *spec = parsed(text);
    saccade_block_mask *mask = NULL;
    assert_true(add_scalar(&sources, "reach=5"));
    assert_int_equal(mask_spec_build(ctx, spec, &shape, &sources, &mask), 0);
    for (int32_t i = 0; i < q_len; i++)
        for (int32_t j = 0; j < kv_len; j++) {
            bool visible;
            assert_int_equal(saccade_block_mask_visible(ctx, mask, 0, 0, i, j, &visible), SACCADE_OK);
            if (visible != formula(i, j))
                fail_msg("%s: pair (%d, %d) is %d, must be %d", text, i, j, visible, !visible);
        }
    saccade_block_mask_destroy(mask);
    mask_spec_free(spec);
    free_sources(&sources);
}

static bool causal_or_window(int32_t i, int32_t j) { return j <= i || (j >= i - 3 && j <= i + 9); }
static bool bottom_right(int32_t i, int32_t j) { return j <= i + 20; }
static bool not_causal_documents(int32_t i, int32_t j) { return !(j <= i) && (i < 10) == (j < 10); }
static bool prefix_and_reach(int32_t i, int32_t j) { return (j < 12 || j <= i) && abs(i - j) <= 5; }
static bool dilated_pairs(int32_t i, int32_t j) { return abs(i - j) <= 8 && (i - j) % 4 == 0; }
static bool diagonal_blocks(int32_t i, int32_t j) { return i / 5 == j / 7; }
static bool eagle(int32_t i, int32_t j) { return j < 32 ? j <= i : (j - i) % 32 == 0; }

static void specs_build_the_masks_they_name(void **state) {
    (void)state;
    expect_pairs("causal | window:3,9", 40, 40, causal_or_window);
    expect_pairs("causal:bottom-right", 20, 40, bottom_right);
    expect_pairs("!causal & document:10,30", 40, 40, not_causal_documents);
    expect_pairs("prefix:12 & mod:q_idx - kv_idx <= scalar(reach) && kv_idx - q_idx <= scalar(reach)", 40, 40,
                 prefix_and_reach);
    expect_pairs("dilated:2,4", 40, 40, dilated_pairs);
    expect_pairs("block-diagonal:5,7", 40, 56, diagonal_blocks);
    expect_pairs("eagle3:32", 32, 96, eagle);
}

static void values_that_disagree_with_the_shape_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"eagle3:16", "causal & prefix:1,2,3", "document:3,4", "!eagle3:31"};
    saccade_mask_shape shape = {.q_len = 32, .kv_len = 96};
    modifier_sources sources = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mask_spec *spec = parsed(wrong[i]);
        saccade_block_mask *mask = NULL;
        assert_int_equal(mask_spec_build(ctx, spec, &shape, &sources, &mask), 2);
        assert_null(mask);
        mask_spec_free(spec);
    }
}

static void dependence_on_batch_and_head_is_seen(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool batch, head;
    } cases[] = {{"causal", false, false},
                 {"mod:q_idx >= kv_idx", false, false},
                 {"causal & !mod:h == 0", false, true},
                 {"mod:lengths(b) > kv_idx", true, false},
                 {"prefix:3", false, false},
                 {"prefix:3,4", true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mask_spec *spec = parsed(cases[i].text);
        if (mask_spec_reads_batch(spec) != cases[i].batch || mask_spec_reads_head(spec) != cases[i].head)
            fail_msg("%s: batch and head must be %d, %d", cases[i].text, cases[i].batch, cases[i].head);
        mask_spec_free(spec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(and_binds_tighter_than_or_and_not_tighter_than_both),
        cmocka_unit_test(text_of_a_mod_ends_at_a_single_operator_outside_brackets),
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(mistakes_are_named_with_their_column),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(specs_build_the_masks_they_name),
        cmocka_unit_test(values_that_disagree_with_the_shape_are_refused),
        cmocka_unit_test(dependence_on_batch_and_head_is_seen),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
