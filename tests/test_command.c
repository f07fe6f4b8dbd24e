/* test_command.c - the command as its users meet it: what it computes, prints, refuses, and with which exit status. */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dtype.h"
#include "safetensors.h"
#include "support/cmocka_all.h"
#include "support/command_run.h"
#include "support/random.h"

#define SAMPLE SACCADE_TEST_DATA "/sample.safetensors"

/* In the folder: dense.safetensors, (2, 24, 4, 16) fp32 with sink, slopes, a table and dout; packed.safetensors. */
enum { B = 2, N = 24, H = 4, HKV = 2, D = 16, T = B * N };

static json_t *prints_json(const char *arguments) {
    json_error_t error;
    succeeds(arguments);
    json_t *root = json_loads(out_text, JSON_REJECT_DUPLICATES, &error);
    if (!root) fail_msg("saccade %s: %s in\n%s", arguments, error.text, out_text);
    return root;
}

static void fill(float *values, size_t count, uint64_t seed) {
    test_random random = {seed};
    for (size_t i = 0; i < count; i++) values[i] = (float)random_normal(&random);
}

static int make_inputs(void **state) {
    (void)state;
    static float q[T * H * D], k[T * HKV * D], v[T * HKV * D], dout[T * H * D], table[H],
        sink[H] = {0, 1, -1, 2};
    static int32_t cu[B + 1] = {0, 17, T}, used[B] = {17, 9};
    char path[64];
    if (!make_folder()) return -1;
    fill(q, T * H * D, 1);
    fill(k, T * HKV * D, 2);
    fill(v, T * HKV * D, 3);
    fill(dout, T * H * D, 4);
    fill(table, H, 5);
    safetensors_entry dense[] = {{"q", SACCADE_TENSOR(q, SACCADE_F32, B, N, H, D)},
                                 {"k", SACCADE_TENSOR(k, SACCADE_F32, B, N, HKV, D)},
                                 {"v", SACCADE_TENSOR(v, SACCADE_F32, B, N, HKV, D)},
                                 {"dout", SACCADE_TENSOR(dout, SACCADE_F32, B, N, H, D)},
                                 {"table", SACCADE_TENSOR(table, SACCADE_F32, H)},
                                 {"sink", SACCADE_TENSOR(sink, SACCADE_F32, H)}};
    static float slopes[B * H] = {0.5f, 0.25f, 0.125f, 0, 1, 0.1f, 0.01f, -0.5f};
    safetensors_entry packed[] = {{"alibi_slopes", SACCADE_TENSOR(slopes, SACCADE_F32, B, H)},
                                  {"q", SACCADE_TENSOR(q, SACCADE_F32, T, H, D)},
                                  {"k", SACCADE_TENSOR(k, SACCADE_F32, T, HKV, D)},
                                  {"v", SACCADE_TENSOR(v, SACCADE_F32, T, HKV, D)},
                                  {"cu_seqlens_q", SACCADE_TENSOR(cu, SACCADE_I32, B + 1)},
                                  {"cu_seqlens_k", SACCADE_TENSOR(cu, SACCADE_I32, B + 1)},
                                  {"seqused_k", SACCADE_TENSOR(used, SACCADE_I32, B)}};
    snprintf(path, sizeof path, "%s/dense.safetensors", folder);
    bool good = safetensors_write(path, dense, 6);
    snprintf(path, sizeof path, "%s/packed.safetensors", folder);
    return good && safetensors_write(path, packed, 7) ? 0 : -1;
}

static int remove_inputs(void **state) {
    (void)state;
    return remove_folder();
}

/* ---- attention ---- */

