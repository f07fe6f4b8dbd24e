/* shared/embedded.c - look-up in the table of embedded texts. */
#include "shared/embedded.h"

#include <stdbool.h>
#include <string.h>

static const sac_embedded_file *find(const char *path, size_t length) {
    for (size_t i = 0; i < sac_embedded_count; i++)
        if (strncmp(sac_embedded_files[i].path, path, length) == 0 && !sac_embedded_files[i].path[length])
            return &sac_embedded_files[i];
    return NULL;
}

const char *sac_embedded_text(const char *path, size_t *size) {
    const sac_embedded_file *file = find(path, strlen(path));
    if (file && size) *size = file->size;
    return file ? file->text : NULL;
}

void sac_embedded_add_includes(const char *text, const sac_embedded_file **list, size_t *count) {
    static const char directive[] = "#include ";
    for (const char *at = text; (at = strstr(at, directive));) {
        at += sizeof directive - 1;
        const sac_embedded_file *file = find(at + 1, strcspn(at + 1, "\">\n"));
        bool known = !file;
        for (size_t i = 0; i < *count && !known; i++) known = list[i] == file;
        if (known) continue;
        list[(*count)++] = file;
        sac_embedded_add_includes(file->text, list, count);
    }
}
