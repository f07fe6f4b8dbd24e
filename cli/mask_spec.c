/* mask_spec.c - recursive descent over SPEC, and the block mask that it describes. */
#include "mask_spec.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "progress.h"

enum { MAX_DEPTH = 64 }; /* of parentheses and "!": parser and builder recurse */

typedef struct parser {
    const char *start, *at;
    char *error; /* the first one */
    int depth;
} parser;

static mask_spec *parse_or(parser *p);

/* Always NULL, so that a parse function can end with `return fail(...)`. */
static mask_spec *fail(parser *p, const char *expected) {
    if (p->error) return NULL;
    int column = (int)(p->at - p->start) + 1;
    if (*p->at)
        p->error = format_string("column %d: expected %s, found \"%.24s\"", column, expected, p->at);
    else
        p->error = format_string("column %d: expected %s, found the end", column, expected);
    return NULL;
}

static void skip_spaces(parser *p) {
    while (isspace((unsigned char)*p->at)) p->at++;
}

static bool accept(parser *p, const char *token) {
    skip_spaces(p);
    size_t length = strlen(token);
    if (strncmp(p->at, token, length)) return false;
    p->at += length;
    return true;
}

static mask_spec *new_spec(mask_spec_kind kind, mask_spec *left, mask_spec *right) {
    mask_spec *spec = allocate(sizeof *spec);
    *spec = (mask_spec){.kind = kind, .left = left, .right = right};
    return spec;
}

void mask_spec_free(mask_spec *spec) {
    if (!spec) return;
    mask_spec_free(spec->left);
    mask_spec_free(spec->right);
    free(spec->values);
    free(spec->text);
    free(spec);
}

/* ---- patterns ---- */

typedef struct pattern_rule {
    const char *name;
    mask_spec_kind kind;
    int32_t min_values, max_values; /* that follow the colon */
    int32_t least;                  /* each of them */
    bool aligned;                   /* may be followed by :top-left or :bottom-right */
    const char *expected;
} pattern_rule;

static const pattern_rule patterns[] = {
    {"causal", SPEC_CAUSAL, 0, 0, 0, true, ""},
    {"window", SPEC_WINDOW, 2, 2, -1, true, "window:LEFT,RIGHT, each at least 0, or -1 for unbounded"},
    {"document", SPEC_DOCUMENT, 1, INT32_MAX, 0, false, "document:LENGTH,..., each at least 0"},
    {"prefix", SPEC_PREFIX, 1, INT32_MAX, 0, false, "prefix:N, or one N a batch entry, at least 0"},
    {"dilated", SPEC_DILATED, 2, 2, 0, false, "dilated:REACH,STEP, each at least 0"},
    {"block-diagonal", SPEC_BLOCK_DIAGONAL, 2, 2, 1, false, "block-diagonal:Q_SIZE,KV_SIZE, each at least 1"},
    {"eagle3", SPEC_EAGLE3, 1, 1, 1, false, "eagle3:Q_LEN, at least 1"},
};

static bool parse_value(parser *p, int32_t least, int32_t *value) {
    char *end;
    skip_spaces(p);
    errno = 0;
    long long number = strtoll(p->at, &end, 10);
    if (end == p->at || errno || number < least || number > INT32_MAX) return false;
    p->at = end;
    *value = (int32_t)number;
    return true;
}

static void parse_values(parser *p, const pattern_rule *pattern, mask_spec *spec) {
    if (!pattern->max_values) return;
    spec->values = allocate(sizeof *spec->values * (strlen(p->at) + 1)); /* more than can stand there */
    const char *separator = ":";
    while (spec->num_values < pattern->max_values && accept(p, separator)) {
        if (!parse_value(p, pattern->least, &spec->values[spec->num_values])) {
            fail(p, pattern->expected);
            return;
        }
        spec->num_values++;
        separator = ",";
    }
    if (spec->num_values < pattern->min_values) fail(p, pattern->expected);
}

static void parse_align(parser *p, mask_spec *spec) {
    if (!accept(p, ":")) return;
    if (accept(p, "bottom-right"))
        spec->bottom_right = true;
    else if (!accept(p, "top-left"))
        fail(p, "top-left or bottom-right");
}