static void attention_writes_out_and_lse(void **state) {
    (void)state;
    succeeds("attention dense.safetensors --causal --backend reference -o out.safetensors");
    assert_string_equal(out_text, "");
    assert_string_equal(err_text, "");
    safetensors_file *in = opened("dense.safetensors"), *out = opened("out.safetensors");
    assert_int_equal(out->count, 2);
    assert_int_equal(safetensors_find(out, "out")->shape[1], N);
    assert_int_equal(safetensors_find(out, "lse")->shape[2], N);
    /* The first query sees the first key and its sink: out is that key's share of its value. */
    for (int h = 0; h < H; h++) {
        double score = 0, sink = element(in, "sink", (size_t)h);
        for (int d = 0; d < D; d++)
            score +=
                element(in, "q", (size_t)(h * D + d)) * element(in, "k", (size_t)(h / 2 * D + d)) / sqrt(D);
        double lse = log(exp(score) + exp(sink)), share = exp(score - lse);
        assert_true(fabs(element(out, "lse", (size_t)(h * N)) - lse) < 1e-5);
        double found = element(out, "out", (size_t)(h * D)),
               wanted = share * element(in, "v", (size_t)(h / 2 * D));
        if (fabs(found - wanted) > 1e-5) fail_msg("head %d: out is %g, must be %g", h, found, wanted);
    }
    safetensors_close(in);
    safetensors_close(out);
}

static void backward_adds_the_gradients_asked_for(void **state) {
    (void)state;
    succeeds("attention dense.safetensors --backward -v -o grads.safetensors --score-mod 'score + "
             "aux_f32(table, h)' "
             "--score-mod-grad '{ aux_grad(table, h, grad); return grad; }'");
    assert_non_null(strstr(out_text, "backward"));
    assert_non_null(strstr(out_text, "grads.safetensors:\n  out      ("));
    assert_non_null(strstr(out_text, "\n  dtable   ("));
    safetensors_file *out = opened("grads.safetensors");
    static const char *const names[] = {"out", "lse", "dq", "dk", "dv", "dsink", "dtable"};
    for (int i = 0; i < 7; i++)
        if (!safetensors_find(out, names[i])) fail_msg("%s is missing", names[i]);
    assert_int_equal(out->count, 7);
    /* A table that is added to all scores of a head moves them against the sink only: dtable = -dsink. */
    for (size_t h = 0; h < H; h++) {
        double table = element(out, "dtable", h), sink = element(out, "dsink", h);
        if (fabs(table + sink) > 1e-4) fail_msg("head %zu: dtable is %g, dsink is %g", h, table, sink);
    }
    safetensors_close(out);
}

static void packed_sequences_do_not_see_each_other(void **state) {
    (void)state;
    succeeds("attention packed.safetensors -o packed-out.safetensors");
    safetensors_file *out = opened("packed-out.safetensors");
    assert_int_equal(safetensors_find(out, "out")->ndim, 3);
    assert_int_equal(safetensors_find(out, "lse")->shape[0], H);
    assert_int_equal(safetensors_find(out, "lse")->shape[1], T);
    safetensors_close(out);
    succeeds("check packed.safetensors --causal=bottom-right --backward");
    succeeds("check packed.safetensors --mask 'causal & window:5,0' --block-size 16,8 --backward");
}

static void a_block_mask_is_the_mask_it_names(void **state) {
    (void)state;
    succeeds("attention dense.safetensors --causal --window 5,0 -o a.safetensors --backend reference");
    succeeds("attention dense.safetensors --mask 'causal & window:5,0' --block-size 8,4 -o b.safetensors "
             "--backend reference");
    succeeds("attention dense.safetensors --mask-mod 'kv_idx <= q_idx && q_idx - kv_idx <= scalar(reach)' "
             "--scalar reach=5 -o c.safetensors --backend reference");
    safetensors_file *files[3] = {opened("a.safetensors"), opened("b.safetensors"), opened("c.safetensors")};
    for (size_t i = 0; i < T * H * D; i++)
        for (int f = 1; f < 3; f++) {
            double one = element(files[0], "out", i), other = element(files[f], "out", i);
            if (fabs(one - other) > 1e-6) fail_msg("way %d, element %zu: %g, not %g", f, i, other, one);
        }
    for (int f = 0; f < 3; f++) safetensors_close(files[f]);
}

static void refused_input_leaves_no_output(void **state) {
    (void)state;
    fails("attention nowhere.safetensors -o none.safetensors", 2, "No such file");
    fails("attention dense.safetensors -o none.safetensors --backend nope", 2, "nope");
    fails("attention dense.safetensors -o none.safetensors --mask-mod 'kv_idx <'", 2, "does not compile");
    fails("attention dense.safetensors -o none.safetensors --mask 'causal &'", 2, "column 9");
    fails("attention dense.safetensors -o none.safetensors --scalar x=1", 2, "no modifier text reads");
    fails("attention dense.safetensors -o none.safetensors --isa pentium", 2, "isa");
    fails("attention out.safetensors -o none.safetensors", 2, "there is no tensor \"q\"");
    fails("attention dense.safetensors -o absent/none.safetensors", 1, "absent/none.safetensors");
    fails("attention dense.safetensors -o .", 1, "no regular file");
    assert_false(exists("none.safetensors"));
}

