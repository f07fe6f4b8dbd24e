/* compile.c - texts compiled for the CPU when first needed: which compiler, and how threads agree on the result.
 *
 * No lock is held while a C compiler runs. Two threads that need a text at once may both compile it; the first
 * publishes its code and the other's is thrown away. So a thread never waits for another, and a child process
 * forked in between never for a thread that it does not have.
 */
#include "mod/compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "mod/text.h"

/* ---- which compiler ---- */

static bool is_program(const char *path) {
    struct stat file;
    return access(path, X_OK) == 0 && stat(path, &file) == 0 && S_ISREG(file.st_mode);
}

/* The program of that name: a path if it has a slash, else the first in PATH. Absolute, since it will run in a
 * directory of its own; relative folders in PATH are passed over. NULL: there is none. */
static char *find_program(const char *name) {
    char *program = NULL;
    if (strchr(name, '/')) {
        char *here = *name == '/' ? NULL : get_current_dir_name();
        if (!is_program(name) || asprintf(&program, "%s%s%s", here ? here : "", here ? "/" : "", name) < 0)
            program = NULL;
        free(here);
        return program;
    }
    const char *path = getenv("PATH");
    for (const char *dir = path ? path : "", *end; *dir; dir = *end ? end + 1 : end) {
        end = strchrnul(dir, ':');
        if (*dir != '/' || asprintf(&program, "%.*s/%s", (int)(end - dir), dir, name) < 0) continue;
        if (is_program(program)) return program;
        free(program);
    }
    return NULL;
}

static void free_state(void *data) {
    sac_mod_state *state = data;
    free(state->compiler);
    free(state);
}

sac_mod_state *sac_mod_state_of(saccade_context *ctx) {
    sac_backend_state *slot = &ctx->state[SAC_STATE_MOD];
    if (!slot->data && (slot->data = calloc(1, sizeof(sac_mod_state)))) slot->destroy = free_state;
    return slot->data;
}

static saccade_status choose_compiler(const saccade_context *ctx, sac_mod_state *state) {
    static const char *const usual[] = {"cc", "gcc", "clang"};
    if (state->chosen) return SACCADE_OK;
    if (!ctx->compiler)
        for (int i = 0; i < 3 && !state->compiler; i++) state->compiler = find_program(usual[i]);
    else if (strcmp(ctx->compiler, "libtcc") != 0 && !(state->compiler = find_program(ctx->compiler)))
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "compiler: '%s' is no program, nor is one so called in PATH", ctx->compiler);
    state->chosen = true;
    return SACCADE_OK;
}

/* ---- compiling ---- */

/* The machine's compiler; libtcc when there is none, or none that works, unless one was asked for by name. */
static sac_compile_result run_compiler(saccade_context *ctx, sac_mod_state *state, const char *source,
                                       sac_mod_code *code, char **log) {
    sac_compile_result result = SAC_COMPILE_UNUSABLE;
    if (state->compiler) {
        result = sac_compile_cc(ctx, state, source, code, log);
        code->compiler = strdup(state->compiler);
        if (result != SAC_COMPILE_UNUSABLE || ctx->compiler) return result;
        free(*log);
        free(code->compiler);
        free(state->compiler); /* and not tried again */
        state->compiler = NULL;
    }
    code->compiler = strdup("libtcc");
    return sac_compile_tcc(state, source, code, log);
}

static saccade_status compile_failed(const saccade_modifier *m, sac_compile_result result,
                                     const char *compiler, const char *log) {
    if (result == SAC_COMPILE_REFUSED)
        return sac_fail(SACCADE_COMPILE_FAILED, "%s '%s' does not compile:\n%s",
                        m->kind == SACCADE_SCORE_KIND ? "score_mod" : "mask_mod", m->name, log ? log : "");
    return sac_fail(SACCADE_COMPILE_FAILED, "'%s': no working C compiler for its text (%s):\n%s", m->name,
                    compiler ? compiler : "", log ? log : "");
}

static saccade_status compile_leaf(saccade_context *ctx, const saccade_modifier *m) {
    saccade_modifier *self = (saccade_modifier *)m; /* publishing code is no change that anyone can see */
    sac_mod_state *state = sac_mod_state_of(ctx);
    sac_mod_code *code = calloc(1, sizeof *code);
    char *source = sac_host_source(m), *log = NULL;
    saccade_status status;
    if (state && code && source)
        status = choose_compiler(ctx, state);
    else
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "'%s': no memory to compile its text", m->name);
    if (status == SACCADE_OK) {
        sac_compile_result result = run_compiler(ctx, state, source, code, &log);
        if (result != SAC_COMPILED) status = compile_failed(m, result, code->compiler, log);
    }
    const sac_mod_code *none = NULL;
    if (status == SACCADE_OK && atomic_compare_exchange_strong(&self->code, &none, code)) code = NULL;
    sac_mod_code_free(code);
    free(source);
    free(log);
    return status;
}

/* Is there a text without a native form? */
static bool needs_compiler(const saccade_modifier *m) {
    return !(m->score_row || m->mask_row) || (m->grad_text && !m->score_grad_row);
}

saccade_status sac_modifier_ready(saccade_context *ctx, const saccade_modifier *m, bool with_grad) {
    if (m->op != SAC_MOD_LEAF) {
        saccade_status status = sac_modifier_ready(ctx, m->a, false);
        return status == SACCADE_OK && m->b ? sac_modifier_ready(ctx, m->b, false) : status;
    }
    if (with_grad && !sac_modifier_has_grad(m))
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "score_mod '%s' has no gradient: a backward pass needs its grad_text", m->name);
    if (!needs_compiler(m) || atomic_load(&((saccade_modifier *)m)->code)) return SACCADE_OK;
    return compile_leaf(ctx, m);
}

saccade_status saccade_modifier_compile(saccade_context *ctx, saccade_modifier *modifier) {
    if (!ctx || !modifier)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", !ctx ? "ctx" : "modifier");
    return sac_modifier_ready(ctx, modifier, false);
}

const char *saccade_modifier_compiler(const saccade_modifier *m) {
    if (!m) return "";
    if (m->op != SAC_MOD_LEAF) {
        const char *a = saccade_modifier_compiler(m->a), *b = m->b ? saccade_modifier_compiler(m->b) : a;
        return strcmp(a, "native") != 0 ? a : b;
    }
    if (!needs_compiler(m)) return "native";
    const sac_mod_code *code = atomic_load(&((saccade_modifier *)m)->code);
    return code && code->compiler ? code->compiler : "";
}
