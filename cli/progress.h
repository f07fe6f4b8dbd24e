/* progress.h - a bar on stderr while something long runs; nothing where stderr is no terminal. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdint.h>

/* One bar at a time. total 0: only the time is shown, for a single call that does not say how far it is. */
void progress_begin(const char *what, int64_t total);
void progress_to(int64_t done); /* from any thread */
void progress_end(void);        /* wipes the line */

#endif
