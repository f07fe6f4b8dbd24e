/* progress.c - the bar is redrawn by a thread of its own, so that it moves while the library computes. */
#include "progress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "command.h"

static const double patience = 0.5; /* seconds before a bar appears */

static struct {
    bool running;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t stop;
    bool stopping;
    const char *what;
    int64_t total;
    _Atomic int64_t done;
    double begin;
} bar = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void draw(void) {
    enum { WIDTH = 32 };
    double elapsed = seconds_now() - bar.begin;
    if (elapsed < patience) return;
    if (!bar.total) {
        fprintf(stderr, "\r\033[K%s  %.1f s", bar.what, elapsed);
        return;
    }
    double part = (double)atomic_load(&bar.done) / (double)bar.total;
    if (part > 1) part = 1;
    char filled[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++) filled[i] = (double)i < part * WIDTH ? '#' : '.';
    filled[WIDTH] = 0;
    fprintf(stderr, "\r\033[K%s  [%s]  %3.0f %%  %.1f s", bar.what, filled, 100 * part, elapsed);
}

static void *tick(void *unused) {
    (void)unused;
    pthread_mutex_lock(&bar.mutex);
    while (!bar.stopping) {
        struct timespec next;
        clock_gettime(CLOCK_MONOTONIC, &next);
        next.tv_nsec += 100 * 1000 * 1000;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&bar.stop, &bar.mutex, &next);
        if (!bar.stopping) draw();
    }
    pthread_mutex_unlock(&bar.mutex);
    return NULL;
}

void progress_begin(const char *what, int64_t total) {
    if (!isatty(STDERR_FILENO)) return;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&bar.stop, &monotonic);
    pthread_condattr_destroy(&monotonic);
    bar.what = what;
    bar.total = total;
    bar.stopping = false;
    bar.begin = seconds_now();
    atomic_store(&bar.done, 0);
    bar.running = pthread_create(&bar.thread, NULL, tick, NULL) == 0;
}

void progress_to(int64_t done) { atomic_store(&bar.done, done); }

void progress_end(void) {
    if (!bar.running) return;
    pthread_mutex_lock(&bar.mutex);
    bar.stopping = true;
    pthread_cond_signal(&bar.stop);
    pthread_mutex_unlock(&bar.mutex);
    pthread_join(bar.thread, NULL);
    pthread_cond_destroy(&bar.stop);
    bar.running = false;
    if (seconds_now() - bar.begin >= patience) fputs("\r\033[K", stderr);
}
