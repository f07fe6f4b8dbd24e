/* nsa_command.c - saccade nsa IN -o OUT: native sparse attention, what it selects, and what that keeps. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "dtype.h"
#include "nsa_stats.h"
#include "output.h"
#include "progress.h"
#include "values.h"

typedef struct command_options {
    attention_options attention; /* only what an nsa_work takes of it */
    saccade_nsa_params params;
    map_options map;
    const char *output;
    bool save_blocks, save_lse, stats, verbose;
} command_options;

enum {
    KEY_BLOCK = 0x500,
    KEY_TOP_K,
    KEY_WINDOW,
    KEY_QUERY_TILE,
    KEY_SCORE,
    KEY_SELECT_PER,
    KEY_COMPRESSED_TOP_K,
    KEY_INITIAL_BLOCKS,
    KEY_LOCAL_BLOCKS,
    KEY_VISIBILITY,
    KEY_SCALE,
    KEY_BACKWARD,
    KEY_DETERMINISTIC,
    KEY_BACKEND,
    KEY_THREADS,
    KEY_SAVE_BLOCKS,
    KEY_SAVE_LSE,
    KEY_STATS,
};

static const struct argp_option option_list[] = {
    {NULL, 0, NULL, 0, "What is attended to:", GROUP_MASK},
    {"block", KEY_BLOCK, "L", 0, "Tokens a compressed key stands for (default 64)", 0},
    {"top-k", KEY_TOP_K, "K", 0, "Blocks selected for each tile of queries (default 16)", 0},
    {"window", KEY_WINDOW, "N", 0, "Last keys that each query sees, its own included (default 512)", 0},
    {"query-tile", KEY_QUERY_TILE, "N", 0, "Queries that share a selection, 1 to 256 (default 256)", 0},
    {"selection-score", KEY_SCORE, "RULE", 0,
     "logits, or probabilities (default: probabilities for --query-tile 1, else logits)", 0},
    {"select-per", KEY_SELECT_PER, "WHAT", 0,
     "head, or group of heads that share keys (default: group with probabilities, else head)", 0},
    {"compressed-top-k", KEY_COMPRESSED_TOP_K, "K", 0,
     "The compressed branch visits only the K best 128-wide blocks of compressed keys", 0},
    {"initial-blocks", KEY_INITIAL_BLOCKS, "N", 0, "Always select the first N blocks", 0},
    {"local-blocks", KEY_LOCAL_BLOCKS, "N", 0, "Always select the last N blocks", 0},
    {"visibility", KEY_VISIBILITY, "RULE", 0,
     "Compressed keys are seen once their block is complete (default), or once it has started", 0},
    {"scale", KEY_SCALE, "X", 0, "Factor of q . k (default 1/sqrt(D))", 0},
    COMPUTATION_OPTIONS,
    {NULL, 0, NULL, 0, "Output:", GROUP_OUTPUT},
    {"output", 'o', "OUT", 0, "Write out and the gradients to this safetensors file", 0},
    {"save-blocks", KEY_SAVE_BLOCKS, NULL, 0, "OUT also gets the selected blocks, as indices", 0},
    {"save-lse", KEY_SAVE_LSE, NULL, 0, "OUT also gets lse_cmp, lse_slc and lse_win", 0},
    {"stats", KEY_STATS, NULL, 0, "Print what the selection keeps of dense attention, head by head", 0},
    {"verbose", 'v', NULL, 0, "Say what was computed and how fast", 0},
    {0}};

enum { MAX_BLOCK = 1 << 20, MAX_TOP_K = 1024, MAX_QUERY_TILE = 256 };

static const plain_value values[] = {
    {KEY_BLOCK, VALUE_INT32, offsetof(command_options, params.block), 1, MAX_BLOCK},
    {KEY_TOP_K, VALUE_INT32, offsetof(command_options, params.top_k), 1, MAX_TOP_K},
    {KEY_WINDOW, VALUE_INT32, offsetof(command_options, params.window), 1, INT32_MAX},
    {KEY_QUERY_TILE, VALUE_INT32, offsetof(command_options, params.query_tile), 1, MAX_QUERY_TILE},
    {KEY_COMPRESSED_TOP_K, VALUE_INT32, offsetof(command_options, params.compressed_top_k), 1, MAX_TOP_K},
    {KEY_INITIAL_BLOCKS, VALUE_INT32, offsetof(command_options, params.initial_blocks), 0, MAX_TOP_K},
    {KEY_LOCAL_BLOCKS, VALUE_INT32, offsetof(command_options, params.local_blocks), 0, MAX_TOP_K},
    {KEY_BACKWARD, VALUE_FLAG, offsetof(command_options, attention.backward), 0, 0},
    {KEY_DETERMINISTIC, VALUE_FLAG, offsetof(command_options, attention.params.deterministic), 0, 0},
    {KEY_BACKEND, VALUE_TEXT, offsetof(command_options, attention.params.backend), 0, 0},
    {KEY_THREADS, VALUE_INT32, offsetof(command_options, attention.context.num_threads), 1, MAX_THREADS},
    {'o', VALUE_TEXT, offsetof(command_options, output), 0, 0},
    {'v', VALUE_FLAG, offsetof(command_options, verbose), 0, 0},
    {KEY_SAVE_BLOCKS, VALUE_FLAG, offsetof(command_options, save_blocks), 0, 0},
    {KEY_SAVE_LSE, VALUE_FLAG, offsetof(command_options, save_lse), 0, 0},
    {KEY_STATS, VALUE_FLAG, offsetof(command_options, stats), 0, 0},
    {0}};

