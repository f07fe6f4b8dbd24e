/* device_text.c - a modifier as CUDA C, for kernels to be compiled with it. The text defines, __device__ and inlined,
 *
 *   float sac_score_mod(float score, int b, int h, int q_idx, int kv_idx, const saccade_aux *aux)
 *   float sac_score_mod_grad(float grad, float score, int b, int h, int q_idx, int kv_idx, const saccade_aux *aux),
 *     zero where there is no grad_text
 *   bool sac_mask_mod(int b, int h, int q_idx, int kv_idx, const saccade_aux *aux)
 *
 * and includes "shared/types.h" and "saccade/modifier_text.h" by those names. The mathematical functions are the
 * device's own. A combination is an expression over the functions of its leaves.
 */
#include <stdlib.h>

#include "base/error.h"
#include "mod/text.h"

/* Leaves are numbered, and their slots laid out, in the order of a walk from left to right. */
typedef struct leaf_walk {
    FILE *out;
    int index;
    sac_slot_base base;
} leaf_walk;

static saccade_status emit_mask_leaves(leaf_walk *walk, const saccade_modifier *m) {
    if (m->op != SAC_MOD_LEAF) {
        saccade_status status = emit_mask_leaves(walk, m->a);
        return status == SACCADE_OK && m->b ? emit_mask_leaves(walk, m->b) : status;
    }
    if (!m->text)
        return sac_fail(SACCADE_UNSUPPORTED, "mask_mod '%s' is a native form without text: CPU only",
                        m->name);
    char function[32];
    snprintf(function, sizeof function, "sac_mask_leaf_%d", walk->index++);
    sac_text_emit(walk->out, m, false, function, walk->base);
    walk->base.aux += m->num_aux;
    walk->base.scalar += m->num_scalars;
    return SACCADE_OK;
}

static void emit_mask_expression(FILE *out, const saccade_modifier *m, int *index) {
    if (m->op == SAC_MOD_LEAF) {
        fprintf(out, "sac_mask_leaf_%d(b, h, q_idx, kv_idx, aux)", (*index)++);
        return;
    }
    fputs(m->op == SAC_MOD_NOT ? "!(" : "(", out);
    emit_mask_expression(out, m->a, index);
    if (m->b) {
        fputs(m->op == SAC_MOD_AND ? " && " : " || ", out);
        emit_mask_expression(out, m->b, index);
    }
    fputs(")", out);
}

static saccade_status emit_mask(FILE *out, const saccade_modifier *m) {
    leaf_walk walk = {.out = out};
    SAC_TRY(emit_mask_leaves(&walk, m));
    fputs("SACCADE_TEXT_FN bool sac_mask_mod(int b, int h, int q_idx, int kv_idx, const saccade_aux *aux) {\n"
          "    return ",
          out);
    int index = 0;
    emit_mask_expression(out, m, &index);
    fputs(";\n}\n", out);
    return SACCADE_OK;
}

static saccade_status emit_score(FILE *out, const saccade_modifier *m) {
    if (!m->text || (m->score_grad_row && !m->grad_text))
        return sac_fail(SACCADE_UNSUPPORTED, "score_mod '%s' has a native %s without text: CPU only", m->name,
                        m->text ? "gradient" : "form");
    sac_text_emit(out, m, false, "sac_score_mod", (sac_slot_base){0});
    if (m->grad_text)
        sac_text_emit(out, m, true, "sac_score_mod_grad", (sac_slot_base){0});
    else /* kernels without a backward pass may name it, none calls it: sac_rule_score_mod_grad */
        fputs("SACCADE_TEXT_FN float sac_score_mod_grad(float, float, int32_t, int32_t, int32_t, int32_t, "
              "const saccade_aux *) {\n    return 0;\n}\n",
              out);
    return SACCADE_OK;
}

saccade_status sac_modifier_device_text(const saccade_modifier *modifier, char **text) {
    size_t size = 0;
    *text = NULL;
    FILE *out = open_memstream(text, &size);
    if (!out) return sac_fail(SACCADE_OUT_OF_MEMORY, "'%s': no memory for its device text", modifier->name);
    fputs("#include \"shared/types.h\"\n#include \"saccade/modifier_text.h\"\n", out);
    saccade_status status =
        modifier->kind == SACCADE_MASK_KIND ? emit_mask(out, modifier) : emit_score(out, modifier);
    bool failed = ferror(out);
    if ((fclose(out) != 0 || failed) && status == SACCADE_OK)
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "'%s': no memory for its device text", modifier->name);
    if (status != SACCADE_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
