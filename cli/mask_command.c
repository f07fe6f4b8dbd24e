/* mask_command.c - saccade mask SPEC: builds a block mask, describes it, draws it. */
#include <argp.h>
#include <jansson.h>
#include <saccade/block_mask.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "band.h"
#include "command.h"
#include "mask_picture.h"
#include "mask_spec.h"
#include "options.h"
#include "values.h"

typedef struct mask_options {
    const char *spec, *aux;
    picture_files files;
    int64_t q_len, kv_len, batch, num_heads, block_size[2];
    int64_t plane[2]; /* batch entry and head of the picture; -1: not given */
    modifier_sources sources;
    int32_t threads;
    bool stats, json;
} mask_options;

enum option_key {
    KEY_Q_LEN = 0x200,
    KEY_KV_LEN,
    KEY_BATCH,
    KEY_HEADS,
    KEY_BLOCK_SIZE,
    KEY_PLANE,
    KEY_SCALAR,
    KEY_AUX,
    KEY_THREADS,
    KEY_STATS
};

enum { MAX_TOKENS = 1 << 29, MAX_PLANES = 1 << 20 };

static const plain_value values[] = {
    {KEY_Q_LEN, VALUE_INT64, offsetof(mask_options, q_len), 0, MAX_TOKENS},
    {KEY_KV_LEN, VALUE_INT64, offsetof(mask_options, kv_len), 0, MAX_TOKENS},
    {KEY_BATCH, VALUE_INT64, offsetof(mask_options, batch), 1, MAX_PLANES},
    {KEY_HEADS, VALUE_INT64, offsetof(mask_options, num_heads), 1, MAX_PLANES},
    {KEY_THREADS, VALUE_INT32, offsetof(mask_options, threads), 1, MAX_THREADS},
    {KEY_AUX, VALUE_TEXT, offsetof(mask_options, aux), 0, 0},
    {KEY_STATS, VALUE_FLAG, offsetof(mask_options, stats), 0, 0},
    {0}};

static const struct argp_option option_list[] = {
    {"q-len", KEY_Q_LEN, "N", 0, "Queries, in tokens (required)", 0},
    {"kv-len", KEY_KV_LEN, "M", 0, "Keys, in tokens (default: as many as queries)", 0},
    {"block-size", KEY_BLOCK_SIZE, "Q,KV", 0, "In tokens (default 128,128)", 0},
    {"batch", KEY_BATCH, "B", 0, "Batch entries, where SPEC tells them apart (default 1)", 0},
    {"heads", KEY_HEADS, "H", 0, "Heads, where SPEC tells them apart (default 1)", 0},
    {"scalar", KEY_SCALAR, "NAME=X", 0, "Value of a name in mod:TEXT; may be repeated", 0},
    {"aux", KEY_AUX, "FILE", 0, "A safetensors file with the tensors named in mod:TEXT", 0},
    {"threads", KEY_THREADS, "N", 0, "CPU threads (default: all)", 0},
    {"stats", KEY_STATS, NULL, 0, "Print blocks by kind, density, memory, blocks by row (default)",
     GROUP_OUTPUT},
    {"plane", KEY_PLANE, "B,H", 0, "Batch entry and head that are drawn (default 0,0)", GROUP_OUTPUT},
    {0}};

static void check_together(struct argp_state *state, mask_options *options) {
    if (!options->spec) argp_error(state, "SPEC is missing");
    if (options->q_len < 0) argp_error(state, "--q-len is missing");
    if (options->kv_len < 0) options->kv_len = options->q_len;
    if (options->aux && !strstr(options->spec, "mod:")) argp_error(state, "--aux: SPEC has no mod:TEXT");
    if (options->plane[0] >= 0 && !picture_wanted(&options->files))
        argp_error(state, "--plane: needs --png or --svg");
    if (options->plane[0] >= options->batch || options->plane[1] >= options->num_heads)
        argp_error(state, "--plane %lld,%lld: there are %lld batch entries and %lld heads",
                   (long long)options->plane[0], (long long)options->plane[1], (long long)options->batch,
                   (long long)options->num_heads);
    for (int i = 0; i < 2; i++) options->plane[i] = larger(options->plane[i], 0);
    if (!picture_wanted(&options->files)) options->stats = true;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    mask_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->json;
        state->child_inputs[1] = &options->files;
        return 0;
    case KEY_BLOCK_SIZE:
        parse_block_size(state, text, options->block_size);
        return 0;
    case KEY_PLANE:
        if (parse_int_list(text, 0, MAX_PLANES, 2, 2, options->plane) != 2)
            argp_error(state, "--plane %s: expected B,H", text);
        return 0;
    case KEY_SCALAR:
        parse_scalar(state, text, &options->sources);
        return 0;
    case ARGP_KEY_ARG:
        if (options->spec) argp_error(state, "%s: one SPEC is enough; quote it", text);
        options->spec = text;
        return 0;
    case ARGP_KEY_END:
        check_together(state, options);
        return 0;
    default:
        return store_value(values, option_list, key, text, state);
    }
}