/* 1 or 2: the first or the second word. */
static int one_of(struct argp_state *state, const char *option, const char *text, const char *first,
                  const char *second) {
    if (strcmp(text, first) && strcmp(text, second))
        argp_error(state, "--%s %s: expected %s or %s", option, text, first, second);
    return strcmp(text, first) ? 2 : 1;
}

static void check_together(struct argp_state *state, const command_options *options) {
    if (!options->attention.input) argp_error(state, "IN is missing");
    if (!options->output && !options->stats && !map_asked_for(&options->map))
        argp_error(state, "-o OUT is missing");
    if (!options->output && (options->save_blocks || options->save_lse || options->attention.backward))
        argp_error(state, "--save-blocks, --save-lse and --backward: need -o OUT");
}

static error_t parse(int key, char *text, struct argp_state *state) {
    command_options *options = state->input;
    saccade_nsa_params *p = &options->params;
    attention_options *a = &options->attention;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->map;
        return 0;
    case KEY_SCORE:
        p->score = (saccade_nsa_score)one_of(state, "selection-score", text, "logits", "probabilities");
        return 0;
    case KEY_SELECT_PER:
        p->select_per = (saccade_nsa_select_per)one_of(state, "select-per", text, "head", "group");
        return 0;
    case KEY_VISIBILITY:
        p->visibility =
            (saccade_nsa_visibility)(one_of(state, "visibility", text, "complete", "started") - 1);
        return 0;
    case KEY_SCALE:
        a->params.has_scale = true;
        a->params.scale = parse_float(state, "--scale", text);
        return 0;
    case ARGP_KEY_ARG:
        parse_input(state, text, &a->input);
        return 0;
    case ARGP_KEY_END:
        check_together(state, options);
        return 0;
    default:
        return store_value(values, option_list, key, text, state);
    }
}

static bool is_wanted(const command_options *options, int result) {
    if (result == NSA_INDICES) return options->save_blocks;
    if (result >= NSA_LSE_CMP && result <= NSA_LSE_WIN) return options->save_lse;
    return result == NSA_OUT || result >= NSA_DQ;
}

static bool write_results(const nsa_work *work, const command_options *options) {
    safetensors_entry entries[NSA_NUM_RESULTS];
    size_t count = 0;
    for (int i = 0; i < NSA_NUM_RESULTS; i++)
        if (work->result[i] && is_wanted(options, i))
            entries[count++] = (safetensors_entry){nsa_result_name((nsa_result)i), work->result[i]};
    const bool written = safetensors_write(options->output, entries, count);
    if (written && options->verbose) safetensors_list(options->output, entries, count);
    return written;
}

static int compute(nsa_work *work, const command_options *options) {
    progress_begin("forward", 0);
    const double begin = seconds_now();
    saccade_status status = nsa_work_forward(work);
    const double middle = seconds_now();
    progress_end();
    if (status != SACCADE_OK) return complain_status("forward", status);
    if (options->verbose) printf("forward   %.2f ms\n", 1e3 * (middle - begin));
    if (!work->dense.backward) return EXIT_OK;
    progress_begin("backward", 0);
    status = nsa_work_backward(work);
    progress_end();
    if (status != SACCADE_OK) return complain_status("backward", status);
    if (options->verbose)
        printf("backward  %.2f ms%s\n", 1e3 * (seconds_now() - middle),
               work->dense.dout_is_ones ? ", of the sum of out" : "");
    return EXIT_OK;
}

static int fetch(nsa_work *work) {
    const saccade_status status = nsa_work_fetch(work);
    return status == SACCADE_OK ? EXIT_OK : complain_status("results", status);
}

static int run(command_options *options) {
    nsa_work work;
    /* Long work should not end at a folder that cannot be written. */
    if (options->output && !output_possible(options->output)) return EXIT_FAILED;
    int code = nsa_work_open(&work, &options->attention, &options->params);
    if (code == EXIT_OK) code = compute(&work, options);
    if (code == EXIT_OK) code = fetch(&work);
    if (code == EXIT_OK && options->output && !write_results(&work, options)) code = EXIT_FAILED;
    if (code == EXIT_OK && options->stats) code = print_nsa_stats(&work);
    if (code == EXIT_OK && options->map.head[1] >= 0)
        code = draw_nsa_map(&work, options->map.head[0], options->map.head[1], &options->map.files);
    nsa_work_close(&work);
    return code;
}

int nsa_command(int argc, char **argv) {
    static const struct argp_child children[] = {{&map_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "IN -o OUT",
        .doc = "Computes native sparse attention of the tensors q, k and v in the safetensors file IN.\v"
               "q, k, v are (B, N, H, D), or (T, H, D) with cu_seqlens_q and cu_seqlens_k, the same. IN may "
               "also hold "
               "w_k (Hkv, D, D), w_v (Hkv, Dv, Dv), w_gate (H, 3, D) or gates (B, N, H, 3), and dout. OUT "
               "gets out, "
               "with --backward also dq, dk, dv, dw_k, dw_v, dw_gate or dgates.",
        .children = children,
    };
    command_options options = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    return run(&options);
}
