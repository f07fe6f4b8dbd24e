/* text_emit.c - the C function around a text: on the host and on devices the same, but for the words before it. */
#include <ctype.h>
#include <string.h>

#include "mod/text.h"

/* Slots are numbers under their names, in the innermost scope, where they hide whatever else is so called. */
static void emit_slot_names(FILE *out, const saccade_modifier *leaf, sac_slot_base base) {
    fprintf(out, "    enum { sac_aux_base = %d, sac_scalar_base = %d", base.aux, base.scalar);
    for (int32_t i = 0; i < leaf->num_aux; i++) fprintf(out, ", %s = %d", leaf->aux[i].name, i);
    for (int32_t i = 0; i < leaf->num_scalars; i++) fprintf(out, ", %s = %d", leaf->scalars[i], i);
    fputs(" };\n", out);
}

/* The text under its modifier's name, as the "file" of messages. */
static void emit_line(FILE *out, const char *name, const char *which) {
    fputs("#line 1 \"", out);
    for (; *name; name++)
        fputc(isprint((unsigned char)*name) && *name != '"' && *name != '\\' ? *name : '_', out);
    fprintf(out, "%s\"\n", which);
}

void sac_text_emit(FILE *out, const saccade_modifier *leaf, bool grad, const char *function,
                   sac_slot_base base) {
    bool mask = leaf->kind == SACCADE_MASK_KIND;
    const char *text = grad ? leaf->grad_text : leaf->text;
    fprintf(out,
            "SACCADE_TEXT_FN %s %s(%sint32_t b, int32_t h, int32_t q_idx, int32_t kv_idx, "
            "const saccade_aux *aux%s) {\n",
            mask ? "bool" : "float", function,
            mask   ? ""
            : grad ? "float grad, float score, "
                   : "float score, ",
            grad ? " SACCADE_GRAD_SUMS" : "");
    emit_slot_names(out, leaf, base);
    bool body = sac_text_is_body(text);
    if (!body) fputs("    return (\n", out);
    emit_line(out, leaf->name, grad ? " (grad_text)" : "");
    fputs(text, out);
    /* On the text's last line, where a message about what is missing there belongs, unless a comment may end it. */
    if (strstr(text, "//")) fputs("\n", out);
    fputs(body ? " }\n" : "); }\n", out);
    fputs("#line 1 \"around modifiers\"\n", out);
}
