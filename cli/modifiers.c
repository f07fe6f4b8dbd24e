/* modifiers.c - modifier texts of the command line. */
#include "modifiers.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "values.h"

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Tensors of the input that have a meaning of their own; all others are aux tensors. */
static bool is_aux_name(const char *name) {
    static const char *const taken[] = {
        "q",         "k",         "v",    "dout",        "cu_seqlens_q", "cu_seqlens_k",
        "seqused_q", "seqused_k", "sink", "alibi_slopes"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (!strcmp(name, taken[i])) return false;
    return true;
}

/* Where `name` stands in `text` as a word of its own, or NULL. */
static const char *find_word(const char *text, const char *name) {
    size_t length = strlen(name);
    if (!text || !length) return NULL;
    for (const char *at = text; (at = strstr(at, name)); at += length)
        if ((at == text || !is_word(at[-1])) && !is_word(at[length])) return at;
    return NULL;
}

bool text_mentions(const char *text, const char *name) { return find_word(text, name) != NULL; }

/* Does the text read the name through an accessor whose own name begins so, as in `aux_f32(name, i)`? A name that
 * merely occurs may be a variable of the text. */
static bool is_slot(const char *text, const char *name, const char *accessor) {
    for (const char *at = text; (at = find_word(at, name)); at += strlen(name)) {
        const char *end = at;
        while (end > text && isspace((unsigned char)end[-1])) end--;
        if (end == text || *--end != '(') continue;
        while (end > text && isspace((unsigned char)end[-1])) end--;
        const char *begin = end;
        while (begin > text && is_word(begin[-1])) begin--;
        if (!strncmp(begin, accessor, strlen(accessor))) return true;
    }
    return false;
}

bool add_scalar(modifier_sources *sources, const char *assignment) {
    const char *equals = strchrnul(assignment, '=');
    size_t length = (size_t)(equals - assignment);
    double value;
    if (!*equals || !length || !parse_double(equals + 1, &value) || fabs(value) > FLT_MAX ||
        sources->num_scalars == SACCADE_MAX_AUX)
        return false;
    for (int32_t i = 0; i < sources->num_scalars; i++)
        if (!strncmp(sources->scalars[i].name, assignment, length) && !sources->scalars[i].name[length])
            return false;
    sources->scalars[sources->num_scalars++] =
        (struct named_scalar){.name = format_string("%.*s", (int)length, assignment), .value = (float)value};
    return true;
}

bool all_scalars_used(const modifier_sources *sources) {
    for (int32_t i = 0; i < sources->num_scalars; i++) {
        if (sources->scalars[i].used) continue;
        complain("--scalar %s: no modifier text reads scalar(%s)", sources->scalars[i].name,
                 sources->scalars[i].name);
        return false;
    }
    return true;
}

void free_sources(modifier_sources *sources) {
    for (int32_t i = 0; i < sources->num_scalars; i++) free(sources->scalars[i].name);
    *sources = (modifier_sources){0};
}

static bool reads(const modifier_text *text, const char *name, const char *accessor) {
    return is_slot(text->text, name, accessor) || is_slot(text->grad_text, name, accessor);
}

saccade_status bind_text(saccade_context *ctx, bound_text *bound, const modifier_text *text,
                         modifier_sources *sources) {
    const char *scalar_names[SACCADE_MAX_AUX];
    saccade_aux_decl declared[SACCADE_MAX_AUX];
    int32_t num_scalars = 0;
    for (int32_t i = 0; i < sources->num_scalars; i++) {
        if (!reads(text, sources->scalars[i].name, "scalar")) continue;
        sources->scalars[i].used = true;
        bound->scalars[num_scalars] = sources->scalars[i].value;
        scalar_names[num_scalars++] = sources->scalars[i].name;
    }
    for (size_t i = 0; sources->file && i < sources->file->count; i++) {
        const safetensors_tensor *t = &sources->file->tensors[i];
        if (!is_aux_name(t->name) || !reads(text, t->name, "aux_") || bound->num_aux == SACCADE_MAX_AUX)
            continue;
        declared[bound->num_aux] = (saccade_aux_decl){.name = t->name, .dtype = t->tensor.dtype};
        bound->aux_names[bound->num_aux] = t->name;
        bound->wants_grad[bound->num_aux] = is_slot(text->grad_text, t->name, "aux_grad");
        bound->aux[bound->num_aux++] = &t->tensor;
    }
    saccade_modifier_params params = {.kind = text->kind,
                                      .name = text->name,
                                      .text = text->text,
                                      .grad_text = text->grad_text,
                                      .num_aux = bound->num_aux,
                                      .aux = declared,
                                      .num_scalars = num_scalars,
                                      .scalars = scalar_names};
    saccade_status status = saccade_modifier_create(ctx, &bound->owned, &params);
    if (status == SACCADE_OK) status = saccade_modifier_compile(ctx, bound->owned);
    bound->modifier = (saccade_bound_modifier){bound->owned, bound->aux, bound->scalars};
    return status;
}

void unbind_text(bound_text *bound) {
    saccade_modifier_destroy(bound->owned);
    bound->owned = NULL;
}
