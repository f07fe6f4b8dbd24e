/* text_check.c - what can be said about a text without compiling it.
 *
 * Only what a compiler could not see is looked for: slots are plain numbers to it, so that reading an int32 tensor
 * with aux_f32, or slot 3 of 2, would compile and give nonsense; and a slot that was never declared, which every
 * compiler sees, but names in the middle of our macros. A slot that the text computes is left to the compiler.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"
#include "mod/text.h"

static const struct sac_aux_type {
    const char *accessor;
    uint8_t code, bits;
} aux_types[] = {
    {"aux_f64", kDLFloat, 64},   {"aux_f32", kDLFloat, 32}, {"aux_f16", kDLFloat, 16},
    {"aux_bf16", kDLBfloat, 16}, {"aux_i64", kDLInt, 64},   {"aux_i32", kDLInt, 32},
    {"aux_i16", kDLInt, 16},     {"aux_i8", kDLInt, 8},     {"aux_u8", kDLUInt, 8},
};
enum { NUM_AUX_TYPES = sizeof aux_types / sizeof *aux_types };

const char *sac_aux_accessor(DLDataType dtype) {
    for (int i = 0; i < NUM_AUX_TYPES; i++)
        if (dtype.lanes == 1 && dtype.code == aux_types[i].code && dtype.bits == aux_types[i].bits)
            return aux_types[i].accessor;
    return NULL;
}

/* Words of C and CUDA C, and of a text itself. */
#define WORD(name, parameters) #name,
static const char *const reserved_words[] = {
    "alignas", "alignof", "and", "asm", "auto", "bool", "break", "case", "catch", "char", "class", "const",
    "constexpr", "continue", "decltype", "default", "delete", "do", "double", "else", "enum", "explicit",
    "export", "extern", "false", "float", "for", "friend", "goto", "if", "inline", "int", "long", "mutable",
    "namespace", "new", "noexcept", "not", "nullptr", "operator", "or", "private", "protected", "public",
    "register", "restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "template",
    "this", "throw", "true", "try", "typedef", "typeid", "typename", "typeof", "union", "unsigned", "using",
    "virtual", "void", "volatile", "while", "xor",
    /* a text's own */
    "score", "grad", "b", "h", "q_idx", "kv_idx", "aux", "scalar", "atomicAdd", "int8_t", "uint8_t",
    "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t", "uint64_t", SAC_TEXT_FUNCTIONS(WORD)};

