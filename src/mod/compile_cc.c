/* compile_cc.c - the machine's C compiler: a text becomes a shared object, kept in the disk cache.
 *
 * The compiler runs in a private directory under $TMPDIR, as a program with an argument vector: no shell ever sees
 * a text, a name or a path. What it made is copied into the cache and loaded from where it lies.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <sys/auxv.h>
#endif

#include "base/file_cache.h"
#include "base/isa.h"
#include "mod/compile.h"
#include "mod/text.h"

extern char **environ;

/* Of the fast-math family only what leaves infinities and NaN alone: no errno, no floating-point traps (both
 * keep selects and square roots out of vector loops) and fused multiply-adds. A missing return or declaration is
 * a mistake, not a warning. */
static const char *const common_flags[] = {"-std=gnu11",
                                           "-O3",
                                           "-fno-math-errno",
                                           "-fno-trapping-math",
                                           "-ffp-contract=fast",
                                           "-fPIC",
                                           "-shared",
                                           "-nostartfiles",
                                           "-fdiagnostics-color=never",
                                           "-Werror=implicit-function-declaration",
                                           "-Werror=return-type"};
enum { NUM_COMMON = sizeof common_flags / sizeof *common_flags, MAX_FLAGS = NUM_COMMON + 4 };

/* The flags for an instruction set of the context, NULL-terminated. */
static void flags_for(const char *isa, const char *flags[MAX_FLAGS]) {
    int n = 0;
    for (; n < NUM_COMMON; n++) flags[n] = common_flags[n];
    sac_isa set = sac_isa_choose(isa);
    if (set == SAC_ISA_AVX2 && *isa) {
        flags[n++] = "-mavx2";
        flags[n++] = "-mfma";
    } else if (set != SAC_ISA_GENERIC || !*isa) {
        flags[n++] = "-march=native";
    }
    flags[n] = NULL;
}

/* ---- the key ---- */

/* What -march=native looks at, as text: the processor's model and features, and what the system lets us use. */
static void describe_cpu(char *text, size_t size) {
    int n = 0;
#if defined(__x86_64__)
    static const unsigned leaves[][2] = {{1, 0}, {7, 0}, {7, 1}, {13, 1}, {20, 0}, {25, 0}, {0x80000001, 0}};
    unsigned a, b, c, d;
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        if (!__get_cpuid_count(leaves[i][0], leaves[i][1], &a, &b, &c, &d)) a = b = c = d = 0;
        if (leaves[i][0] == 1) b = 0; /* which core this is */
        n += snprintf(text + n, size - (size_t)n, "%x %x %x %x ", a, b, c, d);
    }
#else
    n = snprintf(text, size, "%lx %lx ", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
#endif
    for (int isa = 0; isa <= SAC_ISA_AVX512; isa++)
        n += snprintf(text + n, size - (size_t)n, "%d", sac_isa_usable((sac_isa)isa));
}

/* The compiler is known by its file, as ccache knows it: a new version is another size or time. */
static bool identify_compiler(const char *compiler, char *text, size_t size) {
    char real[PATH_MAX];
    struct stat file;
    if (!realpath(compiler, real) || stat(real, &file) != 0) return false;
    snprintf(text, size, "%s %s %lld %lld.%09ld", compiler, real, (long long)file.st_size,
             (long long)file.st_mtim.tv_sec, file.st_mtim.tv_nsec);
    return true;
}

/* "<key>.so" over the source (with its prelude), the compiler, its flags and the processor; "" where no key can be
 * had, and so nothing kept. */
static void cache_name(char name[SAC_FILE_KEY_SIZE + 3], const char *compiler, const char *const *flags,
                       const char *source) {
    char identity[2 * PATH_MAX + 64], cpu[512];
    *name = '\0';
    if (!identify_compiler(compiler, identity, sizeof identity)) return;
    describe_cpu(cpu, sizeof cpu);
    sac_file_key *key = sac_file_key_new();
    sac_file_key_add(key, source);
    sac_file_key_add(key, identity);
    for (int i = 0; flags[i]; i++) sac_file_key_add(key, flags[i]);
    sac_file_key_add(key, cpu);
    if (sac_file_key_finish(key, name)) strcat(name, ".so");
}

/* ---- loading ---- */

static void release_library(void *library) { dlclose(library); }

/* Takes the row functions out of a shared object; false when it cannot be mapped. */
static bool load(const char *path, sac_mod_code *code) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    *(void **)&code->score_row = dlsym(library, SAC_SCORE_ROW_SYMBOL);
    *(void **)&code->score_grad_row = dlsym(library, SAC_SCORE_GRAD_ROW_SYMBOL);
    *(void **)&code->mask_row = dlsym(library, SAC_MASK_ROW_SYMBOL);
    code->owner = library;
    code->release = release_library;
    return true;
}

/* The seal is checked first: mapping a truncated object would end in a SIGBUS. */
static bool load_cached(const char *dir, const char *name, sac_mod_code *code) {
    size_t size;
    void *bytes = sac_file_cache_read(dir, name, &size);
    free(bytes);
    char *path = bytes ? sac_file_cache_path(dir, name) : NULL;
    bool loaded = path && load(path, code);
    free(path);
    return loaded;
}

