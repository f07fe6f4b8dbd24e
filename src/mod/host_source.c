/* host_source.c - the C unit that a text becomes for the CPU. It includes nothing, so that a compiler without the C
 * library's headers serves, and libtcc without any file at all. */
#include <stdlib.h>
#include <string.h>

#include "mod/text.h"
#include "shared/embedded.h"

/* What a text may use, in this order. Their own #include lines are left out: this is the inclusion. */
static const char *const prelude_files[] = {"shared/types.h", "saccade/aux.h", "saccade/modifier_text.h",
                                            "shared/math.h"};

#define DECLARATION(name, parameters) "float " #name #parameters ";\n"
static const char declarations[] = SAC_TEXT_FUNCTIONS(DECLARATION);

/* Our vectorising functions take the place of C's, but not for libtcc, which does not vectorise. */
static const char vectorising_names[] = "#ifndef __TINYC__\n"
                                        "#define tanhf sac_tanhf\n"
                                        "#define expf sac_expf\n"
                                        "#define exp2f sac_exp2f\n"
                                        "#define logf sac_logf\n"
                                        "#define log2f sac_log2f\n"
                                        "#define fminf sac_fminf\n"
                                        "#define fmaxf sac_fmaxf\n"
                                        "#endif\n";

static void emit_without_includes(FILE *out, const char *text) {
    for (const char *line = text, *end; *line; line = end) {
        end = strchr(line, '\n');
        end = end ? end + 1 : line + strlen(line);
        if (strncmp(line, "#include", strlen("#include")) != 0) fwrite(line, 1, (size_t)(end - line), out);
    }
}

static void emit_rows(FILE *out, const saccade_modifier *leaf) {
    bool mask = leaf->kind == SACCADE_MASK_KIND, native = leaf->score_row || leaf->mask_row;
    if (!native) sac_text_emit(out, leaf, false, "sac_point", (sac_slot_base){0});
    if (leaf->grad_text && !leaf->score_grad_row)
        sac_text_emit(out, leaf, true, "sac_grad_point", (sac_slot_base){0});
    if (!native)
        fprintf(out, "%s(%s, sac_point)\n", mask ? "SACCADE_MASK_ROW" : "SACCADE_SCORE_ROW",
                mask ? SAC_MASK_ROW_SYMBOL : SAC_SCORE_ROW_SYMBOL);
    if (leaf->grad_text && !leaf->score_grad_row)
        fputs("SACCADE_SCORE_GRAD_ROW(" SAC_SCORE_GRAD_ROW_SYMBOL ", sac_grad_point)\n", out);
}

char *sac_host_source(const saccade_modifier *leaf) {
    char *source = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&source, &size);
    if (!out) return NULL;
    fputs("#define SACCADE_RUN_TIME 1\n#define bool _Bool\n#define true 1\n#define false 0\n", out);
    for (size_t i = 0; i < sizeof prelude_files / sizeof *prelude_files; i++)
        emit_without_includes(out, sac_embedded_text(prelude_files[i], NULL));
    fputs(declarations, out);
    fputs(vectorising_names, out);
    emit_rows(out, leaf);
    bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(source);
        return NULL;
    }
    return source;
}
