/* nsa_verdict.c - how far results may lie from the exact ones, and which choices of blocks are right. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

static const char *dtype_text(sac_dtype dtype) {
    static const char *const names[] = {"fp32", "fp16", "bf16", "fp64"};
    return names[dtype];
}

static double error_of(double got, double exact) {
    if (isinf(exact)) return got == exact ? 0 : INFINITY;
    return isfinite(got) ? fabs(got - exact) : INFINITY;
}

double nsa_largest(const double *values, int64_t count) {
    double largest = 0;
    for (int64_t e = 0; e < count; e++)
        if (isfinite(values[e])) largest = fmax(largest, fabs(values[e]));
    return largest;
}

/* Elements that mean something: packed compressed rows end where the sequences' do. */
static int64_t count_of(const nsa_problem *p, nsa_operand operand) {
    test_shape shape = nsa_problem_shape(p, operand);
    int64_t rows = 0;
    if ((operand != NSA_K_CMP && operand != NSA_V_CMP) || !p->c.packed) return test_shape_size(&shape);
    for (int32_t b = 0; b < p->c.batch; b++) rows += p->len_cmp[b];
    return rows * shape.extent[1] * shape.extent[2];
}

/* The largest term of the sums behind a gradient of attention, which may cancel to nothing. */
static double largest_term(const nsa_problem *p, nsa_operand operand, double steepest) {
    const test_shape q = nsa_problem_shape(p, NSA_Q), k = nsa_problem_shape(p, NSA_K);
    const double scale = fabs(p->c.scale);
    if (operand == NSA_DQ) return steepest * scale * nsa_largest(p->values[NSA_K], test_shape_size(&k));
    if (operand == NSA_DK || operand == NSA_DW_K)
        return steepest * scale * nsa_largest(p->values[NSA_Q], test_shape_size(&q));
    return operand > NSA_DV ? steepest : 0;
}

void nsa_check(const nsa_problem *p, nsa_operand operand, const double *got, const nsa_results *exact,
               const nsa_results *plain) {
    const double *want = exact->values[operand];
    const int64_t count = count_of(p, operand);
    double plain_error = 0, largest = nsa_largest(want, count);
    for (int64_t e = 0; e < count; e++)
        plain_error = fmax(plain_error, error_of(plain->values[operand][e], want[e]));
    if (operand >= NSA_LSE_CMP && operand <= NSA_LSE_WIN) largest = fmax(largest, 1);
    /* Of a few large elements the plain formula may happen to store each well. */
    plain_error = fmax(plain_error, largest * test_unit_roundoff(nsa_operand_dtype(operand, p->dtype)));
    double bound = 2 * plain_error + 1e-5 * largest + 1e-6 * largest_term(p, operand, plain->steepest);
    if (p->dtype == SAC_F32 && !(plain_error <= 0.01 * largest + 1e-5))
        fail_msg("%s: %s of the plain formula and the exact one differ by %g of %g", p->c.name,
                 nsa_operand_name(operand), plain_error, largest);
    for (int64_t e = 0; e < count; e++)
        if (!(error_of(got[e], want[e]) <= bound))
            fail_msg("%s in %s, seed %" PRIu64 ": element %" PRId64
                     " of %s is %.9g, exact %.9g, error %.3g above %.3g; plain formula %.3g, largest %.3g",
                     p->c.name, dtype_text(p->dtype), p->c.seed, e, nsa_operand_name(operand), got[e],
                     want[e], error_of(got[e], want[e]), bound, plain_error, largest);
}

void nsa_check_same_bits(const nsa_problem *p, nsa_operand operand, const nsa_results *got,
                         const nsa_results *want, const char *how) {
    const double *a = got->values[operand], *b = want->values[operand];
    const test_shape shape = nsa_problem_shape(p, operand);
    for (int64_t e = 0; shape.ndim && e < test_shape_size(&shape); e++)
        if (memcmp(&a[e], &b[e], sizeof *a) != 0)
            fail_msg("%s in %s, seed %" PRIu64 ": element %" PRId64 " of %s is %.9g %s, else %.9g", p->c.name,
                     dtype_text(p->dtype), p->c.seed, e, nsa_operand_name(operand), a[e], how, b[e]);
}

/* ---- scores and the choice ---- */

void nsa_check_scores(const nsa_problem *p, const double *got, const double *want) {
    test_shape shape = nsa_problem_shape(p, NSA_SCORES);
    const double largest = nsa_largest(want, test_shape_size(&shape));
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; tile < p->len_tiles[b]; tile++)
                for (int32_t j = 0; j < p->longest_cmp; j++) {
                    int64_t at = nsa_tile_index(p, b, list, tile) * p->longest_cmp + j;
                    bool both_nan = isnan(got[at]) && isnan(want[at]);
                    if (!both_nan && got[at] != want[at] && !(fabs(got[at] - want[at]) <= 1e-5 * largest))
                        fail_msg("%s in %s, seed %" PRIu64
                                 ": scores(%d, %d, %d, %d) is %.9g, exact %.9g, largest %g",
                                 p->c.name, dtype_text(p->dtype), p->c.seed, b, list, tile, j, got[at],
                                 want[at], largest);
                }
}

