/* output.h - files that appear whole or not at all. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

typedef struct output_file {
    const char *path;
    char *temporary; /* beside path, so that renaming it is atomic */
    FILE *stream;
} output_file;

/* Opens a temporary beside `path`. False after a message: the folder cannot be written, or path is something
 * other than a file and must not be replaced. */
bool output_begin(output_file *file, const char *path);

/* Renames it to `path` if `good` and everything has reached the disk; removes it otherwise. */
bool output_end(output_file *file, bool good);

/* Can a file be made at `path`? Asked before long work. */
bool output_possible(const char *path);

#endif
