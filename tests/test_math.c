/* test_math.c - the elementary functions of shared/math.h against the C library's in double precision. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "shared/math.h"
#include "support/cmocka_all.h"

static const struct function {
    const char *name;
    float (*ours)(float);
    double (*exact)(double);
    double ulps; /* the bound that math.h states */
} functions[] = {
    {"exp", sac_expf, exp, 2},    {"exp2", sac_exp2f, exp2, 2},   {"log", sac_logf, log, 2},
    {"log2", sac_log2f, log2, 2}, {"tanh", sac_tanhf, tanh, 2.5},
};
enum { NUM_FUNCTIONS = sizeof functions / sizeof *functions };

/* The distance between found and the exact value, in units of the last place of an fp32 there. */
static double ulps_between(float found, double exact) {
    float rounded = (float)exact;
    if (isnan(exact)) return isnan(found) ? 0 : INFINITY;
    if (isinf(rounded) || isinf(found)) return found == rounded ? 0 : INFINITY;
    int exponent;
    frexp(exact, &exponent);
    double ulp = ldexp(1, (exact == 0 || exponent < -125 ? -125 : exponent) - 24);
    return fabs(found - exact) / ulp;
}

static void check(const struct function *f, float x) {
    float found = f->ours(x);
    double error = ulps_between(found, f->exact(x));
    if (!(error <= f->ulps))
        fail_msg("%s(%.9g) = %.9g instead of %.9g, %.2f ulp off", f->name, x, found, f->exact(x), error);
}

static void functions_keep_their_bound_over_all_magnitudes(void **state) {
    (void)state;
    for (int k = 0; k < NUM_FUNCTIONS; k++)
        for (uint32_t bits = 0; bits < 0x7f800000u; bits += 4099) {
            check(&functions[k], sac_float_of(bits));
            check(&functions[k], sac_float_of(bits | 0x80000000u));
        }
}

static void functions_keep_their_bound_where_their_pieces_meet(void **state) {
    (void)state;
    for (int k = 0; k < NUM_FUNCTIONS; k++)
        for (int i = -2000000; i <= 2000000; i++) check(&functions[k], (float)i * 6e-5f);
}

static void special_values_are_the_c_librarys(void **state) {
    (void)state;
    const float values[] = {0.0f,      -0.0f,    INFINITY,   -INFINITY, NAN,          -NAN,
                            FLT_MAX,   -FLT_MAX, FLT_MIN,    -FLT_MIN,  FLT_TRUE_MIN, -FLT_TRUE_MIN,
                            1.0f,      -1.0f,    88.72283f,  88.72284f, -103.97207f,  -103.97208f,
                            -104.0f,   128.0f,   127.99999f, -149.0f,   -150.0f,      -150.1f,
                            9.010913f, 9.02f};
    for (int k = 0; k < NUM_FUNCTIONS; k++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) check(&functions[k], values[i]);
    assert_true(signbit(sac_tanhf(-0.0f)) && !signbit(sac_tanhf(0.0f)));
    assert_true(sac_tanhf(INFINITY) == 1.0f && sac_tanhf(-INFINITY) == -1.0f);
    assert_true(sac_expf(0.0f) == 1.0f && sac_exp2f(10.0f) == 1024.0f && sac_log2f(8.0f) == 3.0f);
    assert_true(sac_logf(1.0f) == 0.0f && sac_log2f(1.0f) == 0.0f);
}

static void minimum_and_maximum_prefer_numbers_to_nan(void **state) {
    (void)state;
    assert_true(sac_fminf(1, 2) == 1 && sac_fminf(2, 1) == 1 && sac_fmaxf(1, 2) == 2 && sac_fmaxf(2, 1) == 2);
    assert_true(sac_fminf(NAN, 1) == 1 && sac_fminf(1, NAN) == 1 && isnan(sac_fminf(NAN, NAN)));
    assert_true(sac_fmaxf(NAN, 1) == 1 && sac_fmaxf(1, NAN) == 1 && isnan(sac_fmaxf(NAN, NAN)));
    assert_true(sac_fminf(-INFINITY, 1) == -INFINITY && sac_fmaxf(1, INFINITY) == INFINITY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_keep_their_bound_over_all_magnitudes),
        cmocka_unit_test(functions_keep_their_bound_where_their_pieces_meet),
        cmocka_unit_test(special_values_are_the_c_librarys),
        cmocka_unit_test(minimum_and_maximum_prefer_numbers_to_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
