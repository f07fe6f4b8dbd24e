/* error.c - the text behind saccade_last_error(): per thread, so that calls need no lock and contexts no pointer. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

/* Refusals list every reason of every backend, so the text may be long. */
static _Thread_local char last_error[8192];

saccade_status sac_fail(saccade_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

const char *saccade_last_error(void) { return last_error; }

const char *saccade_status_text(saccade_status status) {
    static const char *const texts[] = {
#define STATUS_TEXT(name, text) [name] = (text),
        SACCADE_STATUS_TABLE(STATUS_TEXT)
#undef STATUS_TEXT
    };
    size_t count = sizeof texts / sizeof texts[0];
    return (size_t)status < count ? texts[status] : "not a saccade_status";
}
