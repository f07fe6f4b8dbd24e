/* test_modifier_cache.c - compiled texts shared by contexts, threads and processes, and a cache that fails. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <saccade/native_modifier.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mod/compile.h"
#include "support/cmocka_all.h"

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/saccade-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

/* Calls visit with the path of each file of dir; returns how many there are. */
static int for_each_file(void (*visit)(const char *path)) {
    int count = 0;
    DIR *d = opendir(dir);
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        if (*e->d_name == '.' && (!e->d_name[1] || e->d_name[1] == '.')) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (visit) visit(path);
        count++;
    }
    closedir(d);
    return count;
}

static void remove_file(const char *path) { remove(path); }

static int remove_dir(void **state) {
    (void)state;
    for_each_file(remove_file);
    return rmdir(dir);
}

static const saccade_aux aux = {.scalar = {10, 20}};

/* What became of one text in a context of its own. */
typedef struct outcome {
    saccade_status status;
    float value; /* of score 1 */
    int64_t num_compiled, num_cached;
    char compiler[256];
} outcome;

static float value_of(const saccade_modifier *m) {
    float score = 1;
    sac_score_row(m, &score, 1, 0, 0, 0, 0, &aux);
    return score;
}

static outcome compile_in(const char *cache_dir, const char *compiler,
                          const saccade_modifier_params *params) {
    outcome o = {0};
    saccade_context *ctx = NULL;
    saccade_modifier *m = NULL;
    saccade_context_params context_params = {.cache_dir = cache_dir, .compiler = compiler};
    o.status = saccade_context_create(&ctx, &context_params);
    if (o.status == SACCADE_OK) o.status = saccade_modifier_create(ctx, &m, params);
    if (o.status == SACCADE_OK) o.status = saccade_modifier_compile(ctx, m);
    if (o.status == SACCADE_OK) {
        o.value = value_of(m);
        o.num_compiled = sac_mod_state_of(ctx)->num_compiled;
        o.num_cached = sac_mod_state_of(ctx)->num_cached;
        snprintf(o.compiler, sizeof o.compiler, "%s", saccade_modifier_compiler(m));
    }
    saccade_modifier_destroy(m);
    saccade_context_destroy(ctx);
    return o;
}

static const saccade_modifier_params plus_41 = {.kind = SACCADE_SCORE_KIND, .text = "score + 41"};

static void expect(outcome o, float value, int64_t num_compiled, int64_t num_cached) {
    if (o.status != SACCADE_OK) fail_msg("status %d: %s", (int)o.status, saccade_last_error());
    if (o.value != value || o.num_compiled != num_compiled || o.num_cached != num_cached)
        fail_msg("value %g, compiled %d, cached %d; expected %g, %d, %d", o.value, (int)o.num_compiled,
                 (int)o.num_cached, value, (int)num_compiled, (int)num_cached);
}

/* These tests are about the disk cache, which a C compiler alone uses. */
static bool have_compiler(void) {
    outcome o = compile_in("", NULL, &plus_41);
    return o.status == SACCADE_OK && *o.compiler == '/';
}
static bool have_libtcc(void) { return compile_in("", "libtcc", &plus_41).status == SACCADE_OK; }
#define NEEDS_COMPILER                                                                                       \
    (void)state;                                                                                             \
    if (!have_compiler()) skip_because("no C compiler here")
#define NEEDS_LIBTCC                                                                                         \
    (void)state;                                                                                             \
    if (!have_libtcc()) skip_because("no libtcc here")

static void second_context_takes_what_the_first_compiled(void **state) {
    NEEDS_COMPILER;
    expect(compile_in(dir, NULL, &plus_41), 42, 1, 0);
    assert_int_equal(for_each_file(NULL), 1);
    expect(compile_in(dir, NULL, &plus_41), 42, 0, 1);
    expect(compile_in("", NULL, &plus_41), 42, 1, 0); /* "" is no cache */
}

static void missing_cache_directory_is_made(void **state) {
    NEEDS_COMPILER;
    char below[96];
    snprintf(below, sizeof below, "%s/a", dir);
    expect(compile_in(below, NULL, &plus_41), 42, 1, 0);
    expect(compile_in(below, NULL, &plus_41), 42, 0, 1);
    strcpy(dir, below);
    for_each_file(remove_file);
    *strrchr(dir, '/') = '\0';
}

