/* test_pages.c - what a page of docs/ shows is what its example program says and prints: each block of C stands in
 * the program, each block of text in its output; and that the other examples find what they say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/cmocka_all.h"

/* All that a stream gives, without the blanks that begin its lines: quotations are indented as they like. */
static char *read_unindented(FILE *in) {
    char *text = NULL, *line = NULL;
    size_t size, room = 0;
    assert_non_null(in);
    FILE *out = open_memstream(&text, &size);
    while (getline(&line, &room, in) > 0) fputs(line + strspn(line, " \t"), out);
    free(line);
    fclose(out);
    return text;
}

static char *read_file(const char *folder, const char *name, const char *end) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/%s%s", SACCADE_SOURCE, folder, name, end);
    FILE *in = fopen(path, "r");
    if (!in) fail_msg("%s cannot be read", path);
    char *text = read_unindented(in);
    fclose(in);
    return text;
}

static char *run_example(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "'%s/%s'", SACCADE_EXAMPLES, name);
    FILE *in = popen(path, "r");
    char *text = read_unindented(in);
    assert_int_equal(pclose(in), 0);
    return text;
}

/* Each block fenced as ```language must occur in `whole`. Returns how many there were. */
static int check_blocks(const char *page, const char *language, const char *whole, const char *what) {
    char fence[32];
    snprintf(fence, sizeof fence, "```%s\n", language);
    int count = 0;
    for (const char *begin = page; (begin = strstr(begin, fence)); count++) {
        begin += strlen(fence);
        const char *end = strstr(begin, "```");
        assert_non_null(end);
        char *block = strndup(begin, (size_t)(end - begin));
        if (!strstr(whole, block)) fail_msg("this block is not in %s:\n%s", what, block);
        free(block);
        begin = end + 3;
    }
    return count;
}

static void check_page(const char *name) {
    char *page = read_file("docs", name, ".md"), *source = read_file("examples", name, ".c");
    char *output = run_example(name);
    assert_true(check_blocks(page, "c", source, "the example") > 0);
    assert_true(check_blocks(page, "text", output, "what the example prints") > 0);
    free(page);
    free(source);
    free(output);
}

static void modifiers_page_shows_what_its_example_does(void **state) {
    (void)state;
    check_page("modifiers");
}

static void block_masks_page_shows_what_its_example_does(void **state) {
    (void)state;
    check_page("block_masks");
}

static void decoding_over_a_cache_is_the_causal_call(void **state) {
    (void)state;
    free(run_example("decode"));
}

static void a_captured_step_of_decoding_is_the_hosts(void **state) {
    (void)state;
    if (access(SACCADE_EXAMPLES "/gpu", X_OK) != 0 || access("/dev/nvidiactl", R_OK) != 0) {
        skip_because("no CUDA toolkit when this was built, or no GPU here");
    }
    free(run_example("gpu"));
}

static void a_gate_learns_from_its_gradient(void **state) {
    (void)state;
    free(run_example("nsa"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_over_a_cache_is_the_causal_call),
        cmocka_unit_test(a_captured_step_of_decoding_is_the_hosts),
        cmocka_unit_test(a_gate_learns_from_its_gradient),
        cmocka_unit_test(modifiers_page_shows_what_its_example_does),
        cmocka_unit_test(block_masks_page_shows_what_its_example_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
