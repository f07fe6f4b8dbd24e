/* shared/embedded.h - the texts that travel inside the library for the run-time compilers: device code, and
 * the headers that host and device share. The build makes the table (cmake/embed.cmake). */
#ifndef SAC_SHARED_EMBEDDED_H
#define SAC_SHARED_EMBEDDED_H

#include <stddef.h>

typedef struct sac_embedded_file {
    const char *path; /* as written in an #include: "saccade/aux.h", "shared/tile_walk.h",
                         "cuda/kernels/ptx/fence.h" */
    const char *text; /* NUL-terminated */
    size_t size;      /* bytes, without the NUL */
} sac_embedded_file;

extern const sac_embedded_file sac_embedded_files[];
extern const size_t sac_embedded_count;

/* The text at this path, or NULL where there is none. size may be NULL. */
const char *sac_embedded_text(const char *path, size_t *size);

/* Adds to the list every embedded header that the text includes, and those that they include, each once, in the order
 * in which they are met; conditions do not count. *count: how many the list holds; it has room for all. */
void sac_embedded_add_includes(const char *text, const sac_embedded_file **list, size_t *count);

#endif
