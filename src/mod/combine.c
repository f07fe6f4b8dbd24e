/* combine.c - mask_mods joined by and, or, not. A combination keeps its operands and asks both, row by row. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "mod/modifier.h"

/* Evaluation recurses; nobody writes masks this deep by hand. */
enum { MAX_DEPTH = 64 };

static saccade_status check_operand(const saccade_modifier *operand) {
    if (!operand) return sac_fail(SACCADE_INVALID_ARGUMENT, "combination: an operand is NULL");
    if (operand->kind != SACCADE_MASK_KIND)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "combination: '%s' is a score_mod; only mask_mods combine",
                        operand->name);
    if (operand->depth >= MAX_DEPTH)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "combination: nested deeper than %d", MAX_DEPTH);
    return SACCADE_OK;
}

/* Slots get no names in a combination: its operands know their own. */
static void append_slots(saccade_modifier *m, const saccade_modifier *operand) {
    for (int32_t i = 0; i < operand->num_aux; i++) m->aux[m->num_aux + i].dtype = operand->aux[i].dtype;
    m->num_aux += operand->num_aux;
    m->num_scalars += operand->num_scalars;
}

/* "(a & b)", "(a | b)", "!a", cut where names grow beyond reading. */
static char *combined_name(sac_mod_operator op, const saccade_modifier *a, const saccade_modifier *b) {
    char name[160];
    if (op == SAC_MOD_NOT)
        snprintf(name, sizeof name, "!%s", a->name);
    else
        snprintf(name, sizeof name, "(%s %c %s)", a->name, op == SAC_MOD_AND ? '&' : '|', b->name);
    return strdup(name);
}

saccade_status sac_modifier_combine(saccade_modifier **result, sac_mod_operator op, const saccade_modifier *a,
                                    const saccade_modifier *b) {
    SAC_TRY(check_operand(a));
    if (op != SAC_MOD_NOT) SAC_TRY(check_operand(b));
    int32_t num_aux = a->num_aux + (b ? b->num_aux : 0),
            num_scalars = a->num_scalars + (b ? b->num_scalars : 0);
    if (num_aux > SACCADE_MAX_AUX || num_scalars > SACCADE_MAX_AUX)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "combination of '%s' and '%s': %d aux tensors and %d scalars; %d of each are allowed",
                        a->name, b->name, num_aux, num_scalars, SACCADE_MAX_AUX);

    saccade_modifier *m = calloc(1, sizeof *m);
    char *name = combined_name(op, a, b);
    if (!m || !name) {
        free(m);
        free(name);
        return sac_fail(SACCADE_OUT_OF_MEMORY, "combination: no memory for its description");
    }
    atomic_init(&m->references, 1);
    m->kind = SACCADE_MASK_KIND;
    m->op = op;
    m->name = name;
    m->a = sac_modifier_retain(a);
    m->b = sac_modifier_retain(b);
    m->depth = 1 + (b && b->depth > a->depth ? b->depth : a->depth);
    append_slots(m, a);
    if (b) append_slots(m, b);
    *result = m;
    return SACCADE_OK;
}

/* ---- row evaluation ---- */

/* The second operand's view of the slots: they begin where the first one's end. */
static const saccade_aux *slots_of_b(const saccade_modifier *m, const saccade_aux *aux,
                                     saccade_aux *shifted) {
    const saccade_modifier *a = m->a, *b = m->b;
    if (a->num_aux + a->num_scalars == 0 || b->num_aux + b->num_scalars == 0) return aux;
    memcpy(shifted->tensor, aux->tensor + a->num_aux, (size_t)b->num_aux * sizeof *aux->tensor);
    memcpy(shifted->scalar, aux->scalar + a->num_scalars, (size_t)b->num_scalars * sizeof *aux->scalar);
    return shifted;
}

/* A leaf's function: native, or the text's compiled one. */
#define ROW_FUNCTION(modifier, member)                                                                       \
    ((modifier)->member                                                                                      \
         ? (modifier)->member                                                                                \
         : atomic_load_explicit(&((saccade_modifier *)(modifier))->code, memory_order_acquire)->member)

void sac_mask_row(const saccade_modifier *m, uint8_t *visible, int32_t n, int32_t b, int32_t h, int32_t q_idx,
                  int32_t kv_idx, const saccade_aux *aux) {
    if (m->op == SAC_MOD_LEAF) {
        ROW_FUNCTION(m, mask_row)(visible, n, b, h, q_idx, kv_idx, aux);
        return;
    }
    sac_mask_row(m->a, visible, n, b, h, q_idx, kv_idx, aux);
    if (m->op == SAC_MOD_NOT) {
        for (int32_t i = 0; i < n; i++) visible[i] ^= 1;
        return;
    }
    saccade_aux shifted;
    const saccade_aux *aux_b = slots_of_b(m, aux, &shifted);
    uint8_t second[256];
    for (int32_t done = 0, part; done < n; done += part, visible += part) {
        part = n - done < (int32_t)sizeof second ? n - done : (int32_t)sizeof second;
        sac_mask_row(m->b, second, part, b, h, q_idx, kv_idx + done, aux_b);
        if (m->op == SAC_MOD_AND)
            for (int32_t i = 0; i < part; i++) visible[i] &= second[i];
        else
            for (int32_t i = 0; i < part; i++) visible[i] |= second[i];
    }
}

void sac_score_row(const saccade_modifier *m, float *score, int32_t n, int32_t b, int32_t h, int32_t q_idx,
                   int32_t kv_idx, const saccade_aux *aux) {
    ROW_FUNCTION(m, score_row)(score, n, b, h, q_idx, kv_idx, aux);
}

void sac_score_grad_row(const saccade_modifier *m, float *grad, const float *score, int32_t n, int32_t b,
                        int32_t h, int32_t q_idx, int32_t kv_idx, const saccade_aux *aux) {
    ROW_FUNCTION(m, score_grad_row)(grad, score, n, b, h, q_idx, kv_idx, aux);
}
