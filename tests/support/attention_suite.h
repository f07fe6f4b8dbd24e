/* attention_suite.h - a program of tests made of declared cases: every case on every backend in every dtype.
 *
 * Backends are those named in SACCADE_TEST_BACKENDS (separated by commas); by default all but the reference. A
 * backend that cannot be used on this machine, or that refuses a case by its rules, is a skipped test which says why;
 * "cpu" refuses nothing that is declared here. One that computes no gradients is tested forward.
 */
#ifndef TEST_ATTENTION_SUITE_H
#define TEST_ATTENTION_SUITE_H

#include "support/attention_run.h"
#include "support/cmocka_all.h"
#include "support/shard.h"

enum { TEST_MAX_BACKENDS = 16 };

/* Names of the backends to test; NULL-terminated. */
const char *const *test_backends(void);

/* A test of its own, beside the cases: `state` is `const char **`, the backend's name. */
typedef void (*suite_test)(void **state);
typedef struct suite_extra {
    const char *name;
    suite_test test;
} suite_extra;

/* Runs cases x dtypes x backends, then extras x backends. For main to return. */
int attention_suite(const char *name, const attention_case *cases, size_t num_cases,
                    const suite_extra *extras, size_t num_extras, bool forward_only);

/* Skips the running test when this backend cannot serve a plain call here. */
void skip_unless_usable(const char *backend);
/* The backend that a suite_extra runs on; skips it where that is not usable. */
const char *usable_backend(void **state);
/* Of tests about what the host has: also on a GPU. */
const char *usable_host_backend(void **state);

/* Does it serve plain calls in this dtype, with gradients? */
bool backend_takes(const char *backend, sac_dtype dtype, bool training);

/* Runs one problem on the backend with these options and holds it against reference and plain formula. Skips if
 * refused. The last problem's expectation is kept, so that cases x backends costs one of each. */
void attention_verify(const attention_case *c, sac_dtype dtype, const char *backend,
                      const run_options *options);

/* The same without the verdict: the results, or false, and why is printed. */
bool attention_serves(const problem *p, const char *backend, const run_options *options, results *r);
/* Or the test is skipped. */
void attention_results(const problem *p, const char *backend, const run_options *options, results *r);

#endif