/* The end of a mask_mod's text: see mask_spec.h. */
static const char *end_of_text(const char *at) {
    for (int depth = 0; *at; at++) {
        if (strchr("([{", *at)) depth++;
        if (strchr(")]}", *at) && --depth < 0) break;
        if (depth > 0 || (*at != '&' && *at != '|')) continue;
        if (at[1] != *at) break;
        at++; /* && and || are the text's own */
    }
    return at;
}

static mask_spec *parse_mod(parser *p) {
    const char *end = end_of_text(p->at);
    skip_spaces(p);
    while (end > p->at && isspace((unsigned char)end[-1])) end--;
    if (end <= p->at) return fail(p, "mod:TEXT, a mask_mod");
    mask_spec *spec = new_spec(SPEC_MOD, NULL, NULL);
    spec->text = format_string("%.*s", (int)(end - p->at), p->at);
    p->at = end;
    return spec;
}

static mask_spec *parse_pattern(parser *p) {
    if (accept(p, "mod:")) return parse_mod(p);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        if (!accept(p, patterns[i].name)) continue;
        mask_spec *spec = new_spec(patterns[i].kind, NULL, NULL);
        parse_values(p, &patterns[i], spec);
        if (!p->error && patterns[i].aligned) parse_align(p, spec);
        return spec;
    }
    return fail(p, "causal, window, document, prefix, dilated, block-diagonal, eagle3, mod, ! or (");
}

/* ---- operators ---- */

static mask_spec *parse_parentheses(parser *p) {
    mask_spec *spec = parse_or(p);
    if (!p->error && !accept(p, ")")) fail(p, "), & or |");
    return spec;
}

static mask_spec *parse_unary(parser *p) {
    mask_spec *spec;
    if (++p->depth > MAX_DEPTH) return fail(p, "at most 64 levels of ! and parentheses");
    if (accept(p, "!"))
        spec = new_spec(SPEC_NOT, parse_unary(p), NULL);
    else if (accept(p, "("))
        spec = parse_parentheses(p);
    else
        spec = parse_pattern(p);
    p->depth--;
    return spec;
}

static mask_spec *parse_and(parser *p) {
    mask_spec *spec = parse_unary(p);
    while (!p->error && accept(p, "&")) spec = new_spec(SPEC_AND, spec, parse_unary(p));
    return spec;
}

static mask_spec *parse_or(parser *p) {
    mask_spec *spec = parse_and(p);
    while (!p->error && accept(p, "|")) spec = new_spec(SPEC_OR, spec, parse_and(p));
    return spec;
}

mask_spec *mask_spec_parse(const char *text, char **error) {
    parser p = {.start = text, .at = text};
    mask_spec *spec = parse_or(&p);
    skip_spaces(&p);
    if (*p.at) fail(&p, "&, | or the end");
    *error = p.error;
    if (!p.error) return spec;
    mask_spec_free(spec);
    return NULL;
}

/* ---- building ---- */

static bool reads(const mask_spec *spec, const char *name) {
    if (!spec) return false;
    if (spec->kind == SPEC_MOD) return text_mentions(spec->text, name);
    return reads(spec->left, name) || reads(spec->right, name);
}

static bool has_batch_of_prefixes(const mask_spec *spec) {
    if (!spec) return false;
    return (spec->kind == SPEC_PREFIX && spec->num_values > 1) || has_batch_of_prefixes(spec->left) ||
           has_batch_of_prefixes(spec->right);
}

bool mask_spec_reads_batch(const mask_spec *spec) { return reads(spec, "b") || has_batch_of_prefixes(spec); }

bool mask_spec_reads_head(const mask_spec *spec) { return reads(spec, "h"); }

static saccade_status build(saccade_context *ctx, const mask_spec *spec, const saccade_mask_shape *shape,
                            modifier_sources *sources, saccade_block_mask **mask);

/* What no builder sees: values that must agree with the shape. */
static bool check_values(const mask_spec *spec, const saccade_mask_shape *shape) {
    int32_t batch = shape->batch > 1 ? shape->batch : 1;
    if (spec->left && !check_values(spec->left, shape)) return false;
    if (spec->right && !check_values(spec->right, shape)) return false;
    if (spec->kind == SPEC_EAGLE3 && spec->values[0] != shape->q_len) {
        complain("eagle3:%d: must be the query length, %d", spec->values[0], shape->q_len);
        return false;
    }
    if (spec->kind == SPEC_PREFIX && spec->num_values != 1 && spec->num_values != batch) {
        complain("prefix: %d lengths for a batch of %d", spec->num_values, batch);
        return false;
    }
    return true;
}

