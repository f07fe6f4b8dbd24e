/* test_command_nsa.c - `saccade nsa`: what it computes, saves, prints, draws and refuses. */
#include <math.h>
#include <saccade/nsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/command_run.h"
#include "support/random.h"

#define SAMPLE SACCADE_TEST_DATA "/sample.safetensors"

/* In the folder: dense.safetensors with weights and w_gate, packed.safetensors with gates; long.safetensors, whose
 * compressed keys are more than a block of them. */
enum { B = 2, N = 40, H = 4, HKV = 2, D = 16, T = B * N, LONG = 300 };

static void fill(float *values, size_t count, uint64_t seed) {
    test_random random = {seed};
    for (size_t i = 0; i < count; i++) values[i] = (float)random_normal(&random);
}

static bool write_inputs(const char *name, const safetensors_entry *entries, size_t count) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return safetensors_write(path, entries, count);
}

static int make_inputs(void **state) {
    (void)state;
    static float q[LONG * H * D], k[LONG * HKV * D], v[LONG * HKV * D], w[HKV * D * D], w_gate[H * 3 * D],
        gates[T * H * 3], sink[H];
    static int32_t cu[] = {0, 17, 17, T}, other[] = {0, 16, 17, T};
    fill(q, LONG * H * D, 1);
    fill(k, LONG * HKV * D, 2);
    fill(v, LONG * HKV * D, 3);
    fill(w, HKV * D * D, 4);
    fill(w_gate, H * 3 * D, 5);
    fill(gates, T * H * 3, 6);
    const safetensors_entry dense[] = {{"q", SACCADE_TENSOR(q, SACCADE_F32, B, N, H, D)},
                                       {"k", SACCADE_TENSOR(k, SACCADE_F32, B, N, HKV, D)},
                                       {"v", SACCADE_TENSOR(v, SACCADE_F32, B, N, HKV, D)},
                                       {"w_k", SACCADE_TENSOR(w, SACCADE_F32, HKV, D, D)},
                                       {"w_v", SACCADE_TENSOR(w, SACCADE_F32, HKV, D, D)},
                                       {"w_gate", SACCADE_TENSOR(w_gate, SACCADE_F32, H, 3, D)},
                                       {"sink", SACCADE_TENSOR(sink, SACCADE_F32, H)}};
    safetensors_entry packed[] = {{"q", SACCADE_TENSOR(q, SACCADE_F32, T, H, D)},
                                  {"k", SACCADE_TENSOR(k, SACCADE_F32, T, HKV, D)},
                                  {"v", SACCADE_TENSOR(v, SACCADE_F32, T, HKV, D)},
                                  {"cu_seqlens_q", SACCADE_TENSOR(cu, SACCADE_I32, 4)},
                                  {"cu_seqlens_k", SACCADE_TENSOR(cu, SACCADE_I32, 4)},
                                  {"gates", SACCADE_TENSOR(gates, SACCADE_F32, T, H, 3)}};
    const safetensors_entry longer[] = {{"q", SACCADE_TENSOR(q, SACCADE_F32, 1, LONG, H, D)},
                                        {"k", SACCADE_TENSOR(k, SACCADE_F32, 1, LONG, HKV, D)},
                                        {"v", SACCADE_TENSOR(v, SACCADE_F32, 1, LONG, HKV, D)}};
    bool good = make_folder() && write_inputs("dense.safetensors", dense, 6) &&
                write_inputs("long.safetensors", longer, 3) && write_inputs("sink.safetensors", dense, 7) &&
                write_inputs("packed.safetensors", packed, 6);
    packed[4].tensor = SACCADE_TENSOR(other, SACCADE_I32, 4);
    return good && write_inputs("differ.safetensors", packed, 6) ? 0 : -1;
}

static int remove_inputs(void **state) {
    (void)state;
    return remove_folder();
}

#define SMALL " --block 4 --top-k 3 --window 6 --query-tile 8"

