/* test_cuda_runtime.c - the GPU runtime as far as it shows without a GPU: an absent GPU, compilation, the disk
 * cache. What needs NVRTC says so and skips where there is none. */
#include <saccade/backend.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file_cache.h"
#include "cuda/attn_portable.h"
#include "cuda/kernel_prefetch.h"
#include "cuda/nvrtc.h"
#include "cuda/sm90.h"
#include "support/cmocka_all.h"
#include "support/device.h"
#include "support/folder.h"
#include "support/kernel_cache.h"

typedef kernel_cache fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    *state = f;
    return f && kernel_cache_make(f) ? 0 : -1;
}

static int tear_down(void **state) {
    const bool removed = kernel_cache_free(*state);
    free(*state);
    return removed ? 0 : -1;
}

/* The name of the only file in the folder, or "" when there is none. */
static const char *only_file(const char *dir) {
    static char name[256];
    DIR *folder = opendir(dir);
    assert_non_null(folder);
    *name = '\0';
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (*entry->d_name == '.') continue;
        if (*name) fail_msg("%s holds %s and %s", dir, name, entry->d_name);
        snprintf(name, sizeof name, "%s", entry->d_name);
    }
    closedir(folder);
    return name;
}

/* The cubin's size; its content, unless NULL, is compared with that text. */
static size_t get_cubin(fixture *f, const char *expected) {
    void *cubin = NULL;
    size_t size = 0;
    if (sac_kernel_cubin(f->ctx, &f->device, &f->spec, &cubin, &size) != SACCADE_OK)
        fail_msg("%s", saccade_last_error());
    if (expected && (size != strlen(expected) || memcmp(cubin, expected, size) != 0))
        fail_msg("%zu bytes of machine code are not \"%s\"", size, expected);
    if (!expected) assert_memory_equal(cubin, "\177ELF", 4);
    free(cubin);
    return size;
}

/* ---- the cache ---- */

static void second_use_reads_the_disk(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    get_cubin(f, NULL);
    const char *name = only_file(f->dir);
    sac_file_cache_write(f->dir, name, "what lies there", 15); /* so that reading it shows */
    get_cubin(f, "what lies there");
}

static void damaged_kernel_cache_is_rebuilt(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    size_t size = get_cubin(f, NULL);
    char *path = sac_file_cache_path(f->dir, only_file(f->dir));
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(get_cubin(f, NULL), size);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(get_cubin(f, NULL), size);
    free(path);
    assert_int_equal(count_files(f->dir), 1);
}

static void each_thing_the_code_depends_on_is_in_the_key(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    get_cubin(f, NULL);
    sac_kernel_define(&f->spec, "A", 1);
    get_cubin(f, NULL);
    f->spec.defines[0].value = 2;
    get_cubin(f, NULL);
    f->spec.defines[0].name = "B";
    get_cubin(f, NULL);
    f->spec.modifiers = "/* a text */";
    get_cubin(f, NULL);
    f->spec.threads = 128;
    get_cubin(f, NULL);
    f->device.compute_capability = 80;
    get_cubin(f, NULL);
    assert_int_equal(count_files(f->dir), 7);
    f->device.id = 3; /* which device it is does not matter */
    get_cubin(f, NULL);
    assert_int_equal(count_files(f->dir), 7);
}

static void unusable_cache_folder_costs_only_time(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    char path[96];
    snprintf(path, sizeof path, "%s/file", f->dir);
    fclose(fopen(path, "w"));
    saccade_context_destroy(f->ctx);
    assert_int_equal(saccade_context_create(&f->ctx, &(saccade_context_params){.cache_dir = path}),
                     SACCADE_OK);
    assert_non_null(sac_cuda_of(f->ctx));
    get_cubin(f, NULL);
    get_cubin(f, NULL);
}

static void eight_processes_compile_one_kernel(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    enum { PROCESSES = 8 };
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() != 0) continue;
        void *cubin = NULL;
        size_t size;
        bool good = sac_kernel_cubin(f->ctx, &f->device, &f->spec, &cubin, &size) == SACCADE_OK &&
                    memcmp(cubin, "\177ELF", 4) == 0;
        _exit(!good);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(count_files(f->dir), 1);
}

/* ---- compiling ahead ---- */

static void prefetch(fixture *f) {
    assert_int_equal(sac_kernel_prefetch(f->ctx, &f->device, &f->spec, 1, NULL), SACCADE_OK);
}

/* Is something under way? Then it is waited for, and must be machine code. */
static bool take(fixture *f) {
    size_t size;
    char *cubin = sac_prefetch_take(sac_cuda_of(f->ctx)->prefetches, f->device.id,
                                    sac_kernel_identify(&f->spec), &size);
    if (cubin) assert_memory_equal(cubin, "\177ELF", 4);
    free(cubin);
    return cubin;
}

static void kernel_is_compiled_ahead_once_and_taken_once(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    assert_false(take(f));
    prefetch(f);
    prefetch(f);
    assert_true(take(f));
    assert_false(take(f));
    prefetch(f);
    assert_false(take(f));
}

static void what_was_compiled_ahead_reaches_the_disk_when_it_is_used(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    prefetch(f);
    get_cubin(f, NULL);
    assert_false(take(f)); /* it was used, not compiled again beside it */
    assert_int_equal(count_files(f->dir), 1);
}

