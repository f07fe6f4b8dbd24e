/* output.c - files that appear whole or not at all. */
#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

/* mkstemp gives 0600; the file gets what open would have given it, or what the one it replaces has. */
static mode_t wanted_mode(const struct stat *replaced) {
    if (replaced) return replaced->st_mode & 0777;
    mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

bool output_begin(output_file *file, const char *path) {
    *file = (output_file){.path = path};
    struct stat status;
    bool exists = stat(path, &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
        complain("%s: exists and is no regular file", path);
        return false;
    }
    file->temporary = format_string("%s.XXXXXX", path);
    int descriptor = mkstemp(file->temporary);
    if (descriptor >= 0 && fchmod(descriptor, wanted_mode(exists ? &status : NULL)) == 0)
        file->stream = fdopen(descriptor, "wb");
    if (file->stream) return true;
    complain("%s: %s", path, strerror(errno));
    if (descriptor >= 0) {
        close(descriptor);
        unlink(file->temporary);
    }
    free(file->temporary);
    return false;
}

bool output_end(output_file *file, bool good) {
    int error = good ? 0 : errno;
    if (good && (fflush(file->stream) || fsync(fileno(file->stream)))) error = errno;
    if (fclose(file->stream) && !error) error = errno;
    if (good && !error && rename(file->temporary, file->path)) error = errno;
    bool done = good && !error;
    if (!done) {
        complain("%s: could not be written: %s", file->path, error ? strerror(error) : "unknown reason");
        unlink(file->temporary);
    }
    free(file->temporary);
    return done;
}

bool output_possible(const char *path) {
    output_file file;
    if (!output_begin(&file, path)) return false;
    fclose(file.stream);
    unlink(file.temporary);
    free(file.temporary);
    return true;
}
