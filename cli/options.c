/* options.c - from the command line to attention_options. Values are checked here as far as they need no tensor. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "dtype.h"
#include "values.h"

enum option_key {
    KEY_CAUSAL = 0x100,
    KEY_WINDOW,
    KEY_SCALE,
    KEY_SOFTCAP,
    KEY_MASK_MOD,
    KEY_SCORE_MOD,
    KEY_SCORE_MOD_GRAD,
    KEY_SCALAR,
    KEY_MASK,
    KEY_BLOCK_SIZE,
    KEY_BACKEND,
    KEY_THREADS,
    KEY_ISA,
    KEY_DETERMINISTIC,
    KEY_BACKWARD,
    KEY_SHAPES,
    KEY_DTYPE,
    KEY_JSON,
    KEY_MAP,
    KEY_PNG,
    KEY_SVG,
};

static const plain_value attention_values[] = {
    {KEY_MASK, VALUE_TEXT, offsetof(attention_options, mask_spec), 0, 0},
    {KEY_MASK_MOD, VALUE_TEXT, offsetof(attention_options, mask_mod), 0, 0},
    {KEY_SCORE_MOD, VALUE_TEXT, offsetof(attention_options, score_mod), 0, 0},
    {KEY_SCORE_MOD_GRAD, VALUE_TEXT, offsetof(attention_options, score_mod_grad), 0, 0},
    {KEY_BACKWARD, VALUE_FLAG, offsetof(attention_options, backward), 0, 0},
    {KEY_DETERMINISTIC, VALUE_FLAG, offsetof(attention_options, params.deterministic), 0, 0},
    {KEY_BACKEND, VALUE_TEXT, offsetof(attention_options, params.backend), 0, 0},
    {KEY_THREADS, VALUE_INT32, offsetof(attention_options, context.num_threads), 1, MAX_THREADS},
    {KEY_ISA, VALUE_TEXT, offsetof(attention_options, context.isa), 0, 0},
    {0}};

static const struct argp_option attention_option_list[] = {
    {NULL, 0, NULL, 0, "Masks (all given must hold):", GROUP_MASK},
    {"causal", KEY_CAUSAL, "ALIGN", OPTION_ARG_OPTIONAL,
     "Query i sees key j iff j <= i; ALIGN is top-left (default) or bottom-right: j <= i + Nk - Nq", 0},
    {"window", KEY_WINDOW, "LEFT,RIGHT[:ALIGN]", 0,
     "Query i sees keys i - LEFT to i + RIGHT; -1: unbounded on that side", 0},
    {"mask", KEY_MASK, "SPEC", 0, "Block mask, for example 'causal & window:256,0'; see saccade(1)", 0},
    {"block-size", KEY_BLOCK_SIZE, "Q,KV", 0, "Blocks of --mask, in tokens (default 128,128)", 0},
    {"mask-mod", KEY_MASK_MOD, "TEXT", 0, "C expression or body over b, h, q_idx, kv_idx: is the key seen?",
     0},
    {NULL, 0, NULL, 0, "Scores:", GROUP_SCORE},
    {"scale", KEY_SCALE, "X", 0, "Factor of q . k (default 1/sqrt(D))", 0},
    {"softcap", KEY_SOFTCAP, "X", 0, "score = X tanh(score / X)", 0},
    {"score-mod", KEY_SCORE_MOD, "TEXT", 0,
     "C expression or body over score, b, h, q_idx, kv_idx: the new score", 0},
    {"score-mod-grad", KEY_SCORE_MOD_GRAD, "TEXT", 0,
     "Its derivative, over grad and score: dL/d score; needed with --backward", 0},
    {"scalar", KEY_SCALAR, "NAME=X", 0, "Value of a name in a modifier's text; may be repeated", 0},
    COMPUTATION_OPTIONS,
    {"isa", KEY_ISA, "NAME", 0, "CPU instruction set: generic, avx2, avx512, amx (default: the best here)",
     0},
    {0}};

/* ":top-left" or ":bottom-right", or nothing. */
static bool parse_align(const char *text, saccade_align *align) {
    *align = !strcmp(text, "bottom-right") ? SACCADE_BOTTOM_RIGHT : SACCADE_TOP_LEFT;
    return *align == SACCADE_BOTTOM_RIGHT || !strcmp(text, "top-left");
}

static void parse_causal(struct argp_state *state, const char *text, saccade_attention_params *params) {
    saccade_align align = SACCADE_TOP_LEFT;
    if (text && !parse_align(text, &align))
        argp_error(state, "--causal=%s: expected top-left or bottom-right", text);
    params->causal = align == SACCADE_TOP_LEFT ? SACCADE_CAUSAL_TOP_LEFT : SACCADE_CAUSAL_BOTTOM_RIGHT;
}

