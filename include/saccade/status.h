/* saccade/status.h - what every call returns, and the words that go with it. */
#ifndef SACCADE_STATUS_H
#define SACCADE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SACCADE_API __attribute__((visibility("default")))
#else
#define SACCADE_API
#endif

/* One row per status: name, text. */
#define SACCADE_STATUS_TABLE(ROW)                                                                            \
    ROW(SACCADE_OK, "success")                                                                               \
    ROW(SACCADE_INVALID_ARGUMENT, "an argument is wrong whatever the backend")                               \
    ROW(SACCADE_UNSUPPORTED, "no usable backend serves this request")                                        \
    ROW(SACCADE_OUT_OF_MEMORY, "memory could not be had")                                                    \
    ROW(SACCADE_COMPILE_FAILED, "a modifier or kernel did not compile")                                      \
    ROW(SACCADE_DEVICE_ERROR, "the device or its driver reported an error")                                  \
    ROW(SACCADE_IO_ERROR, "a file could not be read or written")

typedef enum saccade_status {
#define SACCADE_STATUS_NAME(name, text) name,
    SACCADE_STATUS_TABLE(SACCADE_STATUS_NAME)
#undef SACCADE_STATUS_NAME
} saccade_status;

/* The text of a status as in the table, for example "an argument is wrong whatever the backend". */
SACCADE_API const char *saccade_status_text(saccade_status status);

/* Why the last call of this thread that failed did so: the argument, what was found, what is allowed. Never NULL; empty
 * before the first failure. Valid until this thread's next call into the library. */
SACCADE_API const char *saccade_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