static void expect_tensors(const char *file, const char *names) {
    safetensors_file *out = opened(file);
    size_t count = 0;
    char list[256];
    snprintf(list, sizeof list, "%s", names);
    for (char *name = strtok(list, " "); name; name = strtok(NULL, " "), count++)
        if (!safetensors_find(out, name)) fail_msg("%s has no %s", file, name);
    if (out->count != count) fail_msg("%s has %zu tensors, expected %s", file, out->count, names);
    safetensors_close(out);
}

static void out_gets_what_is_asked_for(void **state) {
    (void)state;
    succeeds("nsa dense.safetensors -o out.safetensors" SMALL);
    assert_string_equal(out_text, "");
    expect_tensors("out.safetensors", "out");
    succeeds("nsa dense.safetensors -o all.safetensors --backward --save-blocks --save-lse -v" SMALL);
    assert_non_null(strstr(out_text, "backward"));
    assert_non_null(strstr(out_text, "all.safetensors:\n  out      ("));
    assert_non_null(strstr(out_text, "\n  indices  ("));
    expect_tensors("all.safetensors", "out indices lse_cmp lse_slc lse_win dq dk dv dw_k dw_v dw_gate");
    succeeds("nsa packed.safetensors -o packed-all.safetensors --backward --save-blocks" SMALL);
    expect_tensors("packed-all.safetensors", "out indices dq dk dv dgates");
}

static void a_window_over_everything_and_every_block_is_dense_attention(void **state) {
    (void)state;
    /* With every block selected both of these branches are dense; uniform gates give two thirds of it, and the
     * compressed branch is the rest. The first 63 queries of the sample see no compressed key. */
    succeeds("nsa " SAMPLE " -o nsa.safetensors --top-k 32 --window 2048");
    succeeds("attention " SAMPLE " -o dense.out.safetensors --causal");
    safetensors_file *sparse = opened("nsa.safetensors"), *dense = opened("dense.out.safetensors");
    for (size_t e = 0; e < 63 * 8 * 64; e++) {
        double found = element(sparse, "out", e), wanted = element(dense, "out", e) * 2 / 3;
        if (fabs(found - wanted) > 0.02 * (1 + fabs(wanted)))
            fail_msg("element %zu: %g, not %g", e, found, wanted);
    }
    safetensors_close(sparse);
    safetensors_close(dense);
}

static void options_reach_the_selection(void **state) {
    (void)state;
    /* Block 0 and the last two, and nothing else, for each of ten blocks' queries. */
    succeeds("nsa dense.safetensors -o blocks.safetensors --save-blocks --block 4 --top-k 3 --query-tile 4 "
             "--initial-blocks 1 --local-blocks 2 --selection-score logits --select-per group");
    safetensors_file *out = opened("blocks.safetensors");
    const DLTensor *indices = safetensors_find(out, "indices");
    assert_int_equal(indices->shape[1], HKV);
    for (int tile = 0; tile < 10; tile++) {
        const int32_t *found = (const int32_t *)indices->data + tile * 3;
        const int32_t expected[] = {0, tile > 1 ? tile - 1 : tile == 1 ? 1 : -1, tile > 1 ? tile : -1};
        for (int n = 0; n < 3; n++)
            if (found[n] != expected[n])
                fail_msg("tile %d, place %d: block %d, not %d", tile, n, found[n], expected[n]);
    }
    safetensors_close(out);
    succeeds("nsa dense.safetensors -o a.safetensors --block 4 --visibility started --save-lse");
    succeeds("nsa dense.safetensors -o b.safetensors --block 4 --save-lse");
    safetensors_file *started = opened("a.safetensors"), *complete = opened("b.safetensors");
    assert_true(isfinite(element(started, "lse_cmp", 0)));
    assert_true(element(complete, "lse_cmp", 2) == -INFINITY && isfinite(element(complete, "lse_cmp", 3)));
    safetensors_close(started);
    safetensors_close(complete);
}

#define BASE_OPTIONS " --threads 1 --block 1 --top-k 4 --window 6 --query-tile 16 "

