/* evaluate.c - a modifier as a function of the public interface, one row at a time. */
#include "base/error.h"
#include "mod/modifier.h"

#define HOST ((DLDevice){kDLCPU, 0})

/* The values of its slots, and code that can run. `values`, called `what`, is where the row stands. */
static saccade_status prepare(saccade_context *ctx, const saccade_bound_modifier *bound,
                              const saccade_modifier_row *row, saccade_modifier_kind kind, const char *what,
                              const void *values, saccade_aux *aux) {
    bool score = kind == SACCADE_SCORE_KIND;
    const char *name = score ? "score_mod" : "mask_mod";
    if (!ctx || !bound || !row)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", !ctx ? "ctx" : !bound ? name : "row");
    if (!bound->modifier || bound->modifier->kind != kind)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: %s", name,
                        !bound->modifier ? "there is none"
                        : score          ? "is a mask_mod"
                                         : "is a score_mod");
    if (row->n < 0) return sac_fail(SACCADE_INVALID_ARGUMENT, "row.n: %d is negative", row->n);
    if (row->n > 0 && !values) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", what);
    SAC_TRY(sac_modifier_bind(aux, bound, HOST, name));
    return sac_modifier_ready(ctx, bound->modifier, score && sac_modifier_has_grad(bound->modifier));
}

saccade_status saccade_modifier_mask_row(saccade_context *ctx, const saccade_bound_modifier *mask_mod,
                                         const saccade_modifier_row *row, uint8_t *visible) {
    saccade_aux aux = {0};
    SAC_TRY(prepare(ctx, mask_mod, row, SACCADE_MASK_KIND, "visible", visible, &aux));
    sac_mask_row(mask_mod->modifier, visible, row->n, row->b, row->h, row->q_idx, row->kv_idx, &aux);
    return SACCADE_OK;
}

saccade_status saccade_modifier_score_row(saccade_context *ctx, const saccade_bound_modifier *score_mod,
                                          const saccade_modifier_row *row, float *score) {
    saccade_aux aux = {0};
    SAC_TRY(prepare(ctx, score_mod, row, SACCADE_SCORE_KIND, "score", score, &aux));
    sac_score_row(score_mod->modifier, score, row->n, row->b, row->h, row->q_idx, row->kv_idx, &aux);
    return SACCADE_OK;
}

saccade_status saccade_modifier_score_grad_row(saccade_context *ctx, const saccade_bound_modifier *score_mod,
                                               const saccade_modifier_row *row, float *grad,
                                               const float *score, DLTensor *const *daux) {
    saccade_aux aux = {0};
    SAC_TRY(prepare(ctx, score_mod, row, SACCADE_SCORE_KIND, "grad", grad, &aux));
    if (row->n > 0 && !score) return sac_fail(SACCADE_INVALID_ARGUMENT, "score: is NULL");
    if (!sac_modifier_has_grad(score_mod->modifier))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "score_mod: \"%s\" has no gradient",
                        score_mod->modifier->name);
    SAC_TRY(sac_modifier_bind_grads(&aux, score_mod->modifier, daux, HOST));
    sac_score_grad_row(score_mod->modifier, grad, score, row->n, row->b, row->h, row->q_idx, row->kv_idx,
                       &aux);
    return SACCADE_OK;
}
