/* shard.h - one program shared by several processes: with SACCADE_TEST_SHARD=2/8 a process does every eighth part of
 * it, that of index 2 first. */
#ifndef TEST_SHARD_H
#define TEST_SHARD_H

#include <stdbool.h>
#include <stddef.h>

#include "support/cmocka_all.h"

/* A test that every process runs, each with its share of the cases: its loop asks test_takes_case. */
#define long_test(test) cmocka_unit_test_prestate(test, &test_is_long)
extern char test_is_long;
bool test_takes_case(size_t i);

/* Keeps long tests, and of the others this process's share; gives their number. */
size_t test_take_shard(struct CMUnitTest *tests, size_t count);

#endif