/* out of the library, called with these params, or where they are 0 those of BASE_OPTIONS. */
static void out_of_call(saccade_nsa_params p, float *out) {
    p.block = p.block ? p.block : 1;
    p.top_k = p.top_k ? p.top_k : 4;
    p.window = p.window ? p.window : 6;
    p.query_tile = p.query_tile ? p.query_tile : 16;
    saccade_context *ctx;
    safetensors_file *in = opened("long.safetensors");
    assert_int_equal(saccade_context_create(&ctx, &(saccade_context_params){.num_threads = 1}), SACCADE_OK);
    const saccade_nsa_tensors t = {
        .q = safetensors_find(in, "q"), .k = safetensors_find(in, "k"), .v = safetensors_find(in, "v")};
    if (saccade_nsa_forward(ctx, &t, SACCADE_TENSOR(out, SACCADE_F32, 1, LONG, H, D), &p) != SACCADE_OK)
        fail_msg("%s", saccade_last_error());
    saccade_context_destroy(ctx);
    safetensors_close(in);
}

static void out_of_command(const char *options, float *out) {
    char arguments[256];
    snprintf(arguments, sizeof arguments, "nsa long.safetensors -o long.out.safetensors" BASE_OPTIONS "%s",
             options);
    succeeds(arguments);
    safetensors_file *file = opened("long.out.safetensors");
    memcpy(out, safetensors_find(file, "out")->data, LONG * H * D * sizeof *out);
    safetensors_close(file);
}

/* The last of two equal options counts, so each of these changes one parameter. */
static void an_option_is_the_parameter_of_its_name(void **state) {
    (void)state;
    static const struct {
        const char *option;
        saccade_nsa_params params;
    } cases[] = {
        {"--block 2", {.block = 2}},
        {"--top-k 7", {.top_k = 7}},
        {"--window 9", {.window = 9}},
        {"--query-tile 5", {.query_tile = 5}},
        {"--scale 0.6", {.has_scale = true, .scale = 0.6f}},
        {"--initial-blocks 2", {.initial_blocks = 2}},
        {"--local-blocks 3", {.local_blocks = 3}},
        {"--selection-score probabilities", {.score = SACCADE_NSA_PROBABILITIES}},
        {"--select-per group", {.select_per = SACCADE_NSA_PER_GROUP}},
        {"--block 4 --visibility started", {.block = 4, .visibility = SACCADE_NSA_STARTED}},
        {"--compressed-top-k 1", {.compressed_top_k = 1}},
    };
    static float base[LONG * H * D], found[LONG * H * D], expected[LONG * H * D];
    out_of_command("", base);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        out_of_command(cases[i].option, found);
        out_of_call(cases[i].params, expected);
        if (memcmp(found, expected, sizeof found) != 0) fail_msg("%s is another parameter", cases[i].option);
        if (memcmp(found, base, sizeof found) == 0) fail_msg("%s changes nothing", cases[i].option);
    }
    static const char *const no_change[] = {"--deterministic", "--backend cpu"};
    for (size_t i = 0; i < sizeof no_change / sizeof *no_change; i++) {
        out_of_command(no_change[i], found);
        if (memcmp(found, base, sizeof found) != 0) fail_msg("%s changes out", no_change[i]);
    }
}

/* The fields of the line that begins with this name. */
static void read_stats(const char *name, double fields[4]) {
    for (char *line = strtok(out_text, "\n"); line; line = strtok(NULL, "\n")) {
        char first[32];
        if (sscanf(line, "%31s %lf %lf %lf %lf", first, &fields[0], &fields[1], &fields[2], &fields[3]) ==
                5 &&
            !strcmp(first, name))
            return;
    }
    fail_msg("there is no line \"%s\"", name);
}

