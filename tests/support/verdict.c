/* verdict.c - how far results may lie from the exact ones. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/attention_run.h"
#include "support/cmocka_all.h"

/* 0 where both are the same infinity or NaN; infinite where only one is. */
static double error_of(double got, double exact) {
    if (isnan(exact)) return isnan(got) ? 0 : INFINITY;
    if (isinf(exact)) return got == exact ? 0 : INFINITY;
    return isfinite(got) ? fabs(got - exact) : INFINITY;
}

static double largest_finite(const double *values, int64_t count) {
    double largest = 0;
    for (int64_t e = 0; e < count; e++)
        if (isfinite(values[e]) && fabs(values[e]) > largest) largest = fabs(values[e]);
    return largest;
}

static double largest_error(const double *got, const double *exact, int64_t count) {
    double largest = 0;
    for (int64_t e = 0; e < count; e++)
        if (error_of(got[e], exact[e]) > largest) largest = error_of(got[e], exact[e]);
    return largest;
}

/* (2, 0, 3, 17) of the e-th element. */
static const char *index_text(char text[96], const test_shape *shape, int64_t e) {
    int64_t index[4];
    int used = 0;
    for (int d = shape->ndim - 1; d >= 0; d--) {
        index[d] = e % shape->extent[d];
        e /= shape->extent[d];
    }
    for (int d = 0; d < shape->ndim; d++)
        used += snprintf(text + used, 96 - (size_t)used, "%s%" PRId64, d ? ", " : "", index[d]);
    return text;
}

static const char *dtype_text(sac_dtype dtype) {
    static const char *const names[] = {"fp32", "fp16", "bf16", "fp64"};
    return names[dtype];
}

static double largest_input(const problem *p, test_operand operand) {
    test_shape shape = problem_shape(p, operand);
    return largest_finite(p->values[operand], test_shape_size(&shape));
}

/* The terms of the sums behind a gradient. Where they cancel (a row of one key has dq = 0), the rounding of fp32 terms
 * is left, though the gradient itself is 0: of the largest one, and, where all pairs of a head or more are summed, of
 * as many, independent of each other. */
static double size_of_terms(const problem *p, test_operand operand, const results *plain) {
    const double scale = fabsf(attention_case_scale(&p->c));
    if (operand == DQ) return plain->steepest * scale * largest_input(p, K);
    if (operand == DK) return plain->steepest * scale * largest_input(p, Q);
    return operand >= DSINK ? sqrt(plain->steepness_squared) : 0;
}

/* Backward finds probabilities by exp(score - lse), and lse is fp32: so exactly can it be known. */
static double lse_resolution(const problem *p, const results *plain) {
    test_shape shape = problem_shape(p, LSE);
    return largest_finite(plain->values[LSE], test_shape_size(&shape)) * 0x1p-23;
}

/* What the rounding of out alone does to gradients: backward takes delta = dout . out from the out that it is handed.
 * A delta that is off by what the rounding took from out is the same as a dlse that is. The reference takes long, so
 * it is asked once. */
static void find_errors_of_rounded_out(const problem *p, results *exact) {
    if (exact->knows_rounded_out) return;
    problem moved = *p;
    moved.c.lse_grad = true;
    const test_shape shape = problem_shape(&moved, DLSE);
    const int32_t heads = p->c.num_heads, dim = p->c.head_dim_v;
    double *dlse = moved.values[DLSE] = calloc((size_t)test_shape_size(&shape) + 1, sizeof(double));
    assert_non_null(dlse);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t row = 0; row < p->len_q[b] * heads; row++) {
            const int64_t first = (p->first_q[b] * heads + row) * dim,
                          at = problem_lse_index(p, b, row % heads, row / heads);
            if (p->values[DLSE]) dlse[at] = p->values[DLSE][at];
            for (int32_t d = 0; d < dim; d++) {
                const double out = exact->values[OUT][first + d];
                dlse[at] += p->values[DOUT][first + d] * (out - sac_number_round(out, p->dtype));
            }
        }
    results r;
    results_create(p, &r);
    if (attention_run(&moved, "reference", SAC_F64, &(run_options){0}, &r) != SACCADE_OK)
        fail_msg("%s: the reference refuses: %s", p->c.name, saccade_last_error());
    for (test_operand operand = DQ; operand < NUM_OPERANDS; operand++) {
        const test_shape result = problem_shape(p, operand);
        if (result.ndim)
            exact->rounded_out[operand] =
                largest_error(r.values[operand], exact->values[operand], test_shape_size(&result));
    }
    exact->knows_rounded_out = true;
    results_free(&r);
    free(dlse);
}

