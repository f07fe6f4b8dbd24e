/* command_run.c - a shell, two files and a folder. */
#include "support/command_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dtype.h"
#include "support/cmocka_all.h"

char folder[] = "/tmp/saccade-command-XXXXXX";
char out_text[1 << 16], err_text[1 << 14];

bool make_folder(void) {
    setenv("LSAN_OPTIONS", "suppressions=" SACCADE_SOURCE "/tests/support/leaks.supp:print_suppressions=0",
           0);
    return mkdtemp(folder) != NULL;
}

int remove_folder(void) {
    char line[64];
    snprintf(line, sizeof line, "rm -r %s", folder);
    return system(line);
}

void read_text(const char *name, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "r");
    assert_non_null(stream);
    text[fread(text, 1, size - 1, stream)] = 0;
    fclose(stream);
}

int run(const char *arguments) {
    char line[2048];
    snprintf(line, sizeof line, "cd %s && %s %s >stdout 2>stderr </dev/null", folder, SACCADE_COMMAND,
             arguments);
    int status = system(line);
    read_text("stdout", out_text, sizeof out_text);
    read_text("stderr", err_text, sizeof err_text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void succeeds(const char *arguments) {
    int code = run(arguments);
    if (code) fail_msg("saccade %s\nexit status %d\n%s%s", arguments, code, out_text, err_text);
}

void fails(const char *arguments, int expected, const char *words) {
    int code = run(arguments);
    if (code != expected || !strstr(err_text, words) || *out_text)
        fail_msg("saccade %s\nexit status %d, must be %d, with \"%s\"\n%s%s", arguments, code, expected,
                 words, out_text, err_text);
}

bool exists(const char *name) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &status) == 0;
}

safetensors_file *opened(const char *name) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    safetensors_file *file = safetensors_open(path);
    assert_non_null(file);
    return file;
}

double element(const safetensors_file *file, const char *name, size_t index) {
    DLTensor *t = safetensors_find(file, name);
    if (!t) fail_msg("there is no %s", name);
    return dtype_value(t->dtype, t->data, index);
}
