/* shared/embedded.c - look-up in the table of embedded texts. */
#include "shared/embedded.h"

#include <string.h>

const char *sac_embedded_text(const char *path, size_t *size) {
    for (size_t i = 0; i < sac_embedded_count; i++) {
        const sac_embedded_file *file = &sac_embedded_files[i];
        if (strcmp(file->path, path) == 0) {
            if (size) *size = file->size;
            return file->text;
        }
    }
    return NULL;
}
