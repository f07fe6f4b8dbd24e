/* modifier.c - making, sharing and ending a modifier. */
#include "mod/modifier.h"

#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"
#include "mod/text.h"

void sac_mod_code_free(const sac_mod_code *code) {
    if (!code) return;
    if (code->release) code->release(code->owner);
    free(code->compiler);
    free((void *)code);
}

static void free_modifier(saccade_modifier *modifier) {
    saccade_modifier_destroy((saccade_modifier *)modifier->a);
    saccade_modifier_destroy((saccade_modifier *)modifier->b);
    sac_mod_code_free(atomic_load(&modifier->code));
    for (int i = 0; i < SACCADE_MAX_AUX; i++) {
        free(modifier->aux[i].name);
        free(modifier->scalars[i]);
    }
    free(modifier->name);
    free(modifier->text);
    free(modifier->grad_text);
    free(modifier);
}

saccade_modifier *sac_modifier_retain(const saccade_modifier *modifier) {
    saccade_modifier *self =
        (saccade_modifier *)modifier; /* all live on the heap; a reference is not a change */
    if (self) atomic_fetch_add(&self->references, 1);
    return self;
}

void saccade_modifier_destroy(saccade_modifier *modifier) {
    if (modifier && atomic_fetch_sub(&modifier->references, 1) == 1) free_modifier(modifier);
}

bool sac_modifier_has_grad(const saccade_modifier *modifier) {
    return modifier->grad_text || modifier->score_grad_row;
}

static const char *kind_name(saccade_modifier_kind kind) {
    return kind == SACCADE_SCORE_KIND ? "score_mod" : "mask_mod";
}

/* Which of the forms are given, and whether they go together. */
static saccade_status check_forms(const saccade_modifier_params *p) {
    const saccade_native_modifier *native = p->native;
    if (!p->text == !native)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "modifier: %s; exactly one of them is needed",
                        native ? "text and native are both given" : "neither text nor native is given");
    if (native && p->kind && p->kind != native->kind)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "kind: %s, but native '%s' is a %s", kind_name(p->kind),
                        native->name ? native->name : "", kind_name(native->kind));
    saccade_modifier_kind kind = native ? native->kind : p->kind;
    if (kind != SACCADE_SCORE_KIND && kind != SACCADE_MASK_KIND)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "kind: %d; it must be SACCADE_SCORE_KIND or SACCADE_MASK_KIND", (int)kind);
    if (native && (!native->score_row != (kind == SACCADE_MASK_KIND) ||
                   !native->mask_row != (kind == SACCADE_SCORE_KIND)))
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "native: a score_mod has a score_row alone, a mask_mod a mask_row alone");
    if ((p->grad_text || p->native_grad) && kind == SACCADE_MASK_KIND)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: a mask_mod has no gradient",
                        p->grad_text ? "grad_text" : "native_grad");
    if (p->grad_text && p->native_grad)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "grad_text and native_grad are both given");
    if (p->native_grad && !p->native_grad->row)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "native_grad: row is NULL");
    return SACCADE_OK;
}

static saccade_status check_count(const char *what, int32_t count, const void *list) {
    if (count < 0 || count > SACCADE_MAX_AUX)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "num_%s: %d; 0 to %d are allowed", what, count,
                        SACCADE_MAX_AUX);
    if (count > 0 && !list)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL, but num_%s is %d", what, what, count);
    return SACCADE_OK;
}

/* Slots share the text's scope, so that no name may occur twice among aux and scalars together. */
static saccade_status check_slot_name(const saccade_modifier *m, const char *what, int32_t index,
                                      const char *name) {
    if (!name) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s[%d]: the name is NULL", what, index);
    if (!sac_slot_name_ok(name))
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "%s[%d]: '%.64s' cannot name a slot; a C identifier without a meaning of its own can",
                        what, index, name);
    for (int32_t i = 0; i < m->num_aux; i++)
        if (!strcmp(name, m->aux[i].name))
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s[%d]: '%s' is the name of aux[%d] already", what,
                            index, name, i);
    for (int32_t i = 0; i < m->num_scalars; i++)
        if (!strcmp(name, m->scalars[i]))
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s[%d]: '%s' is the name of scalars[%d] already", what,
                            index, name, i);
    return SACCADE_OK;
}

