/* analytic.c - masks whose blocks follow from arithmetic: nothing is evaluated, time is that of the listing.
 *
 * In all of them a query sees one interval of keys, and the keys of a block's first and last query say it all
 * (sac_interval_row).
 */
#include "base/error.h"
#include "mask/buffer.h"
#include "mask/checks.h"
#include "mask/lists.h"
#include "mask/predicates.h"

typedef struct interval_rule {
    const saccade_block_mask *mask;
    sac_range (*keys)(const struct interval_rule *rule, int32_t b, int32_t q_idx); /* within [0, kv_len] */
    sac_band band;
    const int32_t *values; /* what the mask_mod reads */
} interval_rule;

static saccade_status list_intervals(const void *context, const sac_mask_piece *piece, sac_entry_list *list) {
    const interval_rule *rule = context;
    const saccade_block_mask *mask = rule->mask;
    sac_range q = sac_mask_queries(mask, piece->row);
    sac_range first = rule->keys(rule, piece->b, q.begin), last = rule->keys(rule, piece->b, q.end - 1);
    sac_block_row row = sac_interval_row(first, last, mask->shape.kv_block, mask->shape.kv_len);
    sac_list_block_row(list, &row);
    return SACCADE_OK;
}

static saccade_status list_rule(saccade_context *ctx, interval_rule *rule, saccade_block_mask *mask) {
    rule->mask = mask;
    return sac_mask_list(ctx, mask, &(sac_lister){.list = list_intervals, .rule = rule, .arithmetic = true});
}

/* ---- causal and window ---- */

static sac_range band_keys(const interval_rule *rule, int32_t b, int32_t q_idx) {
    (void)b;
    return (sac_range){sac_band_lo(&rule->band, q_idx), sac_band_hi(&rule->band, q_idx)};
}

static saccade_status build_band(saccade_context *ctx, saccade_block_mask **result,
                                 const saccade_mask_shape *shape, const sac_band_rule *band) {
    saccade_block_mask *mask;
    saccade_status status = sac_mask_new(ctx, &mask, shape);
    if (status != SACCADE_OK) return status;
    interval_rule rule = {.keys = band_keys, .band = sac_band_make(band, shape->q_len, shape->kv_len)};
    const int32_t bounds[] = {rule.band.lo_off, rule.band.hi_off};
    status =
        sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_BAND, &(sac_predicate_value){bounds, 2, SAC_COPIED});
    if (status == SACCADE_OK) status = list_rule(ctx, &rule, mask);
    return sac_mask_finish(result, mask, status);
}

sac_band_rule sac_causal_rule(bool bottom_right) {
    return (sac_band_rule){.causal = bottom_right ? 2 : 1, .window_left = -1, .window_right = -1};
}

saccade_status sac_window_rule(sac_band_rule *rule, int32_t left, int32_t right, bool bottom_right) {
    if (left < -1)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "left: %d is below -1, which is unbounded", left);
    if (right < -1)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "right: %d is below -1, which is unbounded", right);
    *rule = (sac_band_rule){.window_left = left,
                            .window_right = right,
                            .window_align = bottom_right ? SAC_BOTTOM_RIGHT : SAC_TOP_LEFT};
    return SACCADE_OK;
}

saccade_status saccade_block_mask_causal(saccade_context *ctx, saccade_block_mask **mask,
                                         const saccade_mask_shape *shape, bool bottom_right) {
    sac_band_rule rule = sac_causal_rule(bottom_right);
    return build_band(ctx, mask, shape, &rule);
}

saccade_status saccade_block_mask_window(saccade_context *ctx, saccade_block_mask **mask,
                                         const saccade_mask_shape *shape, int32_t left, int32_t right,
                                         bool bottom_right) {
    sac_band_rule rule = {0};
    saccade_status status = sac_window_rule(&rule, left, right, bottom_right);
    return status == SACCADE_OK ? build_band(ctx, mask, shape, &rule) : status;
}

/* ---- documents ---- */

static sac_range listed_keys(const interval_rule *rule, int32_t b, int32_t q_idx) {
    (void)b;
    return (sac_range){rule->values[2 * (int64_t)q_idx], rule->values[2 * (int64_t)q_idx + 1]};
}

saccade_status sac_check_packed(const saccade_mask_shape *shape) {
    if (shape->q_len == shape->kv_len) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "shape: q_len %d and kv_len %d must agree for packed documents",
                    shape->q_len, shape->kv_len);
}

static saccade_status check_documents(const saccade_mask_shape *shape, const int32_t *lengths,
                                      int32_t num_documents) {
    if (num_documents < 0 || (num_documents > 0 && !lengths))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "lengths: is NULL, or num_documents (%d) is negative",
                        num_documents);
    SAC_TRY(sac_check_packed(shape));
    int64_t total = 0;
    for (int32_t i = 0; i < num_documents; i++) {
        if (lengths[i] < 0)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "lengths[%d]: %d is negative", i, lengths[i]);
        total += lengths[i];
    }
    if (total != shape->q_len)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "lengths: sum to %lld, but q_len is %d", (long long)total,
                        shape->q_len);
    return SACCADE_OK;
}