/* packed.safetensors with another cu_seqlens_q; if `both`, also cu_seqlens_k, and nothing of the old batch's size. */
static void write_packed(const char *name, const DLTensor *cu_seqlens, bool both) {
    safetensors_file *in = opened("packed.safetensors");
    safetensors_entry entries[8];
    size_t count = 0;
    char path[64];
    for (size_t i = 0; i < in->count; i++) {
        const char *here = in->tensors[i].name;
        if (both && (!strcmp(here, "seqused_k") || !strcmp(here, "alibi_slopes"))) continue;
        bool replaced = !strcmp(here, "cu_seqlens_q") || (both && !strcmp(here, "cu_seqlens_k"));
        entries[count++] = (safetensors_entry){here, replaced ? cu_seqlens : &in->tensors[i].tensor};
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(safetensors_write(path, entries, count));
    safetensors_close(in);
}

static void lying_sequence_lengths_are_refused_before_anything_is_written(void **state) {
    (void)state;
    static const struct {
        int32_t cu[B + 1];
        const char *words;
    } cases[] = {{{0, 30, 20}, "decreases"},
                 {{1, 17, T}, "must start at 0"},
                 {{0, 17, T + 1}, "tokens"},
                 {{0, INT32_MIN, T}, "decreases"},
                 {{0, INT32_MAX, INT32_MAX}, "tokens"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_packed("lying.safetensors", SACCADE_TENSOR(cases[i].cu, SACCADE_I32, B + 1), false);
        fails("attention lying.safetensors -o none.safetensors", 2, cases[i].words);
        fails("check lying.safetensors --mask causal", 2, "cu_seqlens_q");
        fails("bench lying.safetensors --causal", 2, cases[i].words);
    }
    assert_false(exists("none.safetensors"));
}

static void empty_sequences_batches_and_heads_are_legal(void **state) {
    (void)state;
    const int32_t gaps[B + 1] = {0, 0, 9};
    write_packed("gaps.safetensors", SACCADE_TENSOR(gaps, SACCADE_I32, B + 1), false);
    succeeds("check gaps.safetensors --causal --backward");
    write_packed("no-sequence.safetensors", SACCADE_TENSOR(gaps, SACCADE_I32, 1),
                 true); /* tokens, but no sequence */
    succeeds("check no-sequence.safetensors --causal --backward");
    static const char *const shapes[] = {"0,16,2,2,16", "1,0,2,1,16", "1,16,2,1,16,0", "1,16,0,2,16",
                                         "1,16,0,0,16"};
    for (int i = 0; i < 5; i++) {
        char arguments[128];
        snprintf(arguments, sizeof arguments, "bench --shapes %s --backward --warm-up 1 --repeats 1",
                 shapes[i]);
        succeeds(arguments);
    }
}

static void a_failed_run_keeps_the_old_output_and_leaves_no_scratch(void **state) {
    (void)state;
    succeeds("attention dense.safetensors -o kept.safetensors");
    fails("attention dense.safetensors -o kept.safetensors --backend nope", 2, "nope");
    safetensors_close(opened("kept.safetensors"));
    DIR *entries = opendir(folder);
    for (struct dirent *entry; (entry = readdir(entries));)
        if (strstr(entry->d_name, "kept.safetensors.")) fail_msg("%s was left behind", entry->d_name);
    closedir(entries);
}

static void output_may_replace_its_own_input(void **state) {
    (void)state;
    char line[256];
    snprintf(line, sizeof line, "cp %s/dense.safetensors %s/same.safetensors", folder, folder);
    assert_int_equal(system(line), 0);
    succeeds("attention same.safetensors -o same.safetensors");
    safetensors_file *out = opened("same.safetensors");
    assert_int_equal(out->count, 2);
    safetensors_close(out);
}

/* ---- the others ---- */

static void check_passes_on_the_sample_and_says_by_how_much(void **state) {
    (void)state;
    json_t *root = prints_json("check " SAMPLE " --causal --json");
    assert_true(json_is_true(json_object_get(root, "good")));
    json_t *tensors = json_object_get(root, "tensors");
    assert_int_equal(json_array_size(tensors), 2);
    json_t *out = json_array_get(tensors, 0);
    assert_string_equal(json_string_value(json_object_get(out, "name")), "out");
    double error = json_real_value(json_object_get(out, "error"));
    double plain = json_real_value(json_object_get(out, "plain_error"));
    double bound = json_real_value(json_object_get(out, "bound"));
    double largest = json_real_value(json_object_get(out, "largest"));
    assert_true(error > 0 && plain > error && largest > 1);
    assert_true(fabs(bound - (2 * plain + 1e-5 * largest)) < 1e-12);
    json_decref(root);
}

/* The plain formula is the measure, so it must itself be right: in fp32 it is nearly exact. */
static void expect_close_check(const char *arguments, int num_tensors) {
    json_t *root = prints_json(arguments), *tensors = json_object_get(root, "tensors");
    assert_int_equal(json_array_size(tensors), num_tensors);
    for (int i = 0; i < num_tensors; i++) {
        json_t *tensor = json_array_get(tensors, (size_t)i);
        double plain = json_real_value(json_object_get(tensor, "plain_error"));
        double largest = json_real_value(json_object_get(tensor, "largest"));
        if (!(largest > 0) || plain > 1e-5 * largest)
            fail_msg("saccade %s\n%s: the plain formula errs by %g of %g", arguments,
                     json_string_value(json_object_get(tensor, "name")), plain, largest);
    }
    json_decref(root);
}

static void check_covers_every_feature_at_once(void **state) {
    (void)state;
    expect_close_check(
        "check dense.safetensors --json --backward --causal --window 9,3 --softcap 2 --scale 0.4 "
        "--score-mod 'score * aux_f32(table, h)' --score-mod-grad "
        "'{ aux_grad(table, h, grad * score); return grad * aux_f32(table, h); }'",
        7);
    expect_close_check(
        "check dense.safetensors --json --backward --mask 'causal & mod:(kv_idx + h) % 3 != b' "
        "--block-size 8,8",
        6);
    expect_close_check("check packed.safetensors --json --backward --window 4,6:bottom-right", 5);
    expect_close_check("check packed.safetensors --json --backward --mask-mod 'kv_idx != q_idx / 2 + h'", 5);
}

static void bench_prints_one_row_for_each_pass_and_shape(void **state) {
    (void)state;
    json_t *rows =
        prints_json("bench --shapes 1,32,2,1,16 --shapes 1,16,2,2,8,48,24 --dtype fp32 --causal --backward "
                    "--warm-up 1 --repeats 3 --json");
    assert_int_equal(json_array_size(rows), 4);
    json_t *last = json_array_get(rows, 3);
    assert_string_equal(json_string_value(json_object_get(last, "op")), "attn_bwd");
    assert_int_equal(json_integer_value(json_object_get(last, "seqlen_k")), 48);
    assert_int_equal(json_integer_value(json_object_get(last, "head_dim_v")), 24);
    double p50 = json_real_value(json_object_get(last, "us_p50"));
    assert_true(p50 > 0 && json_real_value(json_object_get(last, "us_p90")) >= p50);
    /* 16 rows see 1 to 16 keys: 136 pairs, 2 heads. */
    double flop = json_real_value(json_object_get(last, "tflops")) * 1e12 * p50 * 1e-6;
    assert_true(fabs(flop - 2.5 * 2 * 136 * 2 * (8 + 24)) < 1);
    json_decref(rows);
}

static void backends_are_asked_about_what_no_memory_holds(void **state) {
    (void)state;
    succeeds("backends --explain --shapes 16,16777216,64,8,256 --causal --backward"); /* 8 TiB of q */
    assert_non_null(strstr(out_text, "cpu            usable"));
}

static void mask_counts_blocks_and_rows(void **state) {
    (void)state;
    json_t *root = prints_json("mask 'eagle3:256' --q-len 256 --kv-len 1280 --json");
    assert_int_equal(json_integer_value(json_object_get(root, "full")), 1);
    assert_int_equal(json_integer_value(json_object_get(root, "partial")), 2);
    assert_int_equal(json_integer_value(json_object_get(root, "diagonal")), 8);
    assert_int_equal(json_integer_value(json_object_get(root, "period")), 256);
    json_t *bins = json_object_get(root, "blocks_by_row");
    assert_int_equal(json_array_size(bins), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(bins, 0), "from")), 5);
    json_decref(root);
    succeeds("mask causal --q-len 1000 --block-size 64,32");
    assert_non_null(strstr(out_text, "16 x 32 blocks of 64 x 32"));
    /* All heads share one list, of 36 of its 64 blocks. */
    succeeds("mask causal --q-len 1024 --batch 3 --heads 2");
    assert_non_null(strstr(out_text, "density   56.25 %"));
    succeeds("mask 'prefix:100,200,300 | causal' --q-len 1024 --batch 3");
    assert_non_null(strstr(out_text, "in 3 lists\n"));
    fails("mask causal --q-len 536870912", 1, "block mask: 8796095119360 listed blocks need 65536.0 GiB");
}

