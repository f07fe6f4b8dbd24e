/* bf16_close.h - are results of sums made in another order the same? */
#ifndef TEST_BF16_CLOSE_H
#define TEST_BF16_CLOSE_H

#include <stddef.h>
#include <stdint.h>

/* Fails unless all elements are the same but for the last bit, or, where a sum cancels, for what fp32 leaves of the
 * largest. what, name: whose they are, for the message. */
void test_bf16_close(const char *what, const char *name, const uint16_t *got, const uint16_t *expected,
                     size_t count);

#endif