/* Each token's document, as the interval of its keys: the mask_mod then reads by query alone, so that along a row
 * of keys it is two comparisons. */
static int32_t *document_intervals(const int32_t *lengths, int32_t num_documents, int32_t len) {
    int32_t *intervals = sac_buffer_new(2 * (size_t)len * sizeof *intervals);
    for (int32_t i = 0, begin = 0; intervals && i < num_documents; begin += lengths[i++])
        for (int64_t t = begin; t < begin + lengths[i]; t++) {
            intervals[2 * t] = begin;
            intervals[2 * t + 1] = begin + lengths[i];
        }
    return intervals;
}

saccade_status saccade_block_mask_documents(saccade_context *ctx, saccade_block_mask **result,
                                            const saccade_mask_shape *shape, const int32_t *lengths,
                                            int32_t num_documents) {
    saccade_block_mask *mask;
    SAC_TRY(sac_mask_new(ctx, &mask, shape));
    int32_t *intervals = NULL;
    saccade_status status = check_documents(shape, lengths, num_documents);
    if (status != SACCADE_OK) goto finish;
    intervals = document_intervals(lengths, num_documents, shape->q_len);
    if (!intervals) {
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for the documents of %d tokens", shape->q_len);
        goto finish;
    }
    interval_rule rule = {.keys = listed_keys, .values = intervals};
    sac_predicate_value value = {intervals, 2 * (int64_t)shape->q_len, SAC_SHARED};
    status = sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_INTERVALS, &value);
    if (status == SACCADE_OK) status = list_rule(ctx, &rule, mask);
finish:
    sac_buffer_release(intervals);
    return sac_mask_finish(result, mask, status);
}

/* ---- prefix-LM ---- */

static sac_range prefix_keys(const interval_rule *rule, int32_t b, int32_t q_idx) {
    int32_t end = sac_max(rule->values[rule->mask->list_batch == 1 ? 0 : b], q_idx + 1);
    return (sac_range){0, sac_min(end, rule->mask->shape.kv_len)};
}

saccade_status saccade_block_mask_prefix_lm(saccade_context *ctx, saccade_block_mask **result,
                                            const saccade_mask_shape *shape, const int32_t *prefix) {
    if (!prefix) return sac_fail(SACCADE_INVALID_ARGUMENT, "prefix: is NULL");
    saccade_block_mask *mask;
    saccade_status status = sac_mask_new(ctx, &mask, shape);
    if (status != SACCADE_OK) return status;
    int32_t batch = mask->list_batch = mask->shape.batch;
    for (int32_t b = 0; b < batch && status == SACCADE_OK; b++)
        if (prefix[b] < 0)
            status = sac_fail(SACCADE_INVALID_ARGUMENT, "prefix[%d]: %d is negative", b, prefix[b]);
    interval_rule rule = {.keys = prefix_keys, .values = prefix};
    sac_predicate_value value = {prefix, batch, SAC_COPIED};
    if (status == SACCADE_OK) status = sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_PREFIX_LM, &value);
    if (status == SACCADE_OK) status = list_rule(ctx, &rule, mask);
    return sac_mask_finish(result, mask, status);
}

/* ---- block-diagonal ---- */

static sac_range group_keys(const interval_rule *rule, int32_t b, int32_t q_idx) {
    (void)b;
    int64_t size = rule->values[1], first = q_idx / rule->values[0] * size, kv_len = rule->mask->shape.kv_len;
    int64_t end = first + size;
    return (sac_range){(int32_t)(first < kv_len ? first : kv_len), (int32_t)(end < kv_len ? end : kv_len)};
}

saccade_status saccade_block_mask_block_diagonal(saccade_context *ctx, saccade_block_mask **result,
                                                 const saccade_mask_shape *shape, int32_t q_size,
                                                 int32_t kv_size) {
    if (q_size < 1) return sac_fail(SACCADE_INVALID_ARGUMENT, "q_size: %d is below 1", q_size);
    if (kv_size < 1) return sac_fail(SACCADE_INVALID_ARGUMENT, "kv_size: %d is below 1", kv_size);
    saccade_block_mask *mask;
    SAC_TRY(sac_mask_new(ctx, &mask, shape));
    const int32_t sizes[] = {q_size, kv_size};
    interval_rule rule = {.keys = group_keys, .values = sizes};
    sac_predicate_value value = {sizes, 2, SAC_COPIED};
    saccade_status status = sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_BLOCK_DIAGONAL, &value);
    if (status == SACCADE_OK) status = list_rule(ctx, &rule, mask);
    return sac_mask_finish(result, mask, status);
}