/* ---- statistics ---- */

enum { MAX_BINS = 16 };

/* Query blocks by how many key blocks they list, over all batch entries and heads. */
typedef struct histogram {
    int64_t rows, min, max, sum;
    int64_t width; /* of the bins, in blocks: a power of two; the first begins at min */
    int num_bins;
    int64_t bins[MAX_BINS];
} histogram;

static histogram make_histogram(const int32_t *partial, const int32_t *whole, int64_t rows) {
    histogram g = {.rows = rows, .min = INT64_MAX, .width = 1};
    for (int64_t i = 0; i < rows; i++) {
        int64_t blocks = (int64_t)partial[i] + whole[i];
        if (blocks < g.min) g.min = blocks;
        if (blocks > g.max) g.max = blocks;
        g.sum += blocks;
    }
    if (!rows) g.min = 0;
    while ((g.max - g.min) / g.width + 1 > MAX_BINS) g.width *= 2;
    g.num_bins = (int)((g.max - g.min) / g.width) + 1;
    for (int64_t i = 0; i < rows; i++) g.bins[(partial[i] + whole[i] - g.min) / g.width]++;
    return g;
}

static int64_t bin_first(const histogram *g, int i) { return g->min + i * g->width; }

static int64_t bin_last(const histogram *g, int i) { return smaller(bin_first(g, i) + g->width - 1, g->max); }

static saccade_status count_rows(const saccade_block_mask *mask, const saccade_block_mask_info *info,
                                 histogram *g) {
    int64_t rows = (int64_t)info->shape.batch * info->shape.num_heads * info->num_q_blocks;
    int32_t *partial = allocate(sizeof *partial * (size_t)rows),
            *whole = allocate(sizeof *whole * (size_t)rows);
    DLTensor *shape_of_rows =
        SACCADE_TENSOR(partial, SACCADE_I32, info->shape.batch, info->shape.num_heads, info->num_q_blocks);
    DLTensor whole_rows = *shape_of_rows;
    whole_rows.data = whole;
    saccade_status status =
        saccade_block_mask_export(mask, &(saccade_block_mask_tensors){.kv_num_blocks = shape_of_rows,
                                                                      .full_kv_num_blocks = &whole_rows});
    if (status == SACCADE_OK) *g = make_histogram(partial, whole, rows);
    free(partial);
    free(whole);
    return status;
}

/* One list may serve several batch entries or heads. */
static int64_t count_lists(const saccade_block_mask_info *info) {
    return (int64_t)info->list_batch * info->list_heads;
}

/* Part of the plane's blocks that is listed. */
static double density(const saccade_block_mask_info *info) {
    double all = (double)count_lists(info) * info->num_q_blocks * info->num_kv_blocks;
    double listed = (double)(info->full + info->partial + info->diagonal);
    return all > 0 ? listed / all : 0;
}

static void print_text(const mask_options *options, const saccade_block_mask_info *info, const histogram *g,
                       double build_s) {
    const saccade_mask_shape *s = &info->shape;
    printf("mask      %s\n", options->spec);
    printf("plane     %d x %d tokens, %d x %d blocks of %d x %d", s->q_len, s->kv_len, info->num_q_blocks,
           info->num_kv_blocks, s->q_block, s->kv_block);
    if (s->batch > 1 || s->num_heads > 1) printf(", %d batch entries, %d heads", s->batch, s->num_heads);
    printf("\nblocks    %lld full, %lld partial, %lld diagonal", (long long)info->full,
           (long long)info->partial, (long long)info->diagonal);
    if (count_lists(info) > 1) printf(", in %lld lists", (long long)count_lists(info));
    if (info->period) printf(" (period %d)", info->period);
    printf("\ndensity   %.2f %% of all blocks are visited\n", 100 * density(info));
    printf("memory    %zu bytes, built in %.3f ms\n", info->bytes, 1e3 * build_s);
    printf("by row    %lld to %lld key blocks, mean %.1f\n", (long long)g->min, (long long)g->max,
           g->rows ? (double)g->sum / (double)g->rows : 0);
    int64_t most = 1;
    for (int i = 0; i < g->num_bins; i++) most = g->bins[i] > most ? g->bins[i] : most;
    for (int i = 0; i < g->num_bins && g->rows; i++) {
        char range[48], bar[41] = "";
        long long low = bin_first(g, i), high = bin_last(g, i);
        snprintf(range, sizeof range, g->width > 1 ? "%lld-%lld" : "%lld", low, high);
        int length = (int)((40 * g->bins[i] + most - 1) / most);
        for (int j = 0; j < length; j++) bar[j] = '#';
        printf("%18s %9lld  %s\n", range, (long long)g->bins[i], bar);
    }
}

