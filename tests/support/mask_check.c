/* mask_check.c - see mask_check.h. */
#include "support/mask_check.h"

#include <stdio.h>
#include <stdlib.h>

#include "mask/block_mask.h"
#include "support/cmocka_all.h"

const char *shape_text(const saccade_mask_shape *shape) {
    static char text[160];
    snprintf(text, sizeof text, "q %d kv %d blocks %dx%d batch %d heads %d", shape->q_len, shape->kv_len,
             shape->q_block, shape->kv_block, shape->batch, shape->num_heads);
    return text;
}

/* The pairs of one block, counted. */
typedef struct block_facts {
    int64_t pairs, visible;
    bool one_diagonal; /* all visible pairs have the same kv_idx - q_idx, a multiple of the period */
} block_facts;

static block_facts count_block(const expected_mask *expected, const saccade_block_mask_info *info, int32_t b,
                               int32_t h, int64_t row, int64_t column) {
    const saccade_mask_shape *s = &info->shape;
    block_facts facts = {.one_diagonal = true};
    int64_t delta = 0;
    for (int64_t i = row * s->q_block; i < (row + 1) * s->q_block && i < s->q_len; i++)
        for (int64_t j = column * s->kv_block; j < (column + 1) * s->kv_block && j < s->kv_len; j++) {
            facts.pairs++;
            if (!expected->visible(expected->rule, b, h, i, j)) continue;
            if (facts.visible++ == 0) delta = j - i;
            if (j - i != delta || info->period == 0 || delta % info->period) facts.one_diagonal = false;
        }
    return facts;
}

static void assert_kind(const saccade_block_mask *mask, const expected_mask *expected,
                        const saccade_block_mask_info *info, int32_t b, int32_t h, int32_t row,
                        int32_t column) {
    block_facts facts = count_block(expected, info, b, h, row, column);
    int32_t wanted = facts.visible == 0 ? 0 : facts.visible == facts.pairs ? SACCADE_FULL : SACCADE_PARTIAL;
    int32_t kind = saccade_block_mask_kind(mask, b, h, row, column);
    if (kind == wanted || (wanted == SACCADE_PARTIAL && kind == SACCADE_DIAGONAL && facts.one_diagonal))
        return;
    fail_msg("%s, %s: block (%d, %d, %d, %d) is of kind %d, but %lld of its %lld pairs are visible",
             expected->name, shape_text(&info->shape), b, h, row, column, kind, (long long)facts.visible,
             (long long)facts.pairs);
}

static void assert_pairs(saccade_context *ctx, const saccade_block_mask *mask, const expected_mask *expected,
                         const saccade_block_mask_info *info, int32_t b, int32_t h) {
    for (int32_t i = 0; i < info->shape.q_len; i++)
        for (int32_t j = 0; j < info->shape.kv_len; j++) {
            bool visible = false, wanted = expected->visible(expected->rule, b, h, i, j);
            if (saccade_block_mask_visible(ctx, mask, b, h, i, j, &visible) != SACCADE_OK)
                fail_msg("%s, %s: %s", expected->name, shape_text(&info->shape), saccade_last_error());
            if (visible != wanted)
                fail_msg("%s, %s: pair (%d, %d, %d, %d) is %s, wanted %s", expected->name,
                         shape_text(&info->shape), b, h, i, j, visible ? "visible" : "hidden",
                         wanted ? "visible" : "hidden");
        }
}

static void assert_ascending(const char *which, const sac_block_list *list, int64_t rows, int32_t columns) {
    if (list->offsets[0] != 0) fail_msg("%s: offsets begin at %lld", which, (long long)list->offsets[0]);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = list->offsets[r]; i < list->offsets[r + 1]; i++) {
            int32_t index = SAC_ENTRY_INDEX(list->entries[i]);
            int32_t before = i == list->offsets[r] ? -1 : SAC_ENTRY_INDEX(list->entries[i - 1]);
            if (index <= before || index >= columns)
                fail_msg("%s: row %lld lists %d after %d, of %d", which, (long long)r, index, before,
                         columns);
        }
}

void assert_lists_are_consistent(const saccade_block_mask *mask) {
    sac_block_mask_args view = sac_block_mask_view(mask);
    int64_t heads = (int64_t)view.batch * view.num_heads, rows = heads * view.num_q_blocks;
    int64_t columns = heads * view.num_kv_blocks, total = view.by_query.offsets[rows], kinds[4] = {0};
    assert_ascending("by_query", &view.by_query, rows, view.num_kv_blocks);
    assert_ascending("by_key", &view.by_key, columns, view.num_q_blocks);
    assert_int_equal(view.by_key.offsets[columns], total);
    int64_t *next = calloc((size_t)columns + 1, sizeof *next);
    assert_non_null(next);
    for (int64_t c = 0; c < columns; c++) next[c] = view.by_key.offsets[c];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = view.by_query.offsets[r]; i < view.by_query.offsets[r + 1]; i++) {
            int32_t entry = view.by_query.entries[i], kind = SAC_ENTRY_KIND(entry);
            int64_t c = r / view.num_q_blocks * view.num_kv_blocks + SAC_ENTRY_INDEX(entry);
            int32_t wanted = SAC_ENTRY((int32_t)(r % view.num_q_blocks), kind);
            if (next[c] == view.by_key.offsets[c + 1] || view.by_key.entries[next[c]] != wanted)
                fail_msg("by_key: column %lld lacks row %lld of kind %d", (long long)c,
                         (long long)(r % view.num_q_blocks), kind);
            next[c]++;
            kinds[kind]++;
        }
    free(next);
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.full, kinds[SACCADE_FULL]);
    assert_int_equal(info.partial, kinds[SACCADE_PARTIAL]);
    assert_int_equal(info.diagonal, kinds[SACCADE_DIAGONAL]);
    assert_int_equal(info.period != 0, info.diagonal != 0);
}

void assert_mask_is(saccade_context *ctx, const saccade_block_mask *mask, const expected_mask *expected) {
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    for (int32_t b = 0; b < info.shape.batch; b++)
        for (int32_t h = 0; h < info.shape.num_heads; h++) {
            assert_pairs(ctx, mask, expected, &info, b, h);
            for (int32_t row = 0; row < info.num_q_blocks; row++)
                for (int32_t column = 0; column < info.num_kv_blocks; column++)
                    assert_kind(mask, expected, &info, b, h, row, column);
        }
    assert_lists_are_consistent(mask);
}

void assert_same_blocks(const saccade_block_mask *a, const saccade_block_mask *b) {
    saccade_block_mask_info info_a, info_b;
    saccade_block_mask_get_info(a, &info_a);
    saccade_block_mask_get_info(b, &info_b);
    assert_memory_equal(&info_a.shape, &info_b.shape, sizeof info_a.shape);
    for (int32_t n = 0; n < info_a.shape.batch * info_a.shape.num_heads; n++)
        for (int32_t row = 0; row < info_a.num_q_blocks; row++)
            for (int32_t column = 0; column < info_a.num_kv_blocks; column++) {
                int32_t batch = n / info_a.shape.num_heads, head = n % info_a.shape.num_heads;
                int32_t kind_a = saccade_block_mask_kind(a, batch, head, row, column);
                int32_t kind_b = saccade_block_mask_kind(b, batch, head, row, column);
                if (kind_a != kind_b)
                    fail_msg("%s: block (%d, %d, %d, %d) is of kind %d and %d", shape_text(&info_a.shape),
                             batch, head, row, column, kind_a, kind_b);
            }
}
