/* backend.c - the words of a refusal. */
#include "base/backend.h"

#include <stdarg.h>
#include <stdio.h>

bool sac_reason(char *text, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, size, format, arguments);
    va_end(arguments);
    return true;
}
