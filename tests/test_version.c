/* test_version.c - the library says the version of its header. */
#include <saccade/version.h>
#include <stdio.h>

#include "support/cmocka_all.h"

static void library_reports_the_version_of_its_header(void **state) {
    (void)state;
    char expected[64];
    snprintf(expected, sizeof expected, "%d.%d.%d", SACCADE_VERSION_MAJOR, SACCADE_VERSION_MINOR,
             SACCADE_VERSION_PATCH);
    assert_string_equal(saccade_version(), expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(library_reports_the_version_of_its_header)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
