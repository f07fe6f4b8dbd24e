/* saccade/version.h - which release this is. The header's numbers are those of the build; saccade_version()
 * tells which library the program runs with. */
#ifndef SACCADE_VERSION_H
#define SACCADE_VERSION_H

#include <saccade/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SACCADE_VERSION_MAJOR 0
#define SACCADE_VERSION_MINOR 1
#define SACCADE_VERSION_PATCH 0

/* "major.minor.patch" of the library in use. */
SACCADE_API const char *saccade_version(void);

#ifdef __cplusplus
}
#endif
#endif
