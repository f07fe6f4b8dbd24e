/* cmocka_all.h - cmocka with what it wants included before it, and what every test wants of it. */
#ifndef TEST_CMOCKA_ALL_H
#define TEST_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Ends the running test as skipped, and says why: a format, which is a literal, and what belongs to it. */
#define skip_because(...) (print_message("skipped: " __VA_ARGS__), print_message("\n"), skip())

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