static saccade_status no_memory(void) {
    return sac_fail(SACCADE_OUT_OF_MEMORY, "modifier: no memory for a copy of its description");
}

/* num_aux and num_scalars grow with what has been copied, so that a half-made modifier can be freed. */
static saccade_status copy_slots(saccade_modifier *m, const saccade_modifier_params *p) {
    saccade_status status = SACCADE_OK;
    for (int32_t i = 0; i < p->num_aux; i++) {
        const saccade_aux_decl *decl = &p->aux[i];
        if ((status = check_slot_name(m, "aux", i, decl->name)) != SACCADE_OK) return status;
        if (!sac_aux_accessor(decl->dtype))
            return sac_fail(
                SACCADE_INVALID_ARGUMENT,
                "aux[%d] '%s': dtype %s (code %d, %d bits, %d lanes); fp64, fp32, fp16, bf16, int64, int32, "
                "int16, int8 and uint8 are allowed",
                i, decl->name, sac_dtype_text(decl->dtype), decl->dtype.code, decl->dtype.bits,
                decl->dtype.lanes);
        m->aux[i].dtype = decl->dtype;
        if (!(m->aux[i].name = strdup(decl->name))) return no_memory();
        m->num_aux++;
    }
    for (int32_t i = 0; i < p->num_scalars; i++) {
        if ((status = check_slot_name(m, "scalars", i, p->scalars[i])) != SACCADE_OK) return status;
        if (!(m->scalars[i] = strdup(p->scalars[i]))) return no_memory();
        m->num_scalars++;
    }
    return SACCADE_OK;
}

/* A copy of `from`, or NULL for NULL; *failed remembers that memory ran out. */
static char *copy_text(const char *from, bool *failed) {
    char *copy = from ? strdup(from) : NULL;
    if (from && !copy) *failed = true;
    return copy;
}

static saccade_status fill(saccade_modifier *m, const saccade_modifier_params *p) {
    const saccade_native_modifier *native = p->native;
    m->kind = native ? native->kind : p->kind;
    const char *name = p->name ? p->name : native ? native->name : NULL;
    bool failed = false;
    m->name = copy_text(name ? name : kind_name(m->kind), &failed);
    m->text = copy_text(native ? native->text : p->text, &failed);
    m->grad_text = copy_text(p->native_grad ? p->native_grad->text : p->grad_text, &failed);
    if (failed) return no_memory();
    m->score_row = native ? native->score_row : NULL;
    m->mask_row = native ? native->mask_row : NULL;
    m->score_grad_row = p->native_grad ? p->native_grad->row : NULL;

    saccade_status status = copy_slots(m, p);
    if (status == SACCADE_OK && m->text) status = sac_text_check(m, "text", m->text);
    if (status == SACCADE_OK && m->grad_text) status = sac_text_check(m, "grad_text", m->grad_text);
    return status;
}

saccade_status saccade_modifier_create(saccade_context *ctx, saccade_modifier **result,
                                       const saccade_modifier_params *params) {
    if (!ctx || !result || !params)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL",
                        !ctx      ? "ctx"
                        : !result ? "modifier"
                                  : "params");
    SAC_TRY(check_forms(params));
    SAC_TRY(check_count("aux", params->num_aux, params->aux));
    SAC_TRY(check_count("scalars", params->num_scalars, params->scalars));

    saccade_modifier *modifier = calloc(1, sizeof *modifier);
    if (!modifier) return no_memory();
    atomic_init(&modifier->references, 1);
    saccade_status status = fill(modifier, params);
    if (status != SACCADE_OK) {
        free_modifier(modifier);
        return status;
    }
    *result = modifier;
    return SACCADE_OK;
}