#ifdef SACCADE_HAVE_CAIRO
static void pictures_are_drawn(void **state) {
    (void)state;
    succeeds("mask 'causal | window:40,40' --q-len 500 --kv-len 700 --png mask.png --svg mask.svg");
    succeeds("attention dense.safetensors --causal --map 1,3 --png map.png");
    read_text("mask.svg", out_text, sizeof out_text);
    assert_non_null(strstr(out_text, "<svg"));
    read_text("mask.png", out_text, sizeof out_text);
    assert_memory_equal(out_text, "\x89PNG\r\n\x1a\n", 8);
    read_text("map.png", out_text, sizeof out_text);
    assert_memory_equal(out_text, "\x89PNG\r\n\x1a\n", 8);
    fails("attention dense.safetensors --map 4 --png none.png", 2, "4 heads");
    fails("mask causal --q-len 0 --png none.png", 2, "nothing to draw");
    assert_false(exists("none.png"));
}
#else
static void pictures_are_drawn(void **state) {
    (void)state;
    fails("mask causal --q-len 500 --png mask.png", 1, "made without cairo");
    assert_false(exists("mask.png"));
}
#endif

/* What no GPU can be found for here is skipped. */
static void succeeds_on_a_gpu(const char *arguments) {
    int code = run(arguments);
    if (code && strstr(err_text, "GPU")) {
        skip_because("%s", err_text);
    }
    if (code) fail_msg("saccade %s\nexit status %d\n%s%s", arguments, code, out_text, err_text);
}