static void modifiers_that_differ_in_anything_do_not_meet_in_the_cache(void **state) {
    NEEDS_COMPILER;
    const char *xy[] = {"x", "y"}, *yx[] = {"y", "x"};
    saccade_modifier_params p = {
        .kind = SACCADE_SCORE_KIND, .text = "score + scalar(x)", .num_scalars = 2, .scalars = xy};
    expect(compile_in(dir, NULL, &p), 11, 1, 0);
    p.scalars = yx; /* the same text, other slots */
    expect(compile_in(dir, NULL, &p), 21, 1, 0);
    p.grad_text = "grad";
    expect(compile_in(dir, NULL, &p), 21, 1, 0);
    p.text = "score - scalar(x)";
    expect(compile_in(dir, NULL, &p), -19, 1, 0);
    p = plus_41;
    p.text = "{ return score + 41; }";
    expect(compile_in(dir, NULL, &plus_41), 42, 1, 0);
    expect(compile_in(dir, NULL, &p), 42, 1, 0);
    expect(compile_in(dir, NULL, &p), 42, 0, 1);
}

static void truncate_to_half(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
}

static void fill_with_zeros(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, st.st_size), 0);
}

static void flip_a_bit(const char *path) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, 0x300, SEEK_SET);
    int c = fgetc(file);
    fseek(file, 0x300, SEEK_SET);
    fputc(c ^ 4, file);
    fclose(file);
}

static void make_empty(const char *path) { assert_int_equal(truncate(path, 0), 0); }

static void replace_by_a_directory(const char *path) {
    remove(path);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void damaged_object_is_compiled_again(void **state) {
    NEEDS_COMPILER;
    void (*const damage[])(const char *) = {truncate_to_half, fill_with_zeros, flip_a_bit, make_empty};
    expect(compile_in(dir, NULL, &plus_41), 42, 1, 0);
    for (int i = 0; i < 4; i++) {
        for_each_file(damage[i]);
        expect(compile_in(dir, NULL, &plus_41), 42, 1, 0);
        expect(compile_in(dir, NULL, &plus_41), 42, 0, 1);
    }
    for_each_file(replace_by_a_directory);
    expect(compile_in(dir, NULL, &plus_41), 42, 1, 0);
}

static void unusable_cache_directory_costs_time_only(void **state) {
    NEEDS_COMPILER;
    char file[96], below[128], loop[96], too_long[600];
    snprintf(file, sizeof file, "%s/file", dir);
    snprintf(below, sizeof below, "%s/folder", file);
    snprintf(loop, sizeof loop, "%s/loop", dir);
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = '\0';
    memcpy(too_long, "/tmp/", 5);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(symlink(loop, loop), 0);
    const char *const unusable[] = {file, below, loop, too_long};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) expect(compile_in(unusable[i], NULL, &plus_41), 42, 1, 0);
}

static void read_only_cache_directory_costs_time_only(void **state) {
    NEEDS_COMPILER;
    if (geteuid() == 0) skip_because("root may write where nobody may");
    assert_int_equal(chmod(dir, 0500), 0);
    for (int k = 0; k < 2; k++) expect(compile_in(dir, NULL, &plus_41), 42, 1, 0);
    assert_int_equal(chmod(dir, 0700), 0);
}

/* On a file system of one page, which a child mounts for itself where the system lets it. */
static void full_cache_directory_costs_time_only(void **state) {
    NEEDS_COMPILER;
    enum { CANNOT_MOUNT = 77 };
    pid_t child = fork();
    if (child == 0) {
        if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
            mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", dir, "tmpfs", 0, "size=4k") != 0)
            _exit(CANNOT_MOUNT);
        outcome first = compile_in(dir, NULL, &plus_41), second = compile_in(dir, NULL, &plus_41);
        _exit(first.value == 42 && second.value == 42 && second.num_compiled == 1 && for_each_file(NULL) == 0
                  ? 0
                  : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_MOUNT)
        skip_because("no file system may be mounted here");
    assert_int_equal(status, 0);
}

static void eight_processes_compile_at_once(void **state) {
    NEEDS_COMPILER;
    int go[2];
    assert_int_equal(pipe(go), 0);
    pid_t children[8];
    for (int i = 0; i < 8; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            char c;
            close(go[1]);
            if (read(go[0], &c, 1) != 0) _exit(2); /* end of file: all are there */
            outcome o = compile_in(dir, NULL, &plus_41);
            _exit(o.status == SACCADE_OK && o.value == 42 ? 0 : 1);
        }
    }
    close(go[0]);
    close(go[1]);
    for (int i = 0; i < 8; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        if (status != 0) fail_msg("process %d ended with %d", i, status);
    }
    assert_int_equal(for_each_file(NULL), 1);
    expect(compile_in(dir, NULL, &plus_41), 42, 0, 1);
}