void nsa_check_selection(const nsa_problem *p, const double *scores, const double *indices) {
    test_shape shape = nsa_problem_shape(p, NSA_INDICES);
    double *want = calloc((size_t)test_shape_size(&shape) + 1, sizeof *want);
    assert_non_null(want);
    nsa_truth_select(p, scores, want);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; tile < p->len_tiles[b]; tile++)
                for (int32_t n = 0; n < p->c.top_k; n++) {
                    int64_t at = nsa_tile_index(p, b, list, tile) * p->c.top_k + n;
                    if (indices[at] != want[at])
                        fail_msg("%s in %s, seed %" PRIu64 ": indices(%d, %d, %d, %d) is %g, expected %g",
                                 p->c.name, dtype_text(p->dtype), p->c.seed, b, list, tile, n, indices[at],
                                 want[at]);
                }
    free(want);
}

static void check_tile(const nsa_problem *p, int32_t b, int32_t list, int32_t tile, const double *scores,
                       const double *indices, const double *right) {
    const nsa_case *c = &p->c;
    const int64_t at = nsa_tile_index(p, b, list, tile);
    const double *score = scores + at * p->longest_cmp, *got = indices + at * c->top_k,
                 *want = right + at * c->top_k;
    const double slack = 1e-5 * nsa_largest(score, p->longest_cmp) + 1e-7;
    for (int32_t n = 0; n < c->top_k; n++) {
        bool same_kind = (got[n] < 0) == (want[n] < 0) && (got[n] == -1 || got[n] >= 0);
        if (!same_kind || (n && got[n] >= 0 && got[n] <= got[n - 1]))
            fail_msg("%s in %s, seed %" PRIu64 ": indices(%d, %d, %d, %d) is %g, expected %g", c->name,
                     dtype_text(p->dtype), c->seed, b, list, tile, n, got[n], want[n]);
    }
    /* Where the lists differ, the scores of what was left and of what was taken must be the same to fp32. */
    for (int32_t n = 0; n < c->top_k && want[n] >= 0; n++) {
        bool there = false;
        for (int32_t m = 0; m < c->top_k; m++) there |= got[m] == want[n];
        for (int32_t m = 0; m < c->top_k && !there; m++) {
            bool invented = got[m] >= 0;
            for (int32_t o = 0; o < c->top_k; o++) invented &= got[m] != want[o];
            double lost = want[n] < p->longest_cmp ? score[(int32_t)want[n]] : INFINITY;
            double taken = invented && got[m] < p->longest_cmp ? score[(int32_t)got[m]] : -INFINITY;
            if (invented && !(fabs(lost - taken) <= slack))
                fail_msg("%s in %s, seed %" PRIu64
                         ": batch %d, list %d, tile %d: block %g of score %.9g was taken, "
                         "block %g of score %.9g was not",
                         c->name, dtype_text(p->dtype), c->seed, b, list, tile, got[m], taken, want[n], lost);
        }
    }
}

void nsa_check_choice(const nsa_problem *p, const double *scores, const double *indices) {
    test_shape shape = nsa_problem_shape(p, NSA_INDICES);
    double *right = calloc((size_t)test_shape_size(&shape) + 1, sizeof *right);
    assert_non_null(right);
    nsa_truth_select(p, scores, right);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; tile < p->len_tiles[b]; tile++)
                check_tile(p, b, list, tile, scores, indices, right);
    free(right);
}

static void judge(const nsa_problem *p, bool backward, const nsa_results *got) {
    nsa_results exact, plain;
    nsa_results_create(p, &exact);
    nsa_results_create(p, &plain);
    nsa_truth_scores(p, got->values[NSA_K_CMP], exact.values[NSA_SCORES]);
    nsa_check_choice(p, exact.values[NSA_SCORES], got->values[NSA_INDICES]);
    double *compressed = nsa_truth_select_compressed(p, exact.values[NSA_SCORES]);
    const nsa_choice choice = {got->values[NSA_INDICES], compressed};
    nsa_truth(p, NSA_EXACT, &choice, backward, &exact);
    nsa_truth(p, NSA_PLAIN, &choice, backward, &plain);
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++) {
        bool judged = operand < NSA_INDICES || (operand >= NSA_DQ && backward);
        if (judged && got->values[operand]) nsa_check(p, operand, got->values[operand], &exact, &plain);
    }
    free(compressed);
    nsa_results_free(&exact);
    nsa_results_free(&plain);
}

void nsa_verify(const nsa_case *declared, sac_dtype dtype, bool backward) {
    nsa_problem *p = nsa_problem_create(declared, dtype);
    nsa_results got;
    nsa_results_create(p, &got);
    nsa_run(p, &(nsa_run_options){.forward_only = !backward}, &got);
    if (test_device_computes(nsa_here()->device)) judge(p, backward, &got);
    nsa_results_free(&got);
    nsa_problem_free(p);
}
