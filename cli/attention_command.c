/* attention_command.c - saccade attention IN -o OUT: computes, writes, and draws where attention went. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

#include "attention_map.h"
#include "command.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "values.h"
#include "workload.h"

typedef struct command_options {
    attention_options attention;
    map_options map;
    const char *output;
    bool verbose;
} command_options;

static const struct argp_option option_list[] = {
    {NULL, 0, NULL, 0, "Output:", GROUP_OUTPUT},
    {"output", 'o', "OUT", 0, "Write out, lse and the gradients to this safetensors file", 0},
    {"verbose", 'v', NULL, 0, "Say what was computed, by which backend, how fast", 0},
    {0}};

static const plain_value values[] = {{'o', VALUE_TEXT, offsetof(command_options, output), 0, 0},
                                     {'v', VALUE_FLAG, offsetof(command_options, verbose), 0, 0},
                                     {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
    command_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->attention;
        state->child_inputs[1] = &options->map;
        return 0;
    case ARGP_KEY_END:
        if (!options->output && !map_asked_for(&options->map)) argp_error(state, "-o OUT is missing");
        if (!options->output && options->attention.backward) argp_error(state, "--backward: needs -o OUT");
        return 0;
    default:
        return store_value(values, option_list, key, text, state);
    }
}

static void print_pass(const char *name, const workload *work, bool backward, double seconds) {
    char *backend = workload_backend(work, backward);
    printf("%-8s  %.2f ms, backend %s%s\n", name, 1e3 * seconds, backend ? backend : "?",
           backward && work->dout_is_ones ? ", of the sum of out" : "");
    free(backend);
}

static bool write_results(const results *r, const command_options *options) {
    safetensors_entry entries[MAX_RESULTS];
    size_t count = 0;
    for (int i = 0; i < MAX_RESULTS; i++)
        if (r->tensor[i]) entries[count++] = (safetensors_entry){r->name[i], r->tensor[i]};
    const bool written = safetensors_write(options->output, entries, count);
    if (written && options->verbose) safetensors_list(options->output, entries, count);
    return written;
}

static int compute(const workload *work, const command_options *options) {
    results r = results_new(work);
    int code = EXIT_OK;
    progress_begin("forward", 0);
    double begin = seconds_now();
    saccade_status status = workload_forward(work, &r);
    double middle = seconds_now(), end = middle;
    progress_end();
    if (status != SACCADE_OK) code = complain_status("forward", status);
    if (code == EXIT_OK && work->backward) {
        progress_begin("backward", 0);
        status = workload_backward(work, &r);
        end = seconds_now();
        progress_end();
        if (status != SACCADE_OK) code = complain_status("backward", status);
    }
    if (code == EXIT_OK) {
        status = workload_fetch(&r);
        if (status != SACCADE_OK) code = complain_status("results", status);
    }
    if (code == EXIT_OK && options->verbose) {
        print_pass("forward", work, false, middle - begin);
        if (work->backward) print_pass("backward", work, true, end - middle);
    }
    if (code == EXIT_OK && options->output && !write_results(&r, options)) code = EXIT_FAILED;
    results_free(&r);
    return code;
}

static int draw_map(const workload *work, const command_options *options) {
    char *mask = mask_text(&options->attention);
    int code =
        draw_attention_map(work, options->map.head[0], options->map.head[1], mask, &options->map.files);
    free(mask);
    return code;
}

static int run(command_options *options) {
    workload work;
    int code = EXIT_OK;
    /* Long work should not end at a folder that cannot be written. */
    if (options->output && !output_possible(options->output)) return EXIT_FAILED;
    code = workload_open(&work, &options->attention, NULL);
    if (code == EXIT_OK) code = workload_enter_gpu(&work);
    if (code == EXIT_OK && (options->output || options->verbose)) code = compute(&work, options);
    if (code == EXIT_OK && options->map.head[1] >= 0) code = draw_map(&work, options);
    workload_close(&work);
    return code;
}

int attention_command(int argc, char **argv) {
    static const struct argp_child children[] = {{&attention_argp, 0, NULL, 0}, {&map_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "IN -o OUT",
        .doc = "Computes attention of the tensors q, k and v in the safetensors file IN.\v"
               "q, k, v are (B, N, H, D), or (T, H, D) with cu_seqlens_q and cu_seqlens_k. IN may also hold "
               "seqused_q, seqused_k, sink, alibi_slopes, dout; any other tensor can be read by name in a "
               "modifier's TEXT. OUT gets out and lse, with --backward also dq, dk, dv, dsink and the "
               "gradients of what --score-mod-grad adds to.",
        .children = children,
    };
    command_options options = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    int code = run(&options);
    free_sources(&options.attention.sources);
    return code;
}