/* ---- threads and forks ---- */

typedef struct worker {
    pthread_t thread;
    saccade_modifier *modifier;
    const char *compiler;
    int failures;
} worker;

static void *use_modifier(void *argument) {
    worker *w = argument;
    saccade_context *ctx;
    saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = "", .compiler = w->compiler});
    w->failures += saccade_modifier_compile(ctx, w->modifier) != SACCADE_OK;
    for (int i = 0; i < 1000 && !w->failures; i++) w->failures += value_of(w->modifier) != 42;
    saccade_context_destroy(ctx);
    return NULL;
}

static void one_modifier_serves_threads_with_contexts_of_their_own(void **state) {
    NEEDS_LIBTCC;
    const char *const compilers[] = {NULL, "libtcc"};
    for (int c = 0; c < 2; c++)
        for (int round = 0; round < 3; round++) {
            saccade_context *ctx;
            saccade_modifier *m;
            assert_int_equal(saccade_context_create(&ctx, NULL), SACCADE_OK);
            assert_int_equal(saccade_modifier_create(ctx, &m, &plus_41), SACCADE_OK);
            saccade_context_destroy(ctx); /* it outlives the context that it was made with */
            worker workers[4];
            for (int i = 0; i < 4; i++) {
                workers[i] = (worker){.modifier = m, .compiler = compilers[c]};
                pthread_create(&workers[i].thread, NULL, use_modifier, &workers[i]);
            }
            for (int i = 0; i < 4; i++) {
                pthread_join(workers[i].thread, NULL);
                if (workers[i].failures) fail_msg("thread %d: %d failures", i, workers[i].failures);
            }
            saccade_modifier_destroy(m);
        }
}

static void *add_to_slope(void *argument) {
    const saccade_aux *slots = argument;
    for (int i = 0; i < 20000; i++) saccade_atomic_add(slots->tensor[0].grad + i % 2, 1.0f);
    return NULL;
}

static void no_addition_to_a_shared_gradient_is_lost(void **state) {
    (void)state;
    float sums[2] = {0};
    saccade_aux slots = {.tensor = {{.grad = sums}}};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, add_to_slope, &slots);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    assert_true(sums[0] == 40000 && sums[1] == 40000);
}

static void *keep_compiling(void *stop) {
    while (!atomic_load((atomic_bool *)stop)) compile_in("", "libtcc", &plus_41);
    return NULL;
}

/* Also while another thread is amid a compilation, which the child does not have. */
static void child_process_uses_and_compiles(void **state) {
    NEEDS_LIBTCC;
#if defined(__SANITIZE_ADDRESS__)
    skip_because("the sanitizer's allocator may be locked by the other thread for ever in the child");
#endif
    saccade_context *ctx;
    saccade_modifier *m;
    assert_int_equal(saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = ""}), SACCADE_OK);
    assert_int_equal(saccade_modifier_create(ctx, &m, &plus_41), SACCADE_OK);
    assert_int_equal(saccade_modifier_compile(ctx, m), SACCADE_OK);
    atomic_bool stop = false;
    pthread_t thread;
    pthread_create(&thread, NULL, keep_compiling, &stop);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            bool good = value_of(m) == 42;
            if (i < 48) good = good && compile_in("", "libtcc", &plus_41).value == 42;
            if (i >= 48) good = good && compile_in("", NULL, &plus_41).value == 42;
            _exit(good ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status != 0) fail_msg("child %d ended with %d", i, status);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    saccade_modifier_destroy(m);
    saccade_context_destroy(ctx);
}

/* ---- the compiler's surroundings ---- */

