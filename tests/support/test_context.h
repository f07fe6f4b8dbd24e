/* test_context.h - one context for all tests of a program: three threads, and the disk cache that the environment
 * names. */
#ifndef TEST_CONTEXT_H
#define TEST_CONTEXT_H

#include <saccade/context.h>

extern saccade_context *ctx;

/* Group fixtures. */
int make_context(void **state);
int end_context(void **state);

/* The call must succeed; else the test fails with the library's words. */
void must(saccade_status status);

#endif
