/* diagonals.c - masks made of diagonals, a period apart: dilated windows and Eagle3's training mask.
 *
 * A block that meets at most one diagonal holds at most one key a row; it is listed as DIAGONAL, and a kernel then
 * computes a row's one score instead of a tile's worth.
 */
#include "base/error.h"
#include "mask/classify.h"
#include "mask/lists.h"
#include "mask/predicates.h"

/* A block of one pair that is visible is FULL, whatever pattern it belongs to. */
static int32_t diagonal_kind(const saccade_block_mask *mask, sac_range q, int32_t column, int32_t kind) {
    sac_range k = sac_mask_keys(mask, column);
    return q.end - q.begin == 1 && k.end - k.begin == 1 ? SACCADE_FULL : kind;
}

/* ---- dilated ---- */

typedef struct dilated_rule {
    const saccade_block_mask *mask;
    int64_t reach, step;
    int32_t kind; /* of a block that a diagonal crosses */
} dilated_rule;

/* Diagonal t holds the pairs kv_idx = q_idx + t * step. From each listed block it goes straight to the first
 * diagonal that reaches a later block; where diagonals are so close that no block of the first query's is without one,
 * straight to their end. */
static saccade_status list_dilated(const void *context, const sac_mask_piece *piece, sac_entry_list *list) {
    const dilated_rule *rule = context;
    const saccade_block_mask *mask = rule->mask;
    sac_range q = sac_mask_queries(mask, piece->row);
    const int64_t block = mask->shape.kv_block, far = rule->reach * rule->step;
    const int64_t reached = q.begin + far + 1, kv_len = mask->shape.kv_len;
    const int64_t close_end = (reached < kv_len ? reached : kv_len) / block;
    for (int64_t column = 0; column < mask->num_kv_blocks; column++) {
        int64_t first = column * block, shift = first - (q.end - 1);
        int64_t t = shift > 0 ? (shift + rule->step - 1) / rule->step : shift / rule->step;
        if (t < -rule->reach) t = -rule->reach;
        if (t > rule->reach) break;
        int64_t key = q.begin + t * rule->step;
        if (key < first) key = first;
        if (key >= kv_len) break;
        column = key / block;
        int32_t c = (int32_t)column;
        if (rule->step <= block && column < close_end && column * block >= q.begin - far) {
            sac_list_run(list, c, (int32_t)close_end, rule->kind);
            column = close_end - 1;
        } else {
            sac_list_run(list, c, c + 1, diagonal_kind(mask, q, c, rule->kind));
        }
    }
    return SACCADE_OK;
}

saccade_status saccade_block_mask_dilated(saccade_context *ctx, saccade_block_mask **result,
                                          const saccade_mask_shape *shape, int32_t reach, int32_t step) {
    if (reach < 0) return sac_fail(SACCADE_INVALID_ARGUMENT, "reach: %d is negative", reach);
    if (step < 1) return sac_fail(SACCADE_INVALID_ARGUMENT, "step: %d is below 1", step);
    step = sac_min(step, SAC_FAR); /* the other diagonals are beyond any length either way */
    int64_t far = (int64_t)reach * step;
    int32_t distance = far < SAC_FAR ? (int32_t)far : SAC_FAR;
    if (step == 1) return saccade_block_mask_window(ctx, result, shape, distance, distance, false);
    saccade_block_mask *mask;
    SAC_TRY(sac_mask_new(ctx, &mask, shape));
    bool alone = step >= mask->shape.q_block + mask->shape.kv_block - 1; /* one diagonal a block at most */
    dilated_rule rule = {mask, reach, step, alone ? SACCADE_DIAGONAL : SACCADE_PARTIAL};
    const int32_t values[] = {distance, step};
    mask->period = alone ? step : 0;
    saccade_status status = sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_DILATED,
                                                   &(sac_predicate_value){values, 2, SAC_COPIED});
    if (status == SACCADE_OK)
        status =
            sac_mask_list(ctx, mask, &(sac_lister){.list = list_dilated, .rule = &rule, .arithmetic = true});
    return sac_mask_finish(result, mask, status);
}

/* ---- Eagle3 ---- */

typedef struct eagle3_rule {
    const saccade_block_mask *mask;
    const int32_t *lengths; /* (list_batch) */
} eagle3_rule;

static saccade_status list_eagle3(const void *context, const sac_mask_piece *piece, sac_entry_list *list) {
    const eagle3_rule *rule = context;
    const saccade_block_mask *mask = rule->mask;
    sac_block_row row = sac_eagle3_row(sac_mask_queries(mask, piece->row), rule->lengths[piece->b],
                                       mask->shape.kv_block, mask->shape.q_len, mask->shape.kv_len);
    sac_list_block_row(list, &row);
    return SACCADE_OK;
}

saccade_status saccade_block_mask_eagle3(saccade_context *ctx, saccade_block_mask **result,
                                         const saccade_mask_shape *shape, const int32_t *lengths) {
    saccade_block_mask *mask;
    saccade_status status = sac_mask_new(ctx, &mask, shape);
    if (status != SACCADE_OK) return status;
    int32_t q_len = mask->shape.q_len;
    if (lengths) mask->list_batch = mask->shape.batch;
    for (int32_t b = 0; lengths && b < mask->list_batch && status == SACCADE_OK; b++)
        if (lengths[b] < 0)
            status = sac_fail(SACCADE_INVALID_ARGUMENT, "lengths[%d]: %d is negative", b, lengths[b]);
    if (!lengths) lengths = &q_len;
    sac_predicate_value values[] = {{&q_len, 1, SAC_COPIED}, {lengths, mask->list_batch, SAC_COPIED}};
    if (status == SACCADE_OK) status = sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_EAGLE3, values);
    if (status != SACCADE_OK) return sac_mask_finish(result, mask, status);
    if (sac_eagle3_is_regular(q_len, shape->kv_len, mask->shape.q_block, mask->shape.kv_block)) {
        eagle3_rule rule = {mask, lengths};
        mask->period = q_len;
        status =
            sac_mask_list(ctx, mask, &(sac_lister){.list = list_eagle3, .rule = &rule, .arithmetic = true});
    } else {
        status = sac_mask_list_by_asking(ctx, mask);
    }
    return sac_mask_finish(result, mask, status);
}
