/* test_visibility.c - bands against their definitions, for every rule and all small lengths. */
#include "shared/visibility.h"
#include "support/cmocka_all.h"
#include "support/dense_band.h"

enum { LONGEST = 12 };

typedef void (*band_check)(const sac_band_rule *rule, int32_t nq, int32_t nk);

static void for_every_band(band_check check) {
    sac_band_rule rule;
    for (int index = 0; dense_band_rule(index, &rule); index++)
        for (int32_t nq = 0; nq <= LONGEST; nq++)
            for (int32_t nk = 0; nk <= LONGEST; nk++) check(&rule, nq, nk);
}

static bool in(sac_range range, int32_t x) { return range.begin <= x && x < range.end; }

static void fail_at(const sac_band_rule *rule, int32_t nq, int32_t nk, const char *what, int32_t i,
                    int32_t j) {
    char text[128];
    fail_msg("%s: %s at query %d, key %d", dense_band_text(text, rule, nq, nk), what, i, j);
}

static void check_pairs(const sac_band_rule *rule, int32_t nq, int32_t nk) {
    sac_band band = sac_band_make(rule, nq, nk);
    for (int32_t i = 0; i < nq; i++)
        for (int32_t j = 0; j < nk; j++)
            if ((bool)sac_band_visible(&band, i, j) != dense_band_sees(rule, nq, nk, i, j))
                fail_at(rule, nq, nk, "visibility is wrong", i, j);
}

static void check_keys_of_queries(const sac_band_rule *rule, int32_t nq, int32_t nk) {
    sac_band band = sac_band_make(rule, nq, nk);
    for (int32_t begin = 0; begin < nq; begin++)
        for (int32_t end = begin + 1; end <= nq; end++)
            for (int32_t j = 0; j < nk; j++) {
                int32_t seeing = 0;
                for (int32_t i = begin; i < end; i++) seeing += dense_band_sees(rule, nq, nk, i, j);
                sac_range queries = {begin, end};
                if (in(sac_band_keys_any(&band, queries), j) != (seeing > 0))
                    fail_at(rule, nq, nk, "keys_any is wrong from", begin, j);
                if (in(sac_band_keys_all(&band, queries), j) != (seeing == end - begin))
                    fail_at(rule, nq, nk, "keys_all is wrong from", begin, j);
            }
}

static void check_queries_of_keys(const sac_band_rule *rule, int32_t nq, int32_t nk) {
    sac_band band = sac_band_make(rule, nq, nk);
    for (int32_t begin = 0; begin < nk; begin++)
        for (int32_t end = begin + 1; end <= nk; end++)
            for (int32_t i = 0; i < nq; i++) {
                int32_t seen = 0;
                for (int32_t j = begin; j < end; j++) seen += dense_band_sees(rule, nq, nk, i, j);
                sac_range keys = {begin, end};
                if (in(sac_band_queries_any(&band, keys), i) != (seen > 0))
                    fail_at(rule, nq, nk, "queries_any is wrong to", i, begin);
                if (in(sac_band_queries_all(&band, keys), i) != (seen == end - begin))
                    fail_at(rule, nq, nk, "queries_all is wrong to", i, begin);
            }
}

static void every_rule_sees_what_its_definition_says(void **state) {
    (void)state;
    for_every_band(check_pairs);
}

static void keys_any_and_all_are_exact_for_every_run_of_queries(void **state) {
    (void)state;
    for_every_band(check_keys_of_queries);
}

static void queries_any_and_all_are_exact_for_every_run_of_keys(void **state) {
    (void)state;
    for_every_band(check_queries_of_keys);
}

static void bottom_right_differs_from_top_left_when_nq_ne_nk(void **state) {
    (void)state;
    sac_band_rule top = {.causal = 1, .window_left = -1, .window_right = -1}, bottom = top;
    bottom.causal = 2;
    sac_band a = sac_band_make(&top, 3, 5), b = sac_band_make(&bottom, 3, 5);
    assert_false(sac_band_visible(&a, 0, 2));
    assert_true(sac_band_visible(&b, 0, 2));
    a = sac_band_make(&top, 5, 3), b = sac_band_make(&bottom, 5, 3);
    assert_true(sac_band_visible(&a, 0, 0));
    assert_false(sac_band_visible(&b, 1, 0));
}

/* The largest lengths and windows that the interface admits: no sum may wrap. */
static void the_longest_sequences_do_not_overflow(void **state) {
    (void)state;
    int32_t n = SAC_MAX_SEQLEN, last = n - 1;
    sac_band_rule rule = {
        .causal = 2, .window_left = INT32_MAX, .window_right = INT32_MAX, .window_align = 1};
    sac_band band = sac_band_make(&rule, n, n);
    assert_true(sac_band_visible(&band, last, 0));
    assert_true(sac_band_visible(&band, last, last));
    assert_false(sac_band_visible(&band, last - 1, last));
    band = sac_band_make(&rule, n, 1);
    assert_false(sac_band_visible(&band, last - 1, 0));
    assert_true(sac_band_visible(&band, last, 0));
    rule.causal = 0;
    band = sac_band_make(&rule, 1, n);
    assert_true(sac_band_visible(&band, 0, 0));
    assert_true(sac_band_visible(&band, 0, last));
    rule = (sac_band_rule){.window_left = -1, .window_right = -1, .compress = 64};
    band = sac_band_make(&rule, n, n / 64);
    assert_true(sac_band_visible(&band, last, n / 64 - 1));
    assert_false(sac_band_visible(&band, last - 1, n / 64 - 1));
    assert_int_equal(sac_band_first_query(&band, n / 64 - 1), last);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_sees_what_its_definition_says),
        cmocka_unit_test(keys_any_and_all_are_exact_for_every_run_of_queries),
        cmocka_unit_test(queries_any_and_all_are_exact_for_every_run_of_keys),
        cmocka_unit_test(bottom_right_differs_from_top_left_when_nq_ne_nk),
        cmocka_unit_test(the_longest_sequences_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