static void a_gpu_computes_what_its_backend_is_named_for(void **state) {
    (void)state;
    succeeds_on_a_gpu("check dense.safetensors --backend cuda --backward --causal --window 9,3 --softcap 2 "
                      "--score-mod 'score * aux_f32(table, h)' --score-mod-grad "
                      "'{ aux_grad(table, h, grad * score); return grad * aux_f32(table, h); }'");
    assert_non_null(strstr(out_text, "cuda-portable")); /* fp32 */
    succeeds("check packed.safetensors --backend cuda-portable --backward --mask 'causal & window:5,0' "
             "--block-size 16,8");
    succeeds("attention dense.safetensors --causal -o host.safetensors");
    succeeds("attention dense.safetensors --causal --backend cuda -o gpu.safetensors");
    safetensors_file *host = opened("host.safetensors"), *gpu = opened("gpu.safetensors");
    for (size_t e = 0; e < T * H * D; e++) {
        double a = element(host, "out", e), b = element(gpu, "out", e);
        if (!(fabs(a - b) <= 1e-4)) fail_msg("element %zu of out is %g on the GPU, %g on the host", e, b, a);
    }
    safetensors_close(host);
    safetensors_close(gpu);
    json_t *rows = prints_json("bench --shapes 1,64,2,1,64 --shapes 1,128,2,1,64 --backward --backend cuda "
                               "--warm-up 1 --repeats 3 --json");
    assert_int_equal(json_array_size(rows), 4);
    json_decref(rows);
}

