/* attention_run.h - a problem on a backend, through the public interface, and the verdict on its results. */
#ifndef TEST_ATTENTION_RUN_H
#define TEST_ATTENTION_RUN_H

#include "support/problem.h"

/* How to run it; zero is the default. */
typedef struct run_options {
    bool forward_only;
    test_layout layout;  /* of every tensor shaped (B, N, H, D) */
    int32_t num_threads; /* 0: as many as there are */
    const char *isa;     /* NULL: the best */
    int32_t replays;  /* 0: calls are made; else captured in a graph, which is replayed so often (on a GPU) */
    unsigned without; /* bit per test_operand: results that are not asked for, and stay NaN */
} run_options;

/* Runs forward, and unless forward_only backward, on poisoned outputs with a poisoned workspace of exactly the size
 * asked for. Checks that nothing but the results was written. Returns SACCADE_UNSUPPORTED, with nothing written,
 * when the backend refuses; fails the test on any other error. */
saccade_status attention_run(const problem *p, const char *backend, sac_dtype dtype,
                             const run_options *options, results *r);

/* Fails unless every error against `exact` is at most twice that of `plain` (of gradients also: of an exact backward
 * pass that starts from a rounded out; of what is stored in the dtype: that of storing the largest),
 * plus 1e-5 of the tensor's largest, plus, for gradients, 1e-6 of the terms that may have cancelled and what fp32 leaves
 * open of the largest lse. */
void results_check(const problem *p, const char *backend, const results *got, results *exact,
                   const results *plain, bool forward_only);

/* Fails unless a and b are the same bit for bit. */
void results_same(const problem *p, const char *what, const results *a, const results *b, bool forward_only);

#endif