static saccade_status build_prefix(saccade_context *ctx, const mask_spec *spec,
                                   const saccade_mask_shape *shape, saccade_block_mask **mask) {
    int32_t batch = shape->batch > 1 ? shape->batch : 1;
    int32_t *prefix = allocate(sizeof *prefix * (size_t)batch);
    for (int32_t b = 0; b < batch; b++) prefix[b] = spec->values[spec->num_values == 1 ? 0 : b];
    saccade_status status = saccade_block_mask_prefix_lm(ctx, mask, shape, prefix);
    free(prefix);
    return status;
}

static saccade_status build_mod(saccade_context *ctx, const mask_spec *spec, const saccade_mask_shape *shape,
                                modifier_sources *sources, saccade_block_mask **mask) {
    bound_text bound = {0};
    saccade_status status =
        bind_text(ctx, &bound, &(modifier_text){SACCADE_MASK_KIND, "mod", spec->text, NULL}, sources);
    if (status == SACCADE_OK) status = saccade_block_mask_from_mod(ctx, mask, shape, &bound.modifier);
    unbind_text(&bound);
    return status;
}

static saccade_status build_operator(saccade_context *ctx, const mask_spec *spec,
                                     const saccade_mask_shape *shape, modifier_sources *sources,
                                     saccade_block_mask **mask) {
    saccade_block_mask *left = NULL, *right = NULL;
    saccade_status status = build(ctx, spec->left, shape, sources, &left);
    if (status == SACCADE_OK && spec->right) status = build(ctx, spec->right, shape, sources, &right);
    if (status == SACCADE_OK && spec->kind == SPEC_AND)
        status = saccade_block_mask_and(ctx, mask, left, right);
    else if (status == SACCADE_OK && spec->kind == SPEC_OR)
        status = saccade_block_mask_or(ctx, mask, left, right);
    else if (status == SACCADE_OK)
        status = saccade_block_mask_not(ctx, mask, left);
    saccade_block_mask_destroy(left);
    saccade_block_mask_destroy(right);
    return status;
}

static saccade_status build(saccade_context *ctx, const mask_spec *spec, const saccade_mask_shape *shape,
                            modifier_sources *sources, saccade_block_mask **mask) {
    const int32_t *x = spec->values;
    switch (spec->kind) {
    case SPEC_AND:
    case SPEC_OR:
    case SPEC_NOT:
        return build_operator(ctx, spec, shape, sources, mask);
    case SPEC_CAUSAL:
        return saccade_block_mask_causal(ctx, mask, shape, spec->bottom_right);
    case SPEC_WINDOW:
        return saccade_block_mask_window(ctx, mask, shape, x[0], x[1], spec->bottom_right);
    case SPEC_DOCUMENT:
        return saccade_block_mask_documents(ctx, mask, shape, x, spec->num_values);
    case SPEC_PREFIX:
        return build_prefix(ctx, spec, shape, mask);
    case SPEC_DILATED:
        return saccade_block_mask_dilated(ctx, mask, shape, x[0], x[1]);
    case SPEC_BLOCK_DIAGONAL:
        return saccade_block_mask_block_diagonal(ctx, mask, shape, x[0], x[1]);
    case SPEC_EAGLE3:
        return saccade_block_mask_eagle3(ctx, mask, shape, NULL);
    case SPEC_MOD:
        return build_mod(ctx, spec, shape, sources, mask);
    }
    return SACCADE_INVALID_ARGUMENT;
}

int mask_spec_build(saccade_context *ctx, const mask_spec *spec, const saccade_mask_shape *shape,
                    modifier_sources *sources, saccade_block_mask **mask) {
    if (!check_values(spec, shape)) return EXIT_USAGE;
    progress_begin("block mask", 0);
    saccade_status status = build(ctx, spec, shape, sources, mask);
    progress_end();
    return status == SACCADE_OK ? EXIT_OK : complain_status("block mask", status);
}
