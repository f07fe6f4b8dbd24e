/* api/version.c - the version as text. */
#include <saccade/version.h>

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

const char *saccade_version(void) {
    return TEXT(SACCADE_VERSION_MAJOR) "." TEXT(SACCADE_VERSION_MINOR) "." TEXT(SACCADE_VERSION_PATCH);
}
