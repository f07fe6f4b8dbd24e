/* test_context.h - one context for all tests of a program: three threads, and the disk cache that the environment
 * names. */
#ifndef TEST_CONTEXT_H
#define TEST_CONTEXT_H

#include <saccade/modifier.h>

extern saccade_context *ctx;

/* Fixtures; of the first two, the second leaves nothing on the disk. */
int make_context(void **state);
int make_context_without_cache(void **state);
int end_context(void **state);

/* The call must succeed; else the test fails with the library's words. */
void must(saccade_status status);

/* The call must fail with this status, or with INVALID_ARGUMENT, in these words among others. */
void assert_refused(saccade_status found, saccade_status wanted, const char *words);
void assert_invalid(saccade_status found, const char *words);

/* A modifier that must be accepted. */
saccade_modifier *made(const saccade_modifier_params *params);

#endif
