/* parallel.c - OpenMP, in one place. */
#include "cpu/parallel.h"

#include <omp.h>

void sac_parallel(int num_threads, int64_t count, sac_piece_fn fn, void *data) {
    if (count < num_threads) num_threads = (int)count;
    if (num_threads <= 1) {
        for (int64_t i = 0; i < count; i++) fn(data, i, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(num_threads)
    for (int64_t i = 0; i < count; i++) fn(data, i, omp_get_thread_num());
}
