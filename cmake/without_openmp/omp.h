/* omp.h - what a build without OpenMP (SACCADE_OPENMP) has in its place: one thread. */
#ifndef SACCADE_OMP_H
#define SACCADE_OMP_H

typedef enum omp_pause_resource_t { omp_pause_soft = 1 } omp_pause_resource_t;

static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_pause_resource_all(omp_pause_resource_t kind) { return kind != omp_pause_soft; }

#endif
