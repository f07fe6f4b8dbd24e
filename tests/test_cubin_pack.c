/* test_cubin_pack.c - kernels compiled by the build: found by what their code depends on, and only where they are
 * whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/nvrtc.h"
#include "cuda/runtime.h"
#include "cuda/standard_kernels.h"
#include "shared/embedded.h"
#include "support/cmocka_all.h"
#include "support/kernel_cache.h"

static const char content[] = "machine code of the pack";

typedef struct fixture {
    kernel_cache cache;
    char path[96], words[256];
    sac_cubin_pack *pack;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    *state = f;
    if (!f || !kernel_cache_make(&f->cache)) return -1;
    snprintf(f->path, sizeof f->path, "%s/" SAC_CUBIN_PACK_NAME, f->cache.dir);
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    const bool removed = kernel_cache_free(&f->cache);
    sac_cubin_pack_close(f->pack);
    free(f);
    return removed ? 0 : -1;
}

/* Opens the file as the context's pack, whether or not it is one. */
static void use_pack(fixture *f) {
    sac_cubin_pack_close(f->pack);
    f->pack = sac_cubin_pack_open(f->path, f->words, sizeof f->words);
    sac_cuda_of(f->cache.ctx)->pack = f->pack;
}

/* A pack of `content` under that key, between two others. */
static void make_pack(fixture *f, const char *key) {
    sac_packed_cubin cubins[] = {{.key = "ffffffffffffffffffffffffffffffff", .cubin = "last", .size = 4},
                                 {.cubin = content, .size = sizeof content},
                                 {.key = "00000000000000000000000000000000", .cubin = "first", .size = 5},
                                 {.key = "00000000000000000000000000000000", .cubin = "first", .size = 5}};
    memcpy(cubins[1].key, key, sizeof cubins[1].key);
    if (sac_cubin_pack_write(f->path, cubins, sizeof cubins / sizeof *cubins) != SACCADE_OK)
        fail_msg("%s", saccade_last_error());
    use_pack(f);
}

static void make_pack_of_spec(fixture *f) {
    char key[SAC_FILE_KEY_SIZE];
    assert_true(sac_kernel_pack_key(key, &f->cache.device, &f->cache.spec));
    make_pack(f, key);
}

/* Is what the context gets for its spec the pack's? Otherwise it is compiled; no compiler is then an answer too. */
static bool comes_from_pack(fixture *f) {
    void *cubin = NULL;
    size_t size = 0;
    if (sac_kernel_cubin(f->cache.ctx, &f->cache.device, &f->cache.spec, &cubin, &size) != SACCADE_OK) {
        assert_null(sac_nvrtc_get(NULL));
        return false;
    }
    bool packed = size == sizeof content && memcmp(cubin, content, size) == 0;
    if (!packed) assert_memory_equal(cubin, "\177ELF", 4);
    free(cubin);
    return packed;
}

