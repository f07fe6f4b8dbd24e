/* error.h - how the library reports a failure: a status, and words for saccade_last_error(). */
#ifndef SAC_ERROR_H
#define SAC_ERROR_H

#include <saccade/status.h>

/* Records the text (this thread's) and returns status: `return sac_fail(SACCADE_INVALID_ARGUMENT, "k: ...")`. */
saccade_status sac_fail(saccade_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Leaves the function with the status of a call that failed, its words already recorded. */
#define SAC_TRY(expression)                                                                                  \
    do {                                                                                                     \
        saccade_status status_ = (expression);                                                               \
        if (status_ != SACCADE_OK) return status_;                                                           \
    } while (0)

#endif
