/* error.h - how the library reports a failure: a status, and words for saccade_last_error(). */
#ifndef SAC_ERROR_H
#define SAC_ERROR_H

#include <saccade/status.h>

/* Records the text (this thread's) and returns status: `return sac_fail(SACCADE_INVALID_ARGUMENT, "k: ...")`. */
saccade_status sac_fail(saccade_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