static void backends_tell_why_not(void **state) {
    (void)state;
    json_t *list = prints_json("backends --json");
    assert_true(json_array_size(list) >= 1);
    json_decref(list);
    list = prints_json("backends --explain --shapes 1,16,2,2,8 --causal --backward --json");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *entry = json_array_get(list, i);
        bool usable = json_is_true(json_object_get(entry, "usable"));
        assert_int_equal(json_array_size(json_object_get(entry, "reasons")) == 0, usable);
    }
    json_decref(list);
    /* A GPU's memory is of no use to the others, whether there is a GPU or not. */
    run("backends --explain --shapes 1,16,2,2,8 --backend cuda");
    assert_non_null(strstr(out_text, "tensors are on cuda, it reads host memory only"));
    fails("backends --shapes 1,16,2,2,8", 2, "--explain");
    fails("backends --explain", 2, "IN or --shapes");
}

static void wrong_usage_is_status_2_with_words(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "Usage"},
        {"frobnicate", "none of its commands"},
        {"attention", "IN is missing"},
        {"attention dense.safetensors", "-o OUT is missing"},
        {"attention dense.safetensors other -o x", "other: one input is enough, and it is dense"},
        {"attention dense.safetensors -o x --causal bottom-right", "it is written --causal=bottom-right"},
        {"attention dense.safetensors -o x --causal=left", "top-left or bottom-right"},
        {"attention dense.safetensors -o x --window 3", "LEFT,RIGHT"},
        {"attention dense.safetensors -o x --window 3,-2", "LEFT,RIGHT"},
        {"attention dense.safetensors -o x --window 3,2:left", "LEFT,RIGHT"},
        {"attention dense.safetensors -o x --softcap 0", "above 0"},
        {"attention dense.safetensors -o x --scale nan", "a number"},
        {"nsa dense.safetensors -o x --scale 1e39", "a number"},
        {"attention dense.safetensors -o x --scalar a", "--scalar a: expected NAME=X"},
        {"attention dense.safetensors -o x --scalar a=1e39", "--scalar a=1e39: expected NAME=X"},
        {"attention dense.safetensors -o x --scalar a=1 --scalar a=2", "--scalar a=2: expected NAME=X"},
        {"attention dense.safetensors -o x --score-mod 'score*scalar(a)'", "there is no scalar 'a'"},
        {"mask 'mod:aux_i32(a, b) == 1' --q-len 8", "there is no aux tensor 'a'"},
        {"attention dense.safetensors -o x --threads 0", "1 to 4096"},
        {"attention dense.safetensors -o x --isa generic --backend cuda", "--isa: is the cpu backend's"},
        {"attention dense.safetensors -o x --block-size 8,8", "needs --mask"},
        {"attention dense.safetensors -o x --mask causal --mask-mod 1", "& mod:TEXT"},
        {"attention dense.safetensors -o x --score-mod score --backward", "--score-mod-grad"},
        {"attention dense.safetensors -o x --map 1", "go together"},
        {"attention dense.safetensors --map 1", "go together"},
        {"attention dense.safetensors --png x.png", "go together"},
        {"attention dense.safetensors -o x --mask document:3,4", "sum"},
        {"check dense.safetensors --frob", "unrecognized option"},
        {"bench", "IN or --shapes is missing"},
        {"bench --shapes 1,2,3", "B,Nq,H,Hkv,D"},
        {"bench --shapes 1,16,3,2,16", "multiple"},
        {"bench --shapes 65536,16777216,65536,65536,256", "q: dimension 0, of extent 65536, reaches beyond"},
        {"bench dense.safetensors --shapes 1,16,2,2,16", "one of them"},
        {"bench --shapes 1,16,2,2,16 --repeats 0", "whole number from 1 to"},
        {"bench --shapes 1,16,2,2,12", "\n  cpu: head_dim 12 is no multiple of 8"},
        {"bench --shapes 1,16,2,2,16 --dtype int8", "bf16, fp16, fp32 or fp64"},
        {"mask", "SPEC is missing"},
        {"mask causal", "--q-len is missing"},
        {"mask causal --q-len -3", "--q-len"},
        {"mask causal window:3,0 --q-len 8", "one SPEC is enough; quote it"},
        {"mask causal --q-len 8 --plane 0,0", "needs --png"},
        {"mask causal --q-len 8 --plane 0,1 --png x.png", "1 heads"},
        {"mask causal --q-len 8 --aux dense.safetensors", "no mod:TEXT"},
        {"attention dense.safetensors --backward --map 1 --png x.png", "needs -o OUT"},
        {"bench dense.safetensors --dtype fp32", "needs --shapes"},
        {"mask 'causal & ' --q-len 8", "column"},
        {"mask 'eagle3:7' --q-len 8", "must be the query length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) fails(cases[i][0], 2, cases[i][1]);
}

