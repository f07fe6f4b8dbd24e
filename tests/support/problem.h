/* problem.h - a case in one dtype with its numbers: what the reference, the plain formula and every backend get.
 *
 * Values are doubles that the dtype can hold, in row-major order of the operand's shape. Rows that no sequence
 * uses are NaN, since whoever reads them is wrong.
 */
#ifndef TEST_PROBLEM_H
#define TEST_PROBLEM_H

#include "support/attention_case.h"
#include "support/modifiers.h"

typedef enum test_operand {
    Q,
    K,
    V,
    DOUT,
    DLSE,
    SINK,
    ALIBI,
    CU_SEQLENS_Q,
    CU_SEQLENS_K,
    SEQUSED_Q,
    SEQUSED_K,
    NUM_INPUTS,
    OUT = NUM_INPUTS, /* results from here on */
    LSE,
    DQ,
    DK,
    DV,
    DSINK,
    DAUX, /* two slots */
    NUM_OPERANDS = DAUX + TEST_MAX_SLOTS
} test_operand;

const char *test_operand_name(test_operand operand);

/* Of q, k, v and what is shaped like them: bf16 in a bf16 problem. */
bool test_operand_in_dtype(test_operand operand);

typedef struct problem {
    attention_case c; /* resolved */
    sac_dtype dtype;
    bool packed;
    int64_t rows_q, rows_k;     /* of the packed tensors, or B * N */
    int64_t *first_q, *first_k; /* (B) first row of each sequence, counted so */
    int32_t *len_q, *len_k;     /* (B) used rows */
    double *values[NUM_INPUTS]; /* NULL: absent */
    saccade_aux score_aux, mask_aux;
} problem;

problem *problem_create(const attention_case *declared, sac_dtype dtype);
void problem_free(problem *p);

/* ndim 0: this problem has no such operand. */
test_shape problem_shape(const problem *p, test_operand operand);

/* By the definitions, pair by pair; i and j inside sequence b. */
bool problem_visible(const problem *p, int32_t b, int32_t h, int32_t i, int32_t j);

/* Index of (b, h, i) in lse. */
int64_t problem_lse_index(const problem *p, int32_t b, int32_t h, int32_t i);

/* What a computation of the problem gives; the entries of inputs stay NULL. */
typedef struct results {
    double *values[NUM_OPERANDS];
    /* Of the plain formula: p (|dp| + |delta| + |dlse|), which cancel in dscore, of the steepest pair; and the sum of
     * squares over all pairs. */
    double steepest, steepness_squared;
    /* Of exact results: what rounding out alone does to each gradient; found when a verdict first asks (verdict.c). */
    bool knows_rounded_out;
    double rounded_out[NUM_OPERANDS];
} results;

void results_create(const problem *p, results *r); /* all NaN */
void results_free(results *r);

/* The formula as a textbook has it, in the problem's dtype: every stored intermediate (scores, probabilities, their
 * gradients, outputs) is rounded to it, sums are fp32; backward starts from the stored out and lse. Its error is the
 * measure for backends. */
void plain_formula(const problem *p, bool forward_only, results *r);

#endif