static void without_a_compiler_in_path_libtcc_serves_and_says_so(void **state) {
    NEEDS_LIBTCC;
    char *path = strdup(getenv("PATH"));
    setenv("PATH", dir, 1);
    outcome o = compile_in("", NULL, &plus_41), named = compile_in("", "gcc", &plus_41);
    setenv("PATH", path, 1);
    free(path);
    expect(o, 42, 1, 0);
    assert_string_equal(o.compiler, "libtcc");
    assert_int_equal(named.status, SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "'gcc'"));
}

/* A script in dir called `name` that stands in for a compiler. */
static void put_program(const char *name, const char *script) {
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(script, file);
    fclose(file);
    chmod(path, 0700);
}

static void compiler_that_does_not_work_is_passed_over_unless_named(void **state) {
    NEEDS_LIBTCC;
    put_program("cc", "#!/bin/sh\necho no licence today >&2\nexit 1\n");
    char *path = strdup(getenv("PATH")), both[4096], named[96];
    snprintf(both, sizeof both, "%s:%s", dir, path);
    snprintf(named, sizeof named, "%s/cc", dir);
    setenv("PATH", both, 1);
    outcome o = compile_in("", NULL, &plus_41), asked = compile_in("", named, &plus_41);
    setenv("PATH", path, 1);
    free(path);
    assert_string_equal(o.compiler, "libtcc");
    assert_true(o.value == 42);
    assert_int_equal(asked.status, SACCADE_COMPILE_FAILED);
    assert_non_null(strstr(saccade_last_error(), "no licence today"));
}

static void compiler_may_be_a_relative_path(void **state) {
    NEEDS_COMPILER;
    put_program("my cc", "#!/bin/sh\nexec cc \"$@\"\n");
    char *before = get_current_dir_name();
    assert_int_equal(chdir(dir), 0);
    outcome o = compile_in("", "./my cc", &plus_41);
    assert_int_equal(chdir(before), 0);
    free(before);
    expect(o, 42, 1, 0);
    assert_int_equal(*o.compiler, '/');
}

static void nothing_reaches_a_shell(void **state) {
    NEEDS_COMPILER;
    char tmp[160], name[320], witness[96];
    snprintf(witness, sizeof witness, "%s/witness", dir);
    snprintf(tmp, sizeof tmp, "%s/a b;touch ${PWD}%c$(id)", dir, '\'');
    assert_int_equal(mkdir(tmp, 0700), 0);
    snprintf(name, sizeof name, "\"; touch %s; $(touch %s) \n -o x", witness, witness);
    char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
    setenv("TMPDIR", tmp, 1);
    saccade_modifier_params p = plus_41;
    p.name = name;
    outcome o = compile_in(dir, NULL, &p);
    if (before)
        setenv("TMPDIR", before, 1);
    else
        unsetenv("TMPDIR");
    free(before);
    expect(o, 42, 1, 0);
    assert_int_not_equal(access(witness, F_OK), 0);
    assert_int_equal(rmdir(tmp), 0); /* and nothing was left behind */
}

static void host_that_ignores_its_children_is_served(void **state) {
    NEEDS_COMPILER;
    signal(SIGCHLD, SIG_IGN);
    outcome good = compile_in("", NULL, &plus_41);
    saccade_modifier_params p = plus_41;
    p.text = "score + nothing";
    outcome bad = compile_in("", NULL, &p);
    signal(SIGCHLD, SIG_DFL);
    expect(good, 42, 1, 0);
    assert_int_equal(bad.status, SACCADE_COMPILE_FAILED);
    assert_non_null(strstr(saccade_last_error(), "nothing"));
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(second_context_takes_what_the_first_compiled),
        TEST(missing_cache_directory_is_made),
        TEST(modifiers_that_differ_in_anything_do_not_meet_in_the_cache),
        TEST(damaged_object_is_compiled_again),
        TEST(unusable_cache_directory_costs_time_only),
        TEST(read_only_cache_directory_costs_time_only),
        TEST(full_cache_directory_costs_time_only),
        TEST(eight_processes_compile_at_once),
        TEST(one_modifier_serves_threads_with_contexts_of_their_own),
        TEST(no_addition_to_a_shared_gradient_is_lost),
        TEST(child_process_uses_and_compiles),
        TEST(without_a_compiler_in_path_libtcc_serves_and_says_so),
        TEST(compiler_that_does_not_work_is_passed_over_unless_named),
        TEST(compiler_may_be_a_relative_path),
        TEST(nothing_reaches_a_shell),
        TEST(host_that_ignores_its_children_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