/* ---- compiling ---- */

/* A private directory and the paths in it. */
typedef struct workshop {
    char dir[PATH_MAX - 16], source[PATH_MAX], object[PATH_MAX], log[PATH_MAX];
} workshop;

static bool open_workshop(workshop *w) {
    const char *tmp = getenv("TMPDIR");
    snprintf(w->dir, sizeof w->dir, "%s/saccade-XXXXXX", tmp && *tmp == '/' ? tmp : "/tmp");
    if (!mkdtemp(w->dir)) return false;
    snprintf(w->source, sizeof w->source, "%s/text.c", w->dir);
    snprintf(w->object, sizeof w->object, "%s/text.so", w->dir);
    snprintf(w->log, sizeof w->log, "%s/log", w->dir);
    return true;
}

static void close_workshop(const workshop *w) {
    unlink(w->source);
    unlink(w->object);
    unlink(w->log);
    rmdir(w->dir);
}

static bool write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "we");
    if (!file) return false;
    bool good = fputs(text, file) >= 0;
    return fclose(file) == 0 && good;
}

/* The whole file as a string, *size its bytes; NULL: unreadable. */
static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "re");
    char *text = NULL, part[4096];
    FILE *out = file ? open_memstream(&text, size) : NULL;
    for (size_t n; out && (n = fread(part, 1, sizeof part, file)) > 0;) fwrite(part, 1, n, out);
    if (file) fclose(file);
    if (out && fclose(out) != 0) {
        free(text);
        text = NULL;
    }
    return text;
}

/* Runs the compiler to its end; true when it made the object. */
static bool run(const char *compiler, const char *const *flags, const workshop *w) {
    const char *argv[MAX_FLAGS + 8];
    int n = 0;
    argv[n++] = compiler;
    for (int i = 0; flags[i]; i++) argv[n++] = flags[i];
    argv[n++] = "-o";
    argv[n++] = w->object;
    argv[n++] = w->source;
    argv[n++] = "-lm";
    argv[n] = NULL;

    posix_spawn_file_actions_t files;
    if (posix_spawn_file_actions_init(&files) != 0) return false;
    /* In a directory of its own, where the names that #line gives are no files for messages to quote. */
    posix_spawn_file_actions_addchdir_np(&files, w->dir);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, w->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    pid_t child;
    int error = posix_spawn(&child, compiler, &files, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (error) return false;

    int status = 0;
    pid_t ended;
    do ended = waitpid(child, &status, 0);
    while (ended < 0 && errno == EINTR);
    /* A host that ignores SIGCHLD leaves us no status; a compiler that failed leaves no object. */
    return (ended < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) && access(w->object, R_OK) == 0;
}

static void keep(const char *dir, const char *name, const char *object) {
    size_t size = 0;
    char *bytes = read_file(object, &size);
    if (bytes) sac_file_cache_write(dir, name, bytes, size);
    free(bytes);
}

/* From source to functions; where the workshop lies on a file system that runs nothing, by way of the cache. */
static bool build(const char *compiler, const char *const *flags, const workshop *w, const char *source,
                  const char *cache_dir, const char *name, sac_mod_code *code) {
    if (!write_file(w->source, source) || !run(compiler, flags, w)) return false;
    keep(cache_dir, name, w->object);
    return load(w->object, code) || load_cached(cache_dir, name, code);
}

/* Whose fault was it? The compiler's, if it makes nothing of the simplest source either. */
static sac_compile_result blame(const char *compiler, const char *const *flags, const workshop *w,
                                char **log) {
    static const char probe[] = "float probe(float x) { return x + 1.0f; }\n";
    sac_mod_code code = {0};
    size_t size = 0;
    const char *loader = dlerror();
    *log = read_file(w->log, &size);
    if (size == 0 && loader) {
        free(*log);
        *log = strdup(loader);
    }
    unlink(w->object);
    if (!build(compiler, flags, w, probe, NULL, "", &code)) return SAC_COMPILE_UNUSABLE;
    code.release(code.owner);
    return SAC_COMPILE_REFUSED;
}

sac_compile_result sac_compile_cc(saccade_context *ctx, sac_mod_state *state, const char *source,
                                  sac_mod_code *code, char **log) {
    const char *flags[MAX_FLAGS];
    char name[SAC_FILE_KEY_SIZE + 3];
    *log = NULL;
    flags_for(ctx->isa, flags);
    cache_name(name, state->compiler, flags, source);
    const char *cache_dir = *name ? ctx->cache_dir : NULL;
    if (load_cached(cache_dir, name, code)) {
        state->num_cached++;
        return SAC_COMPILED;
    }

    workshop w;
    if (!open_workshop(&w)) {
        *log = strdup("no directory for the compiler's files can be made under $TMPDIR or /tmp");
        return SAC_COMPILE_UNUSABLE;
    }
    state->num_compiled++;
    sac_compile_result result = SAC_COMPILED;
    if (!build(state->compiler, flags, &w, source, cache_dir, name, code))
        result = blame(state->compiler, flags, &w, log);
    close_workshop(&w);
    return result;
}
