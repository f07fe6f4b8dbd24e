/* file_cache.c - sealed files: written beside their place and renamed into it, believed only if the seal fits. */
#include "base/file_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* At the end of each file. The magic changes with the format. */
typedef struct seal {
    char magic[8];
    uint64_t size;
    XXH128_hash_t hash;
} seal;

static const char magic[8] = "saccade1";

struct sac_file_key {
    XXH3_state_t *state;
};

sac_file_key *sac_file_key_new(void) {
    sac_file_key *key = malloc(sizeof *key);
    if (!key) return NULL;
    key->state = XXH3_createState();
    if (!key->state) {
        free(key);
        return NULL;
    }
    XXH3_128bits_reset(key->state);
    return key;
}

void sac_file_key_add(sac_file_key *key, const char *text) {
    if (!key) return;
    uint64_t size = strlen(text);
    XXH3_128bits_update(key->state, &size, sizeof size);
    XXH3_128bits_update(key->state, text, size);
}

bool sac_file_key_finish(sac_file_key *key, char text[SAC_FILE_KEY_SIZE]) {
    *text = '\0';
    if (!key) return false;
    XXH128_hash_t hash = XXH3_128bits_digest(key->state);
    snprintf(text, SAC_FILE_KEY_SIZE, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    XXH3_freeState(key->state);
    free(key);
    return true;
}

char *sac_file_cache_path(const char *dir, const char *name) {
    char *path = NULL;
    return dir && asprintf(&path, "%s/%s", dir, name) >= 0 ? path : NULL;
}

static bool read_all(int fd, char *data, size_t size) {
    while (size > 0) {
        ssize_t n = read(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n, size -= (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n, size -= (size_t)n;
    }
    return true;
}

static bool sealed(const char *data, size_t payload_size) {
    seal s;
    memcpy(&s, data + payload_size, sizeof s);
    return memcmp(s.magic, magic, sizeof magic) == 0 && s.size == payload_size &&
           XXH128_isEqual(s.hash, XXH3_128bits(data, payload_size));
}

void *sac_file_cache_read(const char *dir, const char *name, size_t *size) {
    char *path = sac_file_cache_path(dir, name), *data = NULL;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    free(path);
    if (fd < 0) return NULL;

    struct stat st;
    bool whole = false;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size > sizeof(seal)) {
        *size = (size_t)st.st_size - sizeof(seal);
        data = malloc((size_t)st.st_size);
        whole = data && read_all(fd, data, (size_t)st.st_size) && sealed(data, *size);
    }
    if (whole)
        futimens(fd, (struct timespec[]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}}); /* used now */
    close(fd);
    if (whole) return data;
    free(data);
    return NULL;
}

bool sac_file_cache_holds(const char *dir, const char *name) {
    char *path = sac_file_cache_path(dir, name);
    bool holds = path && access(path, R_OK) == 0;
    free(path);
    return holds;
}

/* mkdir -p, readable by its owner only: compiled code is run. */
static void make_folder(const char *dir) {
    char *path = strdup(dir);
    if (!path) return;
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        mkdir(path, 0777);
        *p = '/';
    }
    mkdir(path, 0700);
    free(path);
}

void sac_file_cache_write(const char *dir, const char *name, const void *data, size_t size) {
    if (!dir) return;
    make_folder(dir);
    char *path = sac_file_cache_path(dir, name), *temporary = sac_file_cache_path(dir, ".new-XXXXXX");
    int fd = path && temporary ? mkostemp(temporary, O_CLOEXEC) : -1;
    if (fd >= 0) {
        seal s = {.size = size, .hash = XXH3_128bits(data, size)};
        memcpy(s.magic, magic, sizeof magic);
        bool written = write_all(fd, data, size) && write_all(fd, (const char *)&s, sizeof s);
        written = close(fd) == 0 && written;
        if (!written || rename(temporary, path) != 0) unlink(temporary);
        sac_file_cache_trim(dir, SAC_FILE_CACHE_BYTES);
    }
    free(temporary);
    free(path);
}

typedef struct cached_file {
    char name[256];
    struct timespec used;
    size_t bytes;
} cached_file;

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const cached_file *)a)->used, *y = &((const cached_file *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* Every regular file of the folder, forgotten temporaries too; *total is their sum. */
static cached_file *list_files(DIR *folder, size_t *count, size_t *total) {
    cached_file *files = NULL;
    size_t room = 0;
    *count = *total = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat st;
        if (fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (*count == room) {
            cached_file *more = realloc(files, (room = room ? 2 * room : 64) * sizeof *files);
            if (!more) break;
            files = more;
        }
        cached_file *file = &files[(*count)++];
        snprintf(file->name, sizeof file->name, "%s", entry->d_name);
        file->used = st.st_mtim;
        file->bytes = (size_t)st.st_size;
        *total += file->bytes;
    }
    return files;
}

void sac_file_cache_trim(const char *dir, size_t bytes) {
    DIR *folder = dir ? opendir(dir) : NULL;
    if (!folder) return;
    size_t count, total;
    cached_file *files = list_files(folder, &count, &total);
    if (total > bytes) qsort(files, count, sizeof *files, by_use);
    for (size_t i = 0; i < count && total > bytes; i++) {
        unlinkat(dirfd(folder), files[i].name, 0);
        total -= files[i].bytes;
    }
    free(files);
    closedir(folder);
}