/* Replaces one byte; offset from the end when it is negative. */
static void change_byte(const fixture *f, long offset) {
    FILE *file = fopen(f->path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

/* ---- what is found ---- */

static void pack_is_asked_before_disk_and_compiler(void **state) {
    fixture *f = *state;
    make_pack_of_spec(f);
    assert_memory_equal(f->words, "3 kernels in ", 13); /* equal keys are one */
    assert_true(comes_from_pack(f));
}

static void each_thing_the_code_depends_on_leads_past_the_pack(void **state) {
    fixture *f = *state;
    make_pack_of_spec(f);
    const sac_kernel_spec spec = f->cache.spec;
    sac_kernel_define(&f->cache.spec, "A", 1);
    assert_false(comes_from_pack(f));
    f->cache.spec = spec, f->cache.spec.threads = 128;
    assert_false(comes_from_pack(f));
    f->cache.spec = spec, f->cache.spec.modifiers = "/* a text */";
    assert_false(comes_from_pack(f));
    f->cache.spec = spec, f->cache.device.compute_capability = 80;
    assert_false(comes_from_pack(f));
    f->cache.device.compute_capability = 90;
    f->cache.device.id = 3; /* which device it is does not matter */
    assert_true(comes_from_pack(f));
}

/* The recipe of a key, with one more byte at the end of one header, or with none. */
static void key_of_texts(char key[SAC_FILE_KEY_SIZE], const char *changed) {
    const char *source = sac_embedded_text("cuda/kernels/attn_bwd_dsink.cu", NULL);
    const char *tail[] = {
        source, "", "", "--gpu-architecture=sm_90", "--std=c++17", "--ptxas-options=-v", "-DNUM_THREADS=64"};
    const sac_embedded_file **headers = calloc(sac_embedded_count, sizeof *headers);
    size_t count = 0;
    assert_non_null(headers);
    sac_embedded_add_includes(source, headers, &count);
    sac_file_key *k = sac_file_key_new();
    for (size_t i = 0; i < count; i++) {
        char *text = malloc(headers[i]->size + 2);
        assert_non_null(text);
        memcpy(text, headers[i]->text, headers[i]->size + 1);
        if (changed && strcmp(headers[i]->path, changed) == 0) strcpy(text + headers[i]->size, "\n");
        sac_file_key_add(k, text);
        free(text);
    }
    for (size_t i = 0; i < sizeof tail / sizeof *tail; i++) sac_file_key_add(k, tail[i]);
    assert_true(sac_file_key_finish(k, key));
    free(headers);
}

static void pack_of_other_texts_is_not_used(void **state) {
    fixture *f = *state;
    char key[SAC_FILE_KEY_SIZE];
    key_of_texts(key, "shared/attention_args.h");
    make_pack(f, key);
    assert_false(comes_from_pack(f));
    key_of_texts(key, NULL); /* the recipe is the right one: without the change it is found */
    make_pack(f, key);
    assert_true(comes_from_pack(f));
}

/* ---- what is not whole ---- */

/* Fails unless the file is refused in these words. */
static void refused(fixture *f, const char *words) {
    use_pack(f);
    assert_null(f->pack);
    if (!strstr(f->words, words)) fail_msg("\"%s\" does not say \"%s\"", f->words, words);
    assert_false(comes_from_pack(f));
}

static void truncated_pack_is_ignored_and_says_so(void **state) {
    fixture *f = *state;
    make_pack_of_spec(f);
    for (off_t bytes = 200; bytes > 0; bytes = bytes / 2 - 3) {
        assert_int_equal(truncate(f->path, bytes), 0);
        refused(f, "ignored: truncated");
    }
}

static void damaged_index_is_ignored_and_says_so(void **state) {
    fixture *f = *state;
    make_pack_of_spec(f);
    change_byte(f, 40); /* in the first key */
    refused(f, "ignored: damaged");
    make_pack_of_spec(f);
    change_byte(f, 16); /* the count */
    refused(f, "ignored: damaged");
    make_pack_of_spec(f);
    change_byte(f, 7); /* the format */
    refused(f, "ignored: not a pack of this format");
}

static void damaged_cubin_is_passed_over(void **state) {
    fixture *f = *state;
    make_pack_of_spec(f);
    change_byte(f, -10); /* "last" has four bytes at the end */
    use_pack(f);
    assert_non_null(f->pack);
    assert_false(comes_from_pack(f));
}

static void absent_pack_says_so(void **state) {
    fixture *f = *state;
    refused(f, "there is no /tmp/saccade-kernels-");
    assert_non_null(strstr(sac_cubin_pack_words(), SAC_CUBIN_PACK_NAME));
}

/* ---- what the build puts into one ---- */

static struct {
    bool fwd_portable, bwd_portable, fwd_sm90, bwd_sm90, dq_sm90, mask, nsa;
    int count;
} visited;

static saccade_status visit(saccade_context *ctx, const sac_cuda_device *device, const sac_kernel_spec *spec,
                            int64_t num_ctas, void **params) {
    (void)ctx, (void)params;
    assert_true(num_ctas > 0);
    assert_true(spec->smem_bytes <= device->smem_bytes);
    assert_null(spec->modifiers);
    visited.fwd_portable |= strcmp(spec->entry, "attn_fwd") == 0;
    visited.bwd_portable |= strcmp(spec->entry, "attn_bwd") == 0;
    visited.fwd_sm90 |= strcmp(spec->entry, "attn_fwd_sm90") == 0;
    visited.bwd_sm90 |= strcmp(spec->entry, "attn_bwd_sm90") == 0;
    visited.dq_sm90 |= strcmp(spec->entry, "attn_bwd_dq_sm90") == 0;
    visited.nsa |= strcmp(spec->entry, "nsa_select") == 0;
    visited.mask |= strcmp(spec->entry, "mask_transpose") == 0;
    visited.count++;
    return SACCADE_OK;
}

static void standard_kernels_are_of_every_family_that_the_gpu_can_run(void **state) {
    (void)state;
    static const int32_t capabilities[] = {80, 86, 90, 100, 120};
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
        memset(&visited, 0, sizeof visited);
        assert_int_equal(sac_standard_kernels(capabilities[i], visit), SACCADE_OK);
        assert_true(visited.fwd_portable && visited.bwd_portable && visited.mask && visited.nsa);
        assert_int_equal(visited.fwd_sm90 + visited.bwd_sm90 + visited.dq_sm90,
                         capabilities[i] == 90 ? 3 : 0);
    }
}

static saccade_status fail_to_visit(saccade_context *ctx, const sac_cuda_device *device,
                                    const sac_kernel_spec *spec, int64_t num_ctas, void **params) {
    (void)ctx, (void)device, (void)spec, (void)num_ctas, (void)params;
    visited.count++;
    return SACCADE_COMPILE_FAILED;
}

static void first_failure_ends_the_list(void **state) {
    (void)state;
    visited.count = 0;
    assert_int_equal(sac_standard_kernels(90, fail_to_visit), SACCADE_COMPILE_FAILED);
    assert_int_equal(visited.count, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(pack_is_asked_before_disk_and_compiler),
        TEST(each_thing_the_code_depends_on_leads_past_the_pack),
        TEST(pack_of_other_texts_is_not_used),
        TEST(truncated_pack_is_ignored_and_says_so),
        TEST(damaged_index_is_ignored_and_says_so),
        TEST(damaged_cubin_is_passed_over),
        TEST(absent_pack_says_so),
        cmocka_unit_test(standard_kernels_are_of_every_family_that_the_gpu_can_run),
        cmocka_unit_test(first_failure_ends_the_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
