/* mask_context.h - the context that the tests of block masks share: three threads, nothing kept on disk. */
#ifndef TEST_MASK_CONTEXT_H
#define TEST_MASK_CONTEXT_H

#include <saccade/context.h>

extern saccade_context *ctx;

/* Group fixtures. */
int make_context(void **state);
int end_context(void **state);

/* The call must succeed; else the test fails with the library's words. */
void must(saccade_status status);

#endif
