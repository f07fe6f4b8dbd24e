/* test_verdict.c - the bound that `saccade check` holds a backend to. */
#include <math.h>

#include "support/cmocka_all.h"
#include "verdict.h"

static verdict judged(const char *name, const float found[4], const float plain[4], const double exact[4]) {
    return judge_result(name, SACCADE_TENSOR(found, SACCADE_F32, 2, 2),
                        SACCADE_TENSOR(plain, SACCADE_F32, 2, 2), SACCADE_TENSOR(exact, SACCADE_F64, 2, 2));
}

static const double exact[4] = {1, -2, 0.5, 0};
static const float plain[4] = {1, -2.25f, 0.5f, 0}; /* an error of 1/4: the bound is 1/2 and 2e-5 */

static void errors_up_to_twice_the_plain_formulas_pass(void **state) {
    (void)state;
    float found[4] = {1, -2, 1, 0};
    verdict v = judged("out", found, plain, exact);
    assert_true(v.good);
    assert_true(fabs(v.bound - (0.5 + 2e-5)) < 1e-12);
    assert_true(v.largest == 2 && v.plain_error == 0.25 && v.error == 0.5);
    assert_int_equal(v.worst, 2);
    assert_true(v.found == 1 && v.exact == 0.5);
}

static void errors_beyond_fail(void **state) {
    (void)state;
    float found[4] = {1, -2, 0.5f, 0.5625f};
    verdict v = judged("out", found, plain, exact);
    assert_false(v.good);
    assert_int_equal(v.worst, 3);
}

static void nan_and_infinity_fail_where_the_exact_value_is_finite(void **state) {
    (void)state;
    float nan_found[4] = {1, NAN, 0.5f, 0}, infinite[4] = {INFINITY, -2, 0.5f, 0};
    assert_false(judged("out", nan_found, plain, exact).good);
    assert_int_equal(judged("out", nan_found, plain, exact).worst, 1);
    assert_false(judged("out", infinite, plain, exact).good);
    /* A plain formula that breaks down excuses nobody. */
    assert_false(judged("out", infinite, infinite, exact).good);
}

static void the_same_infinity_or_nan_passes_and_another_does_not(void **state) {
    (void)state;
    double empty[4] = {-INFINITY, -INFINITY, NAN, 1};
    float same[4] = {-INFINITY, -INFINITY, NAN, 1}, other[4] = {-INFINITY, INFINITY, NAN, 1};
    float finite[4] = {-INFINITY, -1e30f, NAN, 1};
    assert_true(judged("lse", same, same, empty).good);
    assert_false(judged("lse", other, same, empty).good);
    assert_false(judged("lse", finite, same, empty).good);
}

static void a_small_lse_is_judged_as_a_probability(void **state) {
    (void)state;
    double small[4] = {1e-3, 0, 0, 0};
    float same[4] = {1e-3f, 0, 0, 0}, found[4] = {1e-3f, 9e-6f, 0, 0};
    assert_true(judged("lse", found, same, small).good);
    assert_false(judged("out", found, same, small).good);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_up_to_twice_the_plain_formulas_pass),
        cmocka_unit_test(errors_beyond_fail),
        cmocka_unit_test(nan_and_infinity_fail_where_the_exact_value_is_finite),
        cmocka_unit_test(the_same_infinity_or_nan_passes_and_another_does_not),
        cmocka_unit_test(a_small_lse_is_judged_as_a_probability),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