static void check_operand(const problem *p, const char *backend, test_operand operand, const double *got,
                          results *exacts, const results *plain) {
    char text[96];
    const double *exact = exacts->values[operand];
    test_shape shape = problem_shape(p, operand);
    int64_t count = test_shape_size(&shape);
    double plain_error = largest_error(plain->values[operand], exact, count),
           largest = largest_finite(exact, count);
    /* Of a few large elements the plain formula may happen to store each well. */
    if (test_operand_in_dtype(operand))
        plain_error = fmax(plain_error, largest * test_unit_roundoff(test_dtype(p->dtype)));
    /* In a few rows the plain formula may be lucky with its out. */
    if (operand >= DQ && p->dtype != SAC_F32 && largest_error(got, exact, count) > 2 * plain_error) {
        find_errors_of_rounded_out(p, exacts);
        plain_error = fmax(plain_error, exacts->rounded_out[operand]);
    }
    /* An lse is a logarithm: 1e-5 of a probability, however small the lse is. */
    if (operand == LSE && largest < 1) largest = 1;
    double lse = operand >= DQ ? lse_resolution(p, plain) : 0;
    double bound = 2 * plain_error + (1e-5 + lse) * largest + (1e-6 + lse) * size_of_terms(p, operand, plain);
    bool well_conditioned = p->dtype == SAC_F32 && p->c.inputs != INPUTS_FAR_NEGATIVE;
    if (well_conditioned && !(plain_error <= 0.05 * largest + bound - 2 * plain_error))
        fail_msg("%s: %s of the plain formula and of the reference differ by %g of %g: one of them is wrong",
                 p->c.name, test_operand_name(operand), plain_error, largest);
    for (int64_t e = 0; e < count; e++)
        if (!(error_of(got[e], exact[e]) <= bound))
            fail_msg("%s on %s in %s, seed %" PRIu64
                     ": %s(%s) is %.9g, exact %.9g, error %.3g above %.3g; plain formula %.3g, largest %.3g",
                     p->c.name, backend, dtype_text(p->dtype), p->c.seed, test_operand_name(operand),
                     index_text(text, &shape, e), got[e], exact[e], error_of(got[e], exact[e]), bound,
                     plain_error, largest);
}

void results_check(const problem *p, const char *backend, const results *got, results *exact,
                   const results *plain, bool forward_only) {
    for (test_operand operand = OUT; operand < (forward_only ? DQ : NUM_OPERANDS); operand++)
        if (got->values[operand]) check_operand(p, backend, operand, got->values[operand], exact, plain);
}

void results_same(const problem *p, const char *what, const results *a, const results *b, bool forward_only) {
    char text[96];
    for (test_operand operand = OUT; operand < (forward_only ? DQ : NUM_OPERANDS); operand++) {
        test_shape shape = problem_shape(p, operand);
        const double *left = a->values[operand], *right = b->values[operand];
        for (int64_t e = 0; left && e < test_shape_size(&shape); e++)
            if (memcmp(&left[e], &right[e], sizeof *left) != 0)
                fail_msg("%s in %s, seed %" PRIu64 ": %s: %s(%s) is %.17g and %.17g", p->c.name,
                         dtype_text(p->dtype), p->c.seed, what, test_operand_name(operand),
                         index_text(text, &shape, e), left[e], right[e]);
    }
}
