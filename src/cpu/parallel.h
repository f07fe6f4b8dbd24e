/* parallel.h - a loop over independent pieces of work on several threads. */
#ifndef SAC_CPU_PARALLEL_H
#define SAC_CPU_PARALLEL_H

#include <stdint.h>

typedef void (*sac_piece_fn)(void *data, int64_t index, int thread);

/* fn(data, i, thread) for every i in [0, count), handed out one by one in ascending order; thread < num_threads. */
void sac_parallel(int num_threads, int64_t count, sac_piece_fn fn, void *data);

#endif
