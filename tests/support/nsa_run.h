/* nsa_run.h - a native sparse attention problem through the public interface, and the verdict on its results. */
#ifndef TEST_NSA_RUN_H
#define TEST_NSA_RUN_H

#include "support/nsa_truth.h"

/* Zero is the default. */
typedef struct nsa_run_options {
    bool forward_only;
    bool out_only; /* forward: saves nothing for a backward */
    int32_t num_threads;
} nsa_run_options;

/* Runs forward, and unless forward_only backward, on poisoned outputs with a poisoned workspace of exactly the size
 * asked for. Checks that nothing but the results was written. Fails the test on any error. */
void nsa_run(const nsa_problem *p, const nsa_run_options *options, nsa_results *r);

typedef enum nsa_stage { NSA_COMPRESS, NSA_SCORE_BLOCKS, NSA_SELECT, NSA_GATE } nsa_stage;

/* Runs one stage by itself. What it reads comes from r (k_cmp), or from branch_out (the gate: three outputs); what it
 * writes goes there. */
void nsa_run_stage(const nsa_problem *p, nsa_stage stage, double *const branch_out[3], nsa_results *r);

/* A call of p, whose tensors and params the test may bend before it makes it. */
typedef struct nsa_session {
    const nsa_problem *p;
    saccade_context *ctx;
    test_tensor tensor[NSA_NUM_OPERANDS];
    saccade_nsa_tensors t;
    saccade_nsa_grads grads;
    saccade_nsa_params params;
} nsa_session;
nsa_session *nsa_session_create(const nsa_problem *p, int32_t num_threads);
void nsa_session_free(nsa_session *s);

/* What both passes have written; not scores, which have a call of their own. */
void nsa_session_read(nsa_session *s, nsa_results *r);

/* Memory where the tensors are, full of NaN, between guards that must still be so in the end. */
void *nsa_workspace_create(size_t bytes);
void nsa_workspace_free(const char *name, void *workspace, size_t bytes);

/* Fails unless every error is at most twice that of the plain formula, plus 1e-5 of the tensor's largest, plus, for
 * gradients, 1e-6 of the largest term that may have cancelled. */
void nsa_check(const nsa_problem *p, nsa_operand operand, const double *got, const nsa_results *exact,
               const nsa_results *plain);

/* Fails unless an operand has the same bits in both; how: what distinguishes the call that got it. */
void nsa_check_same_bits(const nsa_problem *p, nsa_operand operand, const nsa_results *got,
                         const nsa_results *want, const char *how);

/* The largest magnitude among the finite ones. */
double nsa_largest(const double *values, int64_t count);

/* Fails unless scores are the exact ones up to fp32 sums: 1e-5 of the largest. */
void nsa_check_scores(const nsa_problem *p, const double *got, const double *want);

/* Fails unless the chosen blocks are exactly those that these scores choose: for scores of the library's own, so that
 * even their last bit decides. */
void nsa_check_selection(const nsa_problem *p, const double *scores, const double *indices);

/* Fails unless the chosen blocks are, by these scores, a choice that the definition allows: exact, but for scores that
 * differ by less than fp32 sums can tell. */
void nsa_check_choice(const nsa_problem *p, const double *scores, const double *indices);

/* Runs the case and judges everything it gives. */
void nsa_verify(const nsa_case *declared, sac_dtype dtype, bool backward);

#endif