static bool has_prefix(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

bool sac_slot_name_ok(const char *name) {
    if (!isalpha((unsigned char)*name) && *name != '_') return false;
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_') return false;
    if (has_prefix(name, "__") || has_prefix(name, "aux_") || has_prefix(name, "sac_") ||
        has_prefix(name, "saccade_") || has_prefix(name, "SACCADE_"))
        return false;
    for (size_t i = 0; i < sizeof reserved_words / sizeof *reserved_words; i++)
        if (!strcmp(name, reserved_words[i])) return false;
    return strlen(name) <= 64;
}

/* ---- reading a text word by word ---- */

typedef struct reader {
    const saccade_modifier *modifier;
    const char *which; /* of the modifier's texts */
    const char *text, *at;
    int line;
} reader;

static saccade_status fail_at(const reader *r, const char *what) {
    return sac_fail(SACCADE_INVALID_ARGUMENT, "%s of '%s', line %d: %s", r->which, r->modifier->name, r->line,
                    what);
}

static void advance(reader *r) {
    if (*r->at == '\n') r->line++;
    r->at++;
}

/* Past blanks and comments. An unterminated comment ends with the text; the compiler will say so. */
static void skip_blank(reader *r) {
    for (;;) {
        if (isspace((unsigned char)*r->at)) {
            advance(r);
        } else if (has_prefix(r->at, "//")) {
            while (*r->at && *r->at != '\n') r->at++;
        } else if (has_prefix(r->at, "/*")) {
            for (r->at += 2; *r->at && !has_prefix(r->at, "*/");) advance(r);
            if (*r->at) r->at += 2;
        } else {
            return;
        }
    }
}

/* Past a string or character constant, whose contents mean nothing here. */
static void skip_quoted(reader *r) {
    char quote = *r->at++;
    while (*r->at && *r->at != quote && *r->at != '\n') {
        if (*r->at == '\\' && r->at[1]) advance(r);
        advance(r);
    }
    if (*r->at == quote) r->at++;
}

static bool in_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Copies the word (identifier or number) at the reader and goes past it; "" when there is none. Longer words than
 * fit mean nothing here and are cut. */
static void read_word(reader *r, char *word, size_t size) {
    size_t n = 0;
    for (; in_word(*r->at); r->at++)
        if (n + 1 < size) word[n++] = *r->at;
    word[n] = '\0';
}

static bool text_names(const char *text, const char *word) {
    char found[80];
    reader r = {.at = text};
    for (skip_blank(&r); *r.at; skip_blank(&r)) {
        if (*r.at == '"' || *r.at == '\'') {
            skip_quoted(&r);
        } else if (in_word(*r.at)) {
            read_word(&r, found, sizeof found);
            if (!strcmp(found, word)) return true;
        } else {
            r.at++;
        }
    }
    return false;
}

bool sac_modifier_names(const saccade_modifier *m, const char *word) {
    if (m->op == SAC_MOD_LEAF) return !m->text || text_names(m->text, word);
    return sac_modifier_names(m->a, word) || (m->b && sac_modifier_names(m->b, word));
}

bool sac_text_is_body(const char *text) {
    reader r = {.at = text};
    skip_blank(&r);
    return *r.at == '{';
}

/* ---- accessors ---- */

static int find_aux(const saccade_modifier *m, const char *name) {
    for (int i = 0; i < m->num_aux; i++)
        if (!strcmp(m->aux[i].name, name)) return i;
    return -1;
}

static int find_scalar(const saccade_modifier *m, const char *name) {
    for (int i = 0; i < m->num_scalars; i++)
        if (!strcmp(m->scalars[i], name)) return i;
    return -1;
}

static bool is_accessor(const char *word) {
    for (int i = 0; i < NUM_AUX_TYPES; i++)
        if (!strcmp(word, aux_types[i].accessor)) return true;
    return !strcmp(word, "aux_size") || !strcmp(word, "aux_grad") || !strcmp(word, "scalar");
}

/* Does the word stand anywhere but in a slot's place? Then it may be a variable of the text. */
static bool may_be_variable(const char *text, const char *word) {
    enum { ELSEWHERE, ACCESSOR, SLOT } place = ELSEWHERE;
    char found[80];
    reader r = {.at = text};
    for (skip_blank(&r); *r.at; skip_blank(&r)) {
        if (in_word(*r.at)) {
            read_word(&r, found, sizeof found);
            if (place != SLOT && !strcmp(found, word)) return true;
            place = is_accessor(found) ? ACCESSOR : ELSEWHERE;
        } else {
            place = place == ACCESSOR && *r.at == '(' ? SLOT : ELSEWHERE;
            r.at++;
        }
    }
    return false;
}

/* The slot that `word` means to an accessor of aux tensors (or of scalars): its index, or -1 when only the
 * compiler can know. Fails when there is no such slot. */
static saccade_status slot_of(const reader *r, const char *accessor, const char *word, bool of_scalars,
                              int *slot) {
    const saccade_modifier *m = r->modifier;
    char what[320];
    int count = of_scalars ? m->num_scalars : m->num_aux;
    *slot = -1;
    if (isdigit((unsigned char)*word)) {
        char *end;
        unsigned long number = strtoul(word, &end, 0);
        if (*end) return SACCADE_OK;
        if (number < (unsigned long)count) {
            *slot = (int)number;
            return SACCADE_OK;
        }
        snprintf(what, sizeof what, "%s(%.20s, ...): there are %d %s", accessor, word, count,
                 of_scalars ? "scalars" : "aux tensors");
        return fail_at(r, what);
    }
    *slot = of_scalars ? find_scalar(m, word) : find_aux(m, word);
    bool other_kind = of_scalars ? find_aux(m, word) >= 0 : find_scalar(m, word) >= 0;
    if (other_kind)
        snprintf(what, sizeof what, "%s(%s, ...): %s is %s", accessor, word, word,
                 of_scalars ? "an aux tensor" : "a scalar");
    else if (*slot >= 0 || may_be_variable(r->text, word))
        return SACCADE_OK;
    else
        snprintf(what, sizeof what, "%s(%s%s): there is no %s '%s'", accessor, word,
                 of_scalars ? "" : ", ...", of_scalars ? "scalar" : "aux tensor", word);
    return fail_at(r, what);
}

/* Holds one use, accessor(word, ...), against the declarations. */
static saccade_status check_use(const reader *r, const char *accessor, const char *word) {
    char what[320];
    bool is_grad = !strcmp(accessor, "aux_grad"), is_scalar = !strcmp(accessor, "scalar");
    if (is_grad && strcmp(r->which, "grad_text") != 0)
        return fail_at(r, "aux_grad belongs into grad_text alone");
    int slot;
    saccade_status status = slot_of(r, accessor, word, is_scalar, &slot);
    if (status != SACCADE_OK || slot < 0 || is_scalar || !strcmp(accessor, "aux_size")) return status;

    const struct sac_mod_aux *aux = &r->modifier->aux[slot];
    const char *dtype = sac_dtype_text(aux->dtype), *right = sac_aux_accessor(aux->dtype);
    if (is_grad && aux->dtype.code != kDLFloat && aux->dtype.code != kDLBfloat) {
        snprintf(what, sizeof what, "aux_grad(%s, ...): %s is %s and has no gradient", word, aux->name,
                 dtype);
        return fail_at(r, what);
    }
    if (!is_grad && strcmp(accessor, right) != 0) {
        snprintf(what, sizeof what, "%s(%s, ...): %s is declared %s, to be read with %s", accessor, word,
                 aux->name, dtype, right);
        return fail_at(r, what);
    }
    return SACCADE_OK;
}

/* A scalar's name by itself is its slot's number, and would silently be computed with. (The name of an aux tensor may
 * stand in an expression that chooses a slot.) */
static saccade_status check_bare(const reader *r, const char *word) {
    char what[320];
    if (find_scalar(r->modifier, word) < 0) return SACCADE_OK;
    snprintf(what, sizeof what, "%s by itself is a slot's number; its value is scalar(%s)", word, word);
    return fail_at(r, what);
}

/* After an accessor's name: checks its slot if that is a single word. */
static saccade_status check_accessor(reader *r, const char *accessor) {
    skip_blank(r);
    if (*r->at != '(') return SACCADE_OK;
    r->at++;
    skip_blank(r);
    reader slot = *r; /* the slot itself is read again: it may be an accessor in its turn */
    char word[80];
    read_word(&slot, word, sizeof word);
    skip_blank(&slot);
    if (!*word || (*slot.at != ',' && *slot.at != ')')) return SACCADE_OK;
    saccade_status status = check_use(r, accessor, word);
    *r = slot;
    if (status != SACCADE_OK || strcmp(accessor, "aux_size") != 0 || *slot.at != ',') return status;
    slot.at++;
    skip_blank(&slot);
    read_word(&slot, word, sizeof word);
    if (isdigit((unsigned char)*word) && strtoul(word, NULL, 0) >= SACCADE_MAX_AUX_DIMS)
        return fail_at(r, "aux_size: dimensions are 0 to 3");
    return SACCADE_OK;
}

saccade_status sac_text_check(const saccade_modifier *modifier, const char *which, const char *text) {
    reader r = {.modifier = modifier, .which = which, .text = text, .at = text, .line = 1};
    int line_of_last_word = 0;
    for (skip_blank(&r); *r.at; skip_blank(&r)) {
        bool first_of_line = line_of_last_word != r.line;
        line_of_last_word = r.line;
        if (first_of_line && (*r.at == '#' || has_prefix(r.at, "%:")))
            return fail_at(&r, "a preprocessor line; a text is one expression or body and includes nothing");
        char word[80];
        if (*r.at == '"' || *r.at == '\'') {
            skip_quoted(&r);
        } else if (in_word(*r.at)) {
            read_word(&r, word, sizeof word);
            SAC_TRY(is_accessor(word) ? check_accessor(&r, word) : check_bare(&r, word));
        } else {
            advance(&r);
        }
    }
    if (line_of_last_word == 0)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s of '%s' is empty; an expression or a body is needed",
                        which, modifier->name);
    return SACCADE_OK;
}
