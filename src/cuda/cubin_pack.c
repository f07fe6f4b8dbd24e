/* cubin_pack.c - a header, an index sorted by key, the cubins. Numbers are the machine's own: a pack is not moved. */
#include "cuda/cubin_pack.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { KEY_DIGITS = 32 };

typedef struct pack_header {
    char magic[8];
    uint64_t file_bytes, count;
    uint64_t index_hash;
} pack_header;

typedef struct pack_entry {
    char key[KEY_DIGITS];
    uint64_t offset, size; /* in the file */
    uint64_t hash;
} pack_entry;

static const char magic[8] = "cubins 1"; /* changes with the format */

struct sac_cubin_pack {
    const char *data;
    size_t bytes;
    const pack_entry *index;
    size_t count;
};

/* ---- reading ---- */

/* Why these bytes are no pack; NULL: they are one. */
static const char *defect_of(const char *data, size_t bytes) {
    pack_header header;
    if (bytes < sizeof header) return "truncated";
    memcpy(&header, data, sizeof header);
    if (memcmp(header.magic, magic, sizeof magic) != 0) return "not a pack of this format";
    if (header.file_bytes != bytes) return "truncated";
    if (header.count > (bytes - sizeof header) / sizeof(pack_entry)) return "damaged";
    return header.index_hash == XXH3_64bits(data + sizeof header, header.count * sizeof(pack_entry))
               ? NULL
               : "damaged";
}

/* The file in memory, or NULL. */
static const char *map_file(const char *path, size_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *data = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *bytes = (size_t)st.st_size;
        data = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, fd, 0); /* an empty file has no mapping */
    }
    if (fd >= 0) close(fd);
    return data == MAP_FAILED ? NULL : data;
}

sac_cubin_pack *sac_cubin_pack_open(const char *path, char *words, size_t size) {
    size_t bytes;
    const char *data = map_file(path, &bytes), *defect = data ? defect_of(data, bytes) : NULL;
    sac_cubin_pack *pack = data && !defect ? malloc(sizeof *pack) : NULL;
    if (!data)
        snprintf(words, size, "kernels are compiled when first used, there is no %s", path);
    else if (defect)
        snprintf(words, size, "%s ignored: %s", path, defect);
    else if (!pack)
        snprintf(words, size, "%s ignored: out of memory", path);
    if (!pack) {
        if (data) munmap((void *)(uintptr_t)data, bytes);
        return NULL;
    }
    pack_header header;
    memcpy(&header, data, sizeof header);
    *pack = (sac_cubin_pack){data, bytes, (const pack_entry *)(data + sizeof header), header.count};
    snprintf(words, size, "%zu kernels in %s", pack->count, path);
    return pack;
}

void sac_cubin_pack_close(sac_cubin_pack *pack) {
    if (pack) munmap((void *)(uintptr_t)pack->data, pack->bytes);
    free(pack);
}

static int compare_entry(const void *key, const void *entry) {
    return memcmp(key, ((const pack_entry *)entry)->key, KEY_DIGITS);
}

const void *sac_cubin_pack_find(const sac_cubin_pack *pack, const char *key, size_t *size) {
    const pack_entry *entry = NULL;
    if (pack && strlen(key) == KEY_DIGITS)
        entry = bsearch(key, pack->index, pack->count, sizeof *pack->index, compare_entry);
    if (!entry || entry->offset > pack->bytes || entry->size > pack->bytes - entry->offset) return NULL;
    const char *cubin = pack->data + entry->offset;
    if (entry->hash != XXH3_64bits(cubin, entry->size)) return NULL;
    *size = entry->size;
    return cubin;
}

/* ---- the library's own ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static sac_cubin_pack *of_library;
static char words_of_library[4400] = "kernels are compiled when first used";

static void open_pack_of_library(void) {
    Dl_info info;
    char path[4096];
    if (!dladdr(&once, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');
    int folder = slash ? (int)(slash - info.dli_fname + 1) : 0;
    if (snprintf(path, sizeof path, "%.*s" SAC_CUBIN_PACK_NAME, folder, info.dli_fname) < (int)sizeof path)
        of_library = sac_cubin_pack_open(path, words_of_library, sizeof words_of_library);
}

const sac_cubin_pack *sac_cubin_pack_of_library(void) {
    pthread_once(&once, open_pack_of_library);
    return of_library;
}

const char *sac_cubin_pack_words(void) {
    sac_cubin_pack_of_library();
    return words_of_library;
}

/* ---- writing ---- */

static int compare_cubins(const void *a, const void *b) {
    return memcmp(((const sac_packed_cubin *)a)->key, ((const sac_packed_cubin *)b)->key, KEY_DIGITS);
}

/* Sorted, and each key once. Returns how many are left. */
static size_t sort_cubins(sac_packed_cubin *cubins, size_t count) {
    size_t kept = 0;
    if (count > 0) qsort(cubins, count, sizeof *cubins, compare_cubins);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || compare_cubins(&cubins[kept - 1], &cubins[i]) != 0) cubins[kept++] = cubins[i];
    return kept;
}

static bool write_pack(FILE *file, const sac_packed_cubin *cubins, size_t count) {
    pack_entry *index = calloc(count + 1, sizeof *index);
    pack_header header = {.count = count};
    if (!index) return false;
    uint64_t offset = sizeof header + count * sizeof *index;
    for (size_t i = 0; i < count; i++) {
        memcpy(index[i].key, cubins[i].key, KEY_DIGITS);
        index[i].offset = offset;
        index[i].size = cubins[i].size;
        index[i].hash = XXH3_64bits(cubins[i].cubin, cubins[i].size);
        offset += cubins[i].size;
    }
    memcpy(header.magic, magic, sizeof magic);
    header.file_bytes = offset;
    header.index_hash = XXH3_64bits(index, count * sizeof *index);
    bool written = fwrite(&header, sizeof header, 1, file) == 1 &&
                   (count == 0 || fwrite(index, sizeof *index, count, file) == count);
    for (size_t i = 0; i < count && written; i++)
        written = fwrite(cubins[i].cubin, cubins[i].size, 1, file) == 1;
    free(index);
    return written;
}

saccade_status sac_cubin_pack_write(const char *path, sac_packed_cubin *cubins, size_t count) {
    char *temporary;
    if (asprintf(&temporary, "%s.new", path) < 0)
        return sac_fail(SACCADE_OUT_OF_MEMORY, "%s: no memory for its name", path);
    FILE *file = fopen(temporary, "wb");
    bool written = file && write_pack(file, cubins, sort_cubins(cubins, count));
    if (file) written = fclose(file) == 0 && written;
    written = written && rename(temporary, path) == 0;
    if (!written) unlink(temporary);
    free(temporary);
    return written ? SACCADE_OK : sac_fail(SACCADE_IO_ERROR, "%s cannot be written", path);
}
