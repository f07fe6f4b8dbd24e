/* test_file_cache.c - compiled code on disk: whole or absent, whatever happened to the file or the folder. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file_cache.h"
#include "support/cmocka_all.h"

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/saccade-cache-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    chmod(dir, 0700);
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

/* The payload named "a", or "" when it is not there. */
static const char *content(void) {
    static char text[64];
    size_t size;
    char *data = sac_file_cache_read(dir, "a", &size);
    snprintf(text, sizeof text, "%.*s", data ? (int)size : 0, data ? data : "");
    free(data);
    return text;
}

static void what_was_written_is_read(void **state) {
    (void)state;
    assert_string_equal(content(), "");
    sac_file_cache_write(dir, "a", "payload", 7);
    assert_string_equal(content(), "payload");
    sac_file_cache_write(dir, "a", "another", 7);
    assert_string_equal(content(), "another");
}

static void damaged_file_is_not_there(void **state) {
    (void)state;
    char *path = sac_file_cache_path(dir, "a");
    sac_file_cache_write(dir, "a", "payload", 7);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size--) {
        assert_int_equal(truncate(path, size), 0);
        assert_string_equal(content(), "");
    }
    for (off_t at = 0; at < st.st_size; at++) {
        sac_file_cache_write(dir, "a", "payload", 7);
        int fd = open(path, O_RDWR);
        char byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x40;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        if (*content()) fail_msg("byte %d changed, and still the file is believed", (int)at);
    }
    free(path);
}

static void absent_folder_is_made_and_impossible_folder_is_no_error(void **state) {
    (void)state;
    char below[128];
    snprintf(below, sizeof below, "%s/x/y", dir);
    size_t size;
    sac_file_cache_write(below, "a", "payload", 7);
    char *data = sac_file_cache_read(below, "a", &size);
    assert_non_null(data);
    free(data);
    snprintf(below, sizeof below, "%s/x/y/a/z", dir); /* a is a file */
    sac_file_cache_write(below, "a", "payload", 7);
    assert_null(sac_file_cache_read(below, "a", &size));
    sac_file_cache_write(NULL, "a", "payload", 7);
    assert_null(sac_file_cache_read(NULL, "a", &size));
}

static void eight_processes_write_one_name(void **state) {
    (void)state;
    enum { PROCESSES = 8, ROUNDS = 50, SIZE = 100000 };
    char *payload = malloc(SIZE);
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() != 0) continue;
        memset(payload, 'a' + p, SIZE);
        int bad = 0;
        for (int round = 0; round < ROUNDS; round++) {
            sac_file_cache_write(dir, "a", payload, SIZE);
            size_t size = 0;
            char *data = sac_file_cache_read(dir, "a", &size);
            bad += !data || size != SIZE || data[0] != data[SIZE - 1];
            free(data);
        }
        _exit(bad != 0);
    }
    free(payload);
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}

static void longest_unused_files_go_first(void **state) {
    (void)state;
    char payload[1000] = "";
    const char *names[] = {"old", "older", "new"};
    for (int i = 0; i < 3; i++) {
        sac_file_cache_write(dir, names[i], payload, sizeof payload);
        char *path = sac_file_cache_path(dir, names[i]);
        time_t used = i == 0 ? 2000 : i == 1 ? 1000 : 3000;
        assert_int_equal(
            utimensat(AT_FDCWD, path, (struct timespec[]){{.tv_sec = used}, {.tv_sec = used}}, 0), 0);
        free(path);
    }
    size_t size;
    free(sac_file_cache_read(dir, "old", &size)); /* used now */
    sac_file_cache_trim(dir, 1500);
    assert_null(sac_file_cache_read(dir, "older", &size));
    assert_null(sac_file_cache_read(dir, "new", &size));
    void *kept = sac_file_cache_read(dir, "old", &size);
    assert_non_null(kept);
    free(kept);
}

static void key_depends_on_where_texts_end(void **state) {
    (void)state;
    const char *texts[][2] = {{"ab", "c"}, {"a", "bc"}, {"abc", ""}};
    char keys[3][SAC_FILE_KEY_SIZE];
    for (int i = 0; i < 3; i++) {
        sac_file_key *key = sac_file_key_new();
        sac_file_key_add(key, texts[i][0]);
        sac_file_key_add(key, texts[i][1]);
        assert_true(sac_file_key_finish(key, keys[i]));
        assert_int_equal(strlen(keys[i]), SAC_FILE_KEY_SIZE - 1);
    }
    assert_string_not_equal(keys[0], keys[1]);
    assert_string_not_equal(keys[0], keys[2]);
    assert_string_not_equal(keys[1], keys[2]);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(what_was_written_is_read),
        TEST(damaged_file_is_not_there),
        TEST(absent_folder_is_made_and_impossible_folder_is_no_error),
        TEST(eight_processes_write_one_name),
        TEST(longest_unused_files_go_first),
        TEST(key_depends_on_where_texts_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
