/* test_nsa_unused_rows.c - packed rows behind the last sequence: whatever they hold, nothing comes of them. */
#include <math.h>
#include <stdlib.h>

#include "support/cmocka_all.h"
#include "support/nsa_run.h"
#include "support/nsa_suite.h"

enum { UNUSED = 29 }; /* rows; more than a block and a tile */

/* Packed, what has rows of tokens has three dimensions, and nothing else so long a one. */
static bool has_rows(const nsa_problem *p, nsa_operand operand) {
    const test_shape shape = nsa_problem_shape(p, operand);
    return shape.ndim == 3 && shape.extent[0] == p->rows;
}

static bool is_lse(nsa_operand operand) { return operand >= NSA_LSE_CMP && operand <= NSA_LSE_WIN; }
static bool is_weight_grad(nsa_operand operand) { return operand >= NSA_DW_K && operand <= NSA_DW_GATE; }

static int64_t row_size(const nsa_problem *p, nsa_operand operand) {
    const test_shape shape = nsa_problem_shape(p, operand);
    return shape.ndim ? test_shape_size(&shape) / p->rows : 0;
}

static void run(const nsa_problem *p, nsa_results *r) {
    nsa_session *s = nsa_session_create(p, 0);
    size_t bytes = 0;
    for (int backward = 0; backward < 2; backward++) {
        const saccade_nsa_grads *grads = backward ? &s->grads : NULL;
        assert_int_equal(saccade_nsa_workspace(s->ctx, &s->t, grads, &s->params, &bytes), SACCADE_OK);
        s->params.workspace = nsa_workspace_create(bytes);
        s->params.workspace_bytes = bytes;
        const saccade_status status =
            backward ? saccade_nsa_backward(s->ctx, &s->t, grads, &s->params)
                     : saccade_nsa_forward(s->ctx, &s->t, &s->tensor[NSA_OUT].tensor, &s->params);
        if (status != SACCADE_OK) fail_msg("%s: %s", p->c.name, saccade_last_error());
        nsa_workspace_free(p->c.name, s->params.workspace, bytes);
    }
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++)
        if (has_rows(p, operand) || is_lse(operand) || is_weight_grad(operand))
            test_tensor_read(&s->tensor[operand], nsa_operand_name(operand), r->values[operand]);
    nsa_session_free(s);
}

/* The last sequence loses its last rows, which become NaN in every input. */
static void cut_last_sequence(nsa_problem *p) {
    const int32_t last = p->c.batch - 1;
    const int64_t used = p->rows - UNUSED;
    p->len[last] -= UNUSED;
    p->values[NSA_CU_SEQLENS][p->c.batch] = (double)used;
    for (nsa_operand operand = 0; operand < NSA_NUM_INPUTS; operand++) {
        const int64_t size = has_rows(p, operand) ? row_size(p, operand) : 0;
        for (int64_t e = used * size; e < p->rows * size; e++) p->values[operand][e] = NAN;
    }
}

/* Sums over rows come in another order. */
static void expect_near(const nsa_problem *p, nsa_operand operand, int64_t at, double got, double want) {
    const double bound = p->dtype == SAC_F32 ? 1e-4 * fmax(fabs(want), 0.1) : 0x1p-6 * fmax(fabs(want), 0.2);
    if (got == want || fabs(got - want) <= bound) return;
    fail_msg("%s: element %lld of %s is %.9g, without unused rows %.9g", p->c.name, (long long)at,
             nsa_operand_name(operand), got, want);
}

static void expect_unused(const nsa_problem *p, nsa_operand operand, int64_t at, double got, double want) {
    if (got == want) return;
    fail_msg("%s: element %lld of %s, of a row of no sequence, is %.9g instead of %g", p->c.name,
             (long long)at, nsa_operand_name(operand), got, want);
}

static void compare(const nsa_problem *p, const nsa_problem *alone, nsa_operand operand, const double *got,
                    const double *want) {
    const int64_t used = alone->rows, size = row_size(p, operand);
    if (is_weight_grad(operand)) {
        const test_shape shape = nsa_problem_shape(p, operand);
        for (int64_t e = 0; shape.ndim && e < test_shape_size(&shape); e++)
            expect_near(p, operand, e, got[e], want[e]);
    } else if (is_lse(operand)) {
        for (int64_t e = 0; e < p->rows * p->c.num_heads; e++) {
            const int64_t h = e / p->rows, row = e % p->rows;
            if (row < used)
                expect_near(p, operand, e, got[e], want[h * used + row]);
            else
                expect_unused(p, operand, e, got[e], -INFINITY);
        }
    } else if (has_rows(p, operand)) {
        for (int64_t e = 0; e < used * size; e++) expect_near(p, operand, e, got[e], want[e]);
        for (int64_t e = used * size; e < p->rows * size; e++) expect_unused(p, operand, e, got[e], 0);
    }
}

static void expect_nothing_of_unused_rows(nsa_case c, sac_dtype dtype) {
    nsa_problem *alone = nsa_problem_create(&c, dtype);
    c.lens[c.batch - 1] += UNUSED;
    nsa_problem *p = nsa_problem_create(&c, dtype);
    nsa_results got, want;
    cut_last_sequence(p);
    nsa_results_create(p, &got);
    nsa_results_create(alone, &want);
    run(p, &got);
    run(alone, &want);
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++)
        compare(p, alone, operand, got.values[operand], want.values[operand]);
    nsa_results_free(&got);
    nsa_results_free(&want);
    nsa_problem_free(p);
    nsa_problem_free(alone);
}

static void nothing_comes_of_rows_behind_the_last_sequence(void **state) {
    (void)state;
    static const char *const names[] = {"uniform", "w_gate", "gates"};
    for (nsa_gate_form gate = NSA_GATE_UNIFORM; gate <= NSA_GATE_TENSOR; gate++)
        for (int i = 0; i < 2; i++) {
            const nsa_case c = {.name = names[gate],
                                .packed = true,
                                .batch = 3,
                                .lens = {40, 0, 33},
                                .num_heads = 4,
                                .num_kv_heads = 2,
                                .query_tile = i ? 1 : 16,
                                .weights = !i,
                                .keep_outputs = i,
                                .gate = gate};
            expect_nothing_of_unused_rows(c, i ? SAC_BF16 : SAC_F32);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_comes_of_rows_behind_the_last_sequence)};
    return nsa_suite(tests, COUNT_OF(tests));
}