static void parse_window(struct argp_state *state, const char *text, saccade_attention_params *params) {
    int64_t sides[2];
    char numbers[64] = "";
    const char *colon = strchrnul(text, ':');
    saccade_align align = SACCADE_TOP_LEFT;
    if ((size_t)(colon - text) < sizeof numbers) memcpy(numbers, text, (size_t)(colon - text));
    if (parse_int_list(numbers, -1, INT32_MAX, 2, 2, sides) != 2 ||
        (*colon && !parse_align(colon + 1, &align)))
        argp_error(state,
                   "--window %s: expected LEFT,RIGHT, each at least 0, or -1 for unbounded, and perhaps "
                   ":bottom-right",
                   text);
    params->window = (saccade_window){true, (int32_t)sides[0], (int32_t)sides[1], align};
}

static float parse_softcap(struct argp_state *state, const char *text) {
    float softcap = parse_float(state, "--softcap", text);
    if (!(softcap > 0)) argp_error(state, "--softcap %s: must be above 0", text);
    return softcap;
}

void parse_block_size(struct argp_state *state, const char *text, int64_t block_size[2]) {
    if (parse_int_list(text, 1, 1 << 20, 2, 2, block_size) != 2)
        argp_error(state, "--block-size %s: expected Q,KV, each from 1 to 1048576", text);
}

void parse_scalar(struct argp_state *state, const char *text, modifier_sources *sources) {
    if (sources->num_scalars == SACCADE_MAX_AUX)
        argp_error(state, "--scalar %s: at most %d are allowed", text, SACCADE_MAX_AUX);
    if (!add_scalar(sources, text))
        argp_error(state, "--scalar %s: expected NAME=X, a name once and X a number", text);
}

/* What one option alone does not show. */
static void check_together(struct argp_state *state, const attention_options *options) {
    if (!options->input && !options->num_shapes && !options->input_optional)
        argp_error(state, options->shapes_allowed ? "IN or --shapes is missing" : "IN is missing");
    if (options->block_size[0] && !options->mask_spec) argp_error(state, "--block-size: needs --mask");
    if (options->mask_spec && options->mask_mod)
        argp_error(state, "--mask-mod beside --mask: join them as --mask 'SPEC & mod:TEXT'");
    const char *backend = options->params.backend;
    if (options->context.isa && backend && strcmp(backend, "cpu") != 0)
        argp_error(state, "--isa: is the cpu backend's, not of --backend %s", backend);
    if (options->score_mod_grad && !options->score_mod)
        argp_error(state, "--score-mod-grad: needs --score-mod");
    if (options->backward && options->score_mod && !options->score_mod_grad)
        argp_error(state, "--backward with --score-mod: needs --score-mod-grad");
}

static error_t parse_attention(int key, char *text, struct argp_state *state) {
    attention_options *options = state->input;
    saccade_attention_params *params = &options->params;
    switch (key) {
    case KEY_CAUSAL:
        parse_causal(state, text, params);
        return 0;
    case KEY_WINDOW:
        parse_window(state, text, params);
        return 0;
    case KEY_SCALE:
        params->has_scale = true;
        params->scale = parse_float(state, "--scale", text);
        return 0;
    case KEY_SOFTCAP:
        params->softcap = parse_softcap(state, text);
        return 0;
    case KEY_SCALAR:
        parse_scalar(state, text, &options->sources);
        return 0;
    case KEY_BLOCK_SIZE:
        parse_block_size(state, text, options->block_size);
        return 0;
    case ARGP_KEY_ARG:
        if (params->causal && parse_align(text, &(saccade_align){0}))
            argp_error(state, "--causal %s: it is written --causal=%s", text, text);
        parse_input(state, text, &options->input);
        return 0;
    case ARGP_KEY_END:
        check_together(state, options);
        return 0;
    default:
        return store_value(attention_values, attention_option_list, key, text, state);
    }
}

const struct argp attention_argp = {.options = attention_option_list, .parser = parse_attention};

/* ---- shapes ---- */

static const struct argp_option shape_option_list[] = {
    {NULL, 0, NULL, 0, "Instead of IN:", GROUP_INPUT},
    {"shapes", KEY_SHAPES, "B,Nq,H,Hkv,D[,Nk[,Dv]]", 0, "Random q, k, v of these sizes; may be repeated", 0},
    {"dtype", KEY_DTYPE, "DTYPE", 0, "Of --shapes: bf16 (default), fp16, fp32; fp64 for the reference", 0},
    {0}};

static void parse_shape(struct argp_state *state, const char *text, attention_options *options) {
    int64_t x[7];
    int count = parse_int_list(text, 0, INT32_MAX, 5, 7, x);
    if (count < 0) argp_error(state, "--shapes %s: expected B,Nq,H,Hkv,D, then perhaps Nk and Dv", text);
    if (options->num_shapes == MAX_SHAPES) argp_error(state, "--shapes: at most %d", MAX_SHAPES);
    options->shapes[options->num_shapes++] = (input_shape){.batch = x[0],
                                                           .seqlen_q = x[1],
                                                           .seqlen_k = count > 5 ? x[5] : x[1],
                                                           .num_heads = x[2],
                                                           .num_kv_heads = x[3],
                                                           .head_dim = x[4],
                                                           .head_dim_v = count > 6 ? x[6] : x[4]};
}

