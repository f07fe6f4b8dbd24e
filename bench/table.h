/* table.h - what every bench prints beside its figures: where and when they were taken; and the order of times. */
#ifndef SACCADE_BENCH_TABLE_H
#define SACCADE_BENCH_TABLE_H

#include <stdio.h>
#include <sys/utsname.h>
#include <time.h>

/* For qsort. */
static inline int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Processor, system, threads and date, above the table. */
static inline void print_machine(int threads) {
    char line[256], processor[256] = "unknown processor", date[32];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "model name : %255[^\n]", processor) == 1) break;
    if (file) fclose(file);
    struct utsname system;
    uname(&system);
    time_t t = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&t));
    printf("%s, %s %s, %d threads, %s\n\n", processor, system.sysname, system.machine, threads, date);
}

#endif