static void help_and_version_are_status_0(void **state) {
    (void)state;
    static const char *const commands[] = {"", "attention", "check", "bench", "nsa", "mask", "backends"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "%s --help", commands[i]);
        succeeds(arguments);
        assert_non_null(strstr(out_text, "Usage: saccade"));
        assert_non_null(strstr(out_text, commands[i]));
    }
    succeeds("--version");
    assert_non_null(strstr(out_text, "saccade 0."));
}

/* What the command writes when its stderr is a terminal. */
static void run_on_terminal(const char *arguments, char *text, size_t size) {
    char line[512];
    int terminal;
    pid_t child = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(child >= 0);
    if (child == 0) {
        snprintf(line, sizeof line, "exec %s %s >/dev/null", SACCADE_COMMAND, arguments);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    size_t used = 0;
    for (ssize_t got; used < size - 1 && (got = read(terminal, text + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    text[used] = 0;
    close(terminal);
    waitpid(child, NULL, 0);
}

static void long_work_shows_a_bar_on_a_terminal_only(void **state) {
    (void)state;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0) skip_because("no /dev/pts here");
    close(terminal);
    const char *arguments = "bench --shapes 1,64,2,2,16 --dtype fp32";
    run_on_terminal(arguments, out_text, sizeof out_text);
    if (!strstr(out_text, "forward  [##")) fail_msg("no bar in\n%s", out_text);
    const char *wiped = strstr(out_text, "\r\033[K");
    while (wiped && strstr(wiped + 1, "\r\033[K")) wiped = strstr(wiped + 1, "\r\033[K");
    assert_non_null(wiped);
    assert_string_equal(wiped, "\r\033[K"); /* nothing is left of it */
    succeeds(arguments);
    assert_string_equal(err_text, "");
}

static void a_full_standard_output_is_status_1(void **state) {
    (void)state;
    char line[512];
    snprintf(line, sizeof line, "%s mask causal --q-len 256 >/dev/full 2>%s/stderr", SACCADE_COMMAND, folder);
    int status = system(line);
    read_text("stderr", err_text, sizeof err_text);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(err_text, "standard output"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_writes_out_and_lse),
        cmocka_unit_test(backward_adds_the_gradients_asked_for),
        cmocka_unit_test(packed_sequences_do_not_see_each_other),
        cmocka_unit_test(a_block_mask_is_the_mask_it_names),
        cmocka_unit_test(refused_input_leaves_no_output),
        cmocka_unit_test(lying_sequence_lengths_are_refused_before_anything_is_written),
        cmocka_unit_test(empty_sequences_batches_and_heads_are_legal),
        cmocka_unit_test(a_failed_run_keeps_the_old_output_and_leaves_no_scratch),
        cmocka_unit_test(output_may_replace_its_own_input),
        cmocka_unit_test(check_passes_on_the_sample_and_says_by_how_much),
        cmocka_unit_test(check_covers_every_feature_at_once),
        cmocka_unit_test(bench_prints_one_row_for_each_pass_and_shape),
        cmocka_unit_test(backends_are_asked_about_what_no_memory_holds),
        cmocka_unit_test(mask_counts_blocks_and_rows),
        cmocka_unit_test(pictures_are_drawn),
        cmocka_unit_test(a_gpu_computes_what_its_backend_is_named_for),
        cmocka_unit_test(backends_tell_why_not),
        cmocka_unit_test(wrong_usage_is_status_2_with_words),
        cmocka_unit_test(help_and_version_are_status_0),
        cmocka_unit_test(long_work_shows_a_bar_on_a_terminal_only),
        cmocka_unit_test(a_full_standard_output_is_status_1),
    };
    cmocka_set_test_filter(getenv("SACCADE_TEST_FILTER"));
    return cmocka_run_group_tests(tests, make_inputs, remove_inputs);
}