static error_t parse_shapes(int key, char *text, struct argp_state *state) {
    attention_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = options;
        options->shapes_allowed = true;
        return 0;
    case KEY_SHAPES:
        parse_shape(state, text, options);
        return 0;
    case KEY_DTYPE:
        if (!dtype_from_name(text, &options->dtype) || !dtype_is_float(options->dtype))
            argp_error(state, "--dtype %s: expected bf16, fp16, fp32 or fp64", text);
        return 0;
    case ARGP_KEY_SUCCESS:
        if (options->dtype.bits && !options->num_shapes) argp_error(state, "--dtype: needs --shapes");
        if (!options->dtype.bits) options->dtype = SACCADE_BF16;
        if (options->input && options->num_shapes) argp_error(state, "IN and --shapes: give one of them");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child attention_child[] = {{&attention_argp, 0, NULL, 0}, {0}};
const struct argp shaped_attention_argp = {
    .options = shape_option_list, .parser = parse_shapes, .children = attention_child};

/* ---- json ---- */

static const struct argp_option json_option_list[] = {
    {"json", KEY_JSON, NULL, 0, "Print JSON instead of text", GROUP_OUTPUT}, {0}};

static error_t parse_json(int key, char *text, struct argp_state *state) {
    (void)text;
    if (key != KEY_JSON) return ARGP_ERR_UNKNOWN;
    *(bool *)state->input = true;
    return 0;
}

const struct argp json_argp = {.options = json_option_list, .parser = parse_json};

/* ---- in words ---- */

char *mask_text(const attention_options *options) {
    static const char *const causal[] = {"", "causal", "causal:bottom-right"};
    const saccade_attention_params *p = &options->params;
    char window[64] = "";
    if (p->window.enabled)
        snprintf(window, sizeof window, "window:%d,%d%s", p->window.left, p->window.right,
                 p->window.align == SACCADE_BOTTOM_RIGHT ? ":bottom-right" : "");
    const char *parts[] = {causal[p->causal], window, options->mask_spec ? options->mask_spec : "",
                           options->mask_mod ? "mask_mod" : "", options->score_mod ? "score_mod" : ""};
    char *text = copy_string("");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!*parts[i]) continue;
        char *longer = format_string("%s%s%s", text, *text ? "+" : "", parts[i]);
        free(text);
        text = longer;
    }
    if (*text) return text;
    free(text);
    return copy_string("full");
}

/* ---- pictures ---- */

static const struct argp_option picture_option_list[] = {
    {"png", KEY_PNG, "FILE", 0, "Write the picture as PNG", GROUP_OUTPUT},
    {"svg", KEY_SVG, "FILE", 0, "Write the picture as SVG", GROUP_OUTPUT},
    {0}};

static error_t parse_picture(int key, char *text, struct argp_state *state) {
    picture_files *files = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        *files = (picture_files){0};
        return 0;
    case KEY_PNG:
        files->png = text;
        return 0;
    case KEY_SVG:
        files->svg = text;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp picture_argp = {.options = picture_option_list, .parser = parse_picture};

bool picture_wanted(const picture_files *files) { return files->png || files->svg; }

static const struct argp_option map_option_list[] = {
    {"map", KEY_MAP, "[B,]HEAD", 0, "Draw where the attention of this head goes", GROUP_OUTPUT}, {0}};

static void parse_head(struct argp_state *state, const char *text, int64_t head[2]) {
    int64_t values[2];
    int count = parse_int_list(text, 0, INT32_MAX, 1, 2, values);
    if (count < 0) argp_error(state, "--map %s: expected HEAD or B,HEAD", text);
    head[0] = count == 2 ? values[0] : 0;
    head[1] = values[count - 1];
}

bool map_asked_for(const map_options *options) {
    return options->head[1] >= 0 || picture_wanted(&options->files);
}

static error_t parse_map(int key, char *text, struct argp_state *state) {
    map_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        *options = (map_options){.head = {-1, -1}};
        state->child_inputs[0] = &options->files;
        return 0;
    case KEY_MAP:
        parse_head(state, text, options->head);
        return 0;
    case ARGP_KEY_SUCCESS:
        if (picture_wanted(&options->files) != (options->head[1] >= 0))
            argp_error(state, "--map and --png or --svg go together");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child map_children[] = {{&picture_argp, 0, NULL, 0}, {0}};
const struct argp map_argp = {.options = map_option_list, .parser = parse_map, .children = map_children};
