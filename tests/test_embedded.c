/* test_embedded.c - the texts inside the library are those of the source tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/embedded.h"

/* Reads SACCADE_SOURCE/folder/path, or returns NULL. */
static char *read_source(const char *folder, const char *path, size_t *size) {
    char name[4096];
    snprintf(name, sizeof name, "%s/%s/%s", SACCADE_SOURCE, folder, path);
    FILE *file = fopen(name, "rb");
    if (!file) return NULL;
    char *text = malloc(1 << 20);
    assert_non_null(text);
    *size = fread(text, 1, 1 << 20, file);
    fclose(file);
    return text;
}

static void every_text_equals_its_source_file(void **state) {
    (void)state;
    for (size_t i = 0; i < sac_embedded_count; i++) {
        const sac_embedded_file *embedded = &sac_embedded_files[i];
        size_t size = 0;
        char *text = read_source("src", embedded->path, &size);
        if (!text) text = read_source("include", embedded->path, &size);
        if (!text) fail_msg("no source file for the embedded %s", embedded->path);
        if (size != embedded->size || memcmp(text, embedded->text, size) != 0)
            fail_msg("%s differs from its source", embedded->path);
        assert_int_equal(embedded->text[size], '\0');
        free(text);
    }
}

static void look_up_finds_each_path_and_nothing_else(void **state) {
    (void)state;
    for (size_t i = 0; i < sac_embedded_count; i++) {
        size_t size = 0;
        assert_ptr_equal(sac_embedded_text(sac_embedded_files[i].path, &size), sac_embedded_files[i].text);
        assert_int_equal(size, sac_embedded_files[i].size);
    }
    assert_non_null(sac_embedded_text("saccade/aux.h", NULL));
    assert_null(sac_embedded_text("aux.h", NULL));
    assert_null(sac_embedded_text("", NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text_equals_its_source_file),
        cmocka_unit_test(look_up_finds_each_path_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