static void stats_say_what_the_selection_keeps(void **state) {
    (void)state;
    double few[4], all[4];
    succeeds("nsa " SAMPLE " --stats --block 32 --top-k 8 --window 128 --query-tile 64");
    read_stats("all", few);
    assert_true(few[0] > 0.5 && few[0] < 0.99 && few[1] > 0.3 && few[1] < few[2] && few[0] < few[2]);
    assert_true(few[3] > 0.01 && few[3] < 1);
    succeeds("nsa " SAMPLE " --stats --block 64 --top-k 32 --window 2048");
    read_stats("7", all);
    assert_true(all[0] == 1 && all[1] == 1 && all[2] == 1);
    succeeds("nsa packed.safetensors --stats" SMALL);
    read_stats("3", all);
    assert_true(all[2] >= all[0] && all[2] >= all[1] && all[2] <= 1);
}

static void what_is_kept_is_drawn(void **state) {
    (void)state;
    if (run("nsa dense.safetensors --map 1,3 --png kept.png --svg kept.svg" SMALL) &&
        strstr(err_text, "without cairo"))
        skip_because("%s", err_text);
    succeeds("nsa dense.safetensors --map 1,3 --png kept.png --svg kept.svg" SMALL);
    read_text("kept.png", out_text, sizeof out_text);
    assert_memory_equal(out_text, "\x89PNG\r\n\x1a\n", 8);
    read_text("kept.svg", out_text, sizeof out_text);
    assert_non_null(strstr(out_text, "<svg"));
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"nsa", "IN is missing"},
        {"nsa dense.safetensors", "-o OUT is missing"},
        {"nsa dense.safetensors --stats --backward", "need -o OUT"},
        {"nsa dense.safetensors -o x --map 1", "--map and --png"},
        {"nsa dense.safetensors -o x --query-tile 257",
         "--query-tile 257: expected a whole number from 1 to 256"},
        {"nsa dense.safetensors -o x --selection-score best", "expected logits or probabilities"},
        {"nsa dense.safetensors -o x --top-k 2 --initial-blocks 2", "top_k: 2, but 2 initial"},
        {"nsa dense.safetensors -o x --backend nope", "nope"},
        {"nsa dense.safetensors --map 4 --png x.png", "4 heads"},
        {"nsa sink.safetensors -o x", "\"sink\", which native sparse attention does not know"},
        {"nsa differ.safetensors -o x", "cu_seqlens_q and cu_seqlens_k differ"},
        {"nsa nowhere.safetensors -o x", "No such file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) fails(cases[i][0], 2, cases[i][1]);
    assert_false(exists("x"));
}

static void gpu_gives_what_the_host_gives(void **state) {
    (void)state;
    static const char *const inputs[] = {"dense", "packed"};
    static const char *const results[] = {"out", "dq", "dk", "dv"};
    for (int i = 0; i < 2; i++) {
        char arguments[160];
        snprintf(arguments, sizeof arguments, "nsa %s.safetensors -o host.safetensors --backward" SMALL,
                 inputs[i]);
        succeeds(arguments);
        snprintf(arguments, sizeof arguments,
                 "nsa %s.safetensors -o gpu.safetensors --backward --backend cuda" SMALL, inputs[i]);
        if (run(arguments) != 0) {
            assert_non_null(strstr(err_text, "GPU"));
            skip_because("%s", err_text);
        }
        safetensors_file *host = opened("host.safetensors"), *gpu = opened("gpu.safetensors");
        for (int n = 0; n < 4; n++)
            for (size_t e = 0; e < T * HKV * D; e++) {
                double a = element(host, results[n], e), b = element(gpu, results[n], e);
                if (!(fabs(a - b) <= 1e-4))
                    fail_msg("%s: element %zu of %s is %g on the GPU, %g on the host", inputs[i], e,
                             results[n], b, a);
            }
        safetensors_close(host);
        safetensors_close(gpu);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(out_gets_what_is_asked_for),
        cmocka_unit_test(a_window_over_everything_and_every_block_is_dense_attention),
        cmocka_unit_test(an_option_is_the_parameter_of_its_name),
        cmocka_unit_test(options_reach_the_selection),
        cmocka_unit_test(stats_say_what_the_selection_keeps),
        cmocka_unit_test(what_is_kept_is_drawn),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(gpu_gives_what_the_host_gives),
    };
    return cmocka_run_group_tests(tests, make_inputs, remove_inputs);
}