static void print_json(const mask_options *options, const saccade_block_mask_info *info, const histogram *g,
                       double build_s) {
    const saccade_mask_shape *s = &info->shape;
    json_t *bins = json_array();
    for (int i = 0; i < g->num_bins && g->rows; i++)
        json_array_append_new(bins, json_pack("{s:I, s:I, s:I}", "from", (json_int_t)bin_first(g, i), "to",
                                              (json_int_t)bin_last(g, i), "rows", (json_int_t)g->bins[i]));
    json_t *root = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:i, s:f, s:I, s:f, s:o}", "mask",
        options->spec, "q_len", s->q_len, "kv_len", s->kv_len, "q_block", s->q_block, "kv_block", s->kv_block,
        "batch", s->batch, "num_heads", s->num_heads, "lists", (json_int_t)count_lists(info), "full",
        (json_int_t)info->full, "partial", (json_int_t)info->partial, "diagonal", (json_int_t)info->diagonal,
        "period", info->period, "density", density(info), "bytes", (json_int_t)info->bytes, "build_ms",
        1e3 * build_s, "blocks_by_row", bins);
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

static int describe(const mask_options *options, const saccade_block_mask *mask, double build_s) {
    saccade_block_mask_info info;
    histogram g;
    saccade_block_mask_get_info(mask, &info);
    saccade_status status = count_rows(mask, &info, &g);
    if (status != SACCADE_OK) return complain_status("blocks by row", status);
    if (options->json)
        print_json(options, &info, &g, build_s);
    else
        print_text(options, &info, &g, build_s);
    return EXIT_OK;
}

/* ---- the command ---- */

static int build_and_show(saccade_context *ctx, mask_options *options, const mask_spec *spec) {
    saccade_mask_shape shape = {.batch = (int32_t)options->batch,
                                .num_heads = (int32_t)options->num_heads,
                                .q_len = (int32_t)options->q_len,
                                .kv_len = (int32_t)options->kv_len,
                                .q_block = (int32_t)options->block_size[0],
                                .kv_block = (int32_t)options->block_size[1]};
    saccade_block_mask *mask = NULL;
    double begin = seconds_now();
    int code = mask_spec_build(ctx, spec, &shape, &options->sources, &mask);
    double build_s = seconds_now() - begin;
    if (code == EXIT_OK && !all_scalars_used(&options->sources)) code = EXIT_USAGE;
    if (code == EXIT_OK && (options->stats || options->json)) code = describe(options, mask, build_s);
    if (code == EXIT_OK && picture_wanted(&options->files))
        code = draw_mask(ctx, mask, (int32_t)options->plane[0], (int32_t)options->plane[1], options->spec,
                         &options->files);
    saccade_block_mask_destroy(mask);
    return code;
}

static int run(mask_options *options) {
    char *error;
    mask_spec *spec = mask_spec_parse(options->spec, &error);
    if (!spec) {
        complain("%s: %s", options->spec, error);
        free(error);
        return EXIT_USAGE;
    }
    int code = EXIT_OK;
    safetensors_file *file = NULL;
    saccade_context *ctx = NULL;
    if (options->aux && !(file = safetensors_open(options->aux))) code = EXIT_USAGE;
    options->sources.file = file;
    saccade_status status =
        saccade_context_create(&ctx, &(saccade_context_params){.num_threads = options->threads});
    if (code == EXIT_OK && status != SACCADE_OK) code = complain_status(NULL, status);
    if (code == EXIT_OK) code = build_and_show(ctx, options, spec);
    saccade_context_destroy(ctx);
    safetensors_close(file);
    mask_spec_free(spec);
    return code;
}

int mask_command(int argc, char **argv) {
    static const struct argp_child children[] = {{&json_argp, 0, NULL, 0}, {&picture_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "SPEC",
        .doc = "Builds the block mask SPEC, describes it, draws it.\v"
               "SPEC: causal, window:L,R, document:LEN,LEN,..., prefix:N, dilated:REACH,STEP, "
               "block-diagonal:Q,KV, eagle3:Q_LEN or mod:TEXT, joined by & | ! and parentheses; causal and "
               "window may end in :bottom-right. Example: 'document:1024,3072 & causal'.",
        .children = children,
    };
    mask_options options = {.q_len = -1, .kv_len = -1, .batch = 1, .num_heads = 1, .plane = {-1, -1}};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    int code = run(&options);
    free_sources(&options.sources);
    return code;
}