static void what_lies_on_the_disk_is_not_compiled_ahead(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    get_cubin(f, NULL);
    prefetch(f);
    assert_false(take(f));
}

static void failure_ahead_is_reported_where_the_kernel_is_wanted(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    void *cubin = NULL;
    size_t size;
    f->spec = (sac_kernel_spec){.source = "cuda/kernels/attn_merge.cu", .entry = "attn_merge", .threads = 32};
    prefetch(f);
    assert_int_equal(sac_kernel_cubin(f->ctx, &f->device, &f->spec, &cubin, &size), SACCADE_COMPILE_FAILED);
    assert_non_null(strstr(saccade_last_error(), "HEAD_DIM_V"));
}

static void context_may_end_while_kernels_are_under_way(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    for (int i = 0; i < 3; i++) {
        f->spec.num_defines = 0;
        sac_kernel_define(&f->spec, "A", i);
        prefetch(f);
    }
    saccade_context_destroy(f->ctx);
    f->ctx = NULL;
    assert_int_equal(count_files(f->dir), 0);
}

static void program_may_end_while_kernels_are_under_way(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    enum { PROGRAMS = 6 };
    fflush(NULL); /* or each of them would say it again */
    for (int i = 0; i < PROGRAMS; i++) {
        pid_t child = fork();
        if (child == 0) {
            prefetch(f);
            exit(0); /* as a program that forgets its context: what exit calls meets the compiler at work */
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

/* ---- the compiler ---- */

static void compile_error_carries_the_compilers_words(void **state) {
    fixture *f = *state;
    skip_without_compiler();
    void *cubin = NULL;
    size_t size;
    sac_kernel_spec spec = {.source = "cuda/kernels/attn_merge.cu", .entry = "attn_merge", .threads = 32};
    assert_int_equal(sac_kernel_compile(&spec, "sm_90", &cubin, &size, NULL), SACCADE_COMPILE_FAILED);
    assert_non_null(strstr(saccade_last_error(), "attn_merge.cu"));
    assert_non_null(strstr(saccade_last_error(), "HEAD_DIM_V"));
    assert_int_equal(sac_kernel_compile(&f->spec, "sm_1", &cubin, &size, NULL), SACCADE_COMPILE_FAILED);
    assert_non_null(strstr(saccade_last_error(), "sm_1"));
}

/* Which compiler there is, is found out once a process: hence another one. */
static void absent_compiler_is_a_reason(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        const char *reason = "";
        setenv("SACCADE_NVRTC", "/nonexistent", 1);
        /* a process that has looked before keeps what it found: nothing to see then */
        _exit(sac_nvrtc_get(&reason) ? 2 : strstr(reason, "SACCADE_NVRTC") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- the rules ---- */

/* Fails unless cuda-portable refuses, for this reason among others. */
static void refuses(fixture *f, const saccade_request *request, const char *reason) {
    assert_int_equal(saccade_select_backend(f->ctx, request, NULL), SACCADE_UNSUPPORTED);
    if (!strstr(saccade_last_error(), reason))
        fail_msg("\"%s\" does not say \"%s\"", saccade_last_error(), reason);
}

static void few_queries_of_a_group_prefer_the_kernels_that_pack_them(void **state) {
    (void)state;
    saccade_request r = {.seqlen_q = 8, .seqlen_k = 4096, .num_heads = 32, .num_kv_heads = 4};
#define PREFERS_PORTABLE (sac_cuda_portable_backend.rank(&r) < sac_cuda_sm90_backend.rank(&r))
    assert_true(PREFERS_PORTABLE);
    r.seqlen_q = 9;
    assert_false(PREFERS_PORTABLE);
    r.seqlen_q = 8, r.training = true;
    assert_false(PREFERS_PORTABLE);
    r.training = false, r.num_kv_heads = 32;
    assert_false(PREFERS_PORTABLE);
    r.num_heads = r.num_kv_heads = 0;
    assert_false(PREFERS_PORTABLE);
#undef PREFERS_PORTABLE
}

static void absent_gpu_is_a_reason(void **state) {
    fixture *f = *state;
    const char *reason;
    if (sac_driver_get(&reason)) {
        skip_because("this machine has a GPU");
    }
    refuses(f,
            &(saccade_request){.device = {kDLCUDA, 0},
                               .dtype = SACCADE_F16,
                               .head_dim = 64,
                               .head_dim_v = 64,
                               .backend = "cuda-portable"},
            reason);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_compiler_is_a_reason), /* first: see there */
        TEST(second_use_reads_the_disk),
        TEST(damaged_kernel_cache_is_rebuilt),
        TEST(each_thing_the_code_depends_on_is_in_the_key),
        TEST(unusable_cache_folder_costs_only_time),
        TEST(eight_processes_compile_one_kernel),
        TEST(kernel_is_compiled_ahead_once_and_taken_once),
        TEST(what_was_compiled_ahead_reaches_the_disk_when_it_is_used),
        TEST(what_lies_on_the_disk_is_not_compiled_ahead),
        TEST(failure_ahead_is_reported_where_the_kernel_is_wanted),
        TEST(context_may_end_while_kernels_are_under_way),
        TEST(program_may_end_while_kernels_are_under_way),
        TEST(compile_error_carries_the_compilers_words),
        cmocka_unit_test(few_queries_of_a_group_prefer_the_kernels_that_pack_them),
        TEST(absent_gpu_is_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
