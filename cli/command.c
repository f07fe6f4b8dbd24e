/* command.c - messages, memory and time. */
#include "command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void complain(const char *format, ...) {
    char text[8192];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (((unsigned char)*c < ' ' && *c != '\n') || *c == 127) *c = '?';
    fprintf(stderr, "saccade: %s\n", text);
}

int complain_status(const char *what, saccade_status status) {
    const char *reason = saccade_last_error();
    if (!*reason) reason = saccade_status_text(status);
    if (what)
        complain("%s: %s", what, reason);
    else
        complain("%s", reason);
    switch (status) {
    case SACCADE_INVALID_ARGUMENT:
    case SACCADE_UNSUPPORTED:
    case SACCADE_COMPILE_FAILED:
        return EXIT_USAGE;
    default:
        return EXIT_FAILED;
    }
}

static void *checked(void *pointer, size_t bytes) {
    if (!pointer) {
        complain("out of memory: %zu bytes more were needed", bytes);
        exit(EXIT_FAILED);
    }
    return pointer;
}

void *allocate(size_t bytes) {
    if (bytes > SIZE_MAX - 64) checked(NULL, bytes);
    size_t rounded = (bytes + 64) / 64 * 64;
    return memset(checked(aligned_alloc(64, rounded), bytes), 0, rounded);
}

char *copy_string(const char *text) { return checked(strdup(text), strlen(text) + 1); }

char *format_string(const char *format, ...) {
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return checked(length < 0 ? NULL : text, strlen(format));
}

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
