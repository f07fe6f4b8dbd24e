/* shard.c - a program's tests and cases, dealt out among processes. */
#include "support/shard.h"

#include <stdio.h>
#include <stdlib.h>

char test_is_long;

bool test_takes_case(size_t i) {
    const char *shard = getenv("SACCADE_TEST_SHARD");
    size_t index, of;
    return !shard || sscanf(shard, "%zu/%zu", &index, &of) != 2 || of == 0 || i % of == index;
}

size_t test_take_shard(struct CMUnitTest *tests, size_t count) {
    size_t kept = 0, dealt = 0;
    for (size_t i = 0; i < count; i++)
        if (tests[i].initial_state == &test_is_long || test_takes_case(dealt++)) tests[kept++] = tests[i];
    return kept;
}
