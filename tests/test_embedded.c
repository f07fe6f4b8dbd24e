/* test_embedded.c - the texts inside the library are those of the source tree. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/embedded.h"
#include "support/cmocka_all.h"

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

static bool holds(const sac_embedded_file **list, size_t count, const char *path) {
    size_t times = 0;
    for (size_t i = 0; i < count; i++) times += strcmp(list[i]->path, path) == 0;
    if (times > 1) fail_msg("%s is listed %zu times", path, times);
    return times == 1;
}

static void includes_are_followed_and_each_header_is_listed_once(void **state) {
    (void)state;
    const sac_embedded_file **list = calloc(sac_embedded_count, sizeof *list);
    size_t count = 0;
    assert_non_null(list);
    sac_embedded_add_includes(sac_embedded_text("cuda/kernels/attn_bwd_dsink.cu", NULL), list, &count);
    assert_true(holds(list, count, "cuda/kernels/portable_plan.h"));
    assert_true(holds(list, count, "shared/visibility.h")); /* by way of shared/attention_args.h */
    assert_true(holds(list, count, "saccade/aux.h"));       /* in angle brackets */
    assert_false(holds(list, count, "cuda/kernels/ptx/wgmma.h"));
    size_t before = count;
    sac_embedded_add_includes("#include \"shared/types.h\"\n#include <nowhere.h>\n", list, &count);
    assert_int_equal(count, before);
    sac_embedded_add_includes("int a;\n#include \"cuda/kernels/ptx/wgmma.h\"\n", list, &count);
    assert_true(holds(list, count, "cuda/kernels/ptx/wgmma.h"));
    for (size_t i = 0; i < count; i++) holds(list, count, list[i]->path);
    free(list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text_equals_its_source_file),
        cmocka_unit_test(look_up_finds_each_path_and_nothing_else),
        cmocka_unit_test(includes_are_followed_and_each_header_is_listed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
