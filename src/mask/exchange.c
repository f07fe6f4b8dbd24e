/* exchange.c - the eight tensors of PyTorch's BlockMask, and lists of chosen blocks. */
#include "mask/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "mask/lists.h"

static int32_t *count_at(const sac_block_tensors *t, int64_t b, int64_t h, int64_t row) {
    return (int32_t *)t->counts.data + b * t->counts.stride[0] + h * t->counts.stride[1] + row;
}

static int32_t *indices_at(const sac_block_tensors *t, int64_t b, int64_t h, int64_t row) {
    return (int32_t *)t->indices.data + sac_tensor_row(&t->indices, b, h, row);
}

static saccade_status check_extents(const char *name, const sac_mask_tensor *tensor, const int64_t *extents,
                                    int32_t ndim) {
    for (int32_t d = 0; d < ndim; d++)
        if (tensor->extent[d] != extents[d])
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: shape[%d] is %lld, but the mask has %lld", name, d,
                            (long long)tensor->extent[d], (long long)extents[d]);
    return SACCADE_OK;
}

static saccade_status open_tensor(sac_mask_tensor *checked, const char *name, const DLTensor *tensor,
                                  DLDevice device, int32_t ndim) {
    return device.device_type == kDLCPU
               ? sac_host_tensor_of(checked, name, tensor, SACCADE_I32, ndim)
               : sac_mask_tensor_of(checked, name, tensor, device, SACCADE_I32, ndim);
}

/* Those tensors of a list that are there, checked. rows and columns are the mask's in the list's direction. */
static saccade_status open_list(sac_block_tensors *t, const saccade_block_mask *mask, int32_t rows,
                                int32_t columns, const DLTensor *counts, const char *counts_name,
                                const DLTensor *indices, const char *indices_name) {
    const int64_t extents[] = {mask->shape.batch, mask->shape.num_heads, rows, columns};
    saccade_status status = SACCADE_OK;
    *t = (sac_block_tensors){.counts_name = counts_name,
                             .indices_name = indices_name,
                             .has_counts = counts != NULL,
                             .has_indices = indices != NULL};
    if (counts) status = open_tensor(&t->counts, counts_name, counts, mask->device, 3);
    if (counts && status == SACCADE_OK) status = check_extents(counts_name, &t->counts, extents, 3);
    if (indices && status == SACCADE_OK)
        status = open_tensor(&t->indices, indices_name, indices, mask->device, 4);
    if (indices && status == SACCADE_OK) status = check_extents(indices_name, &t->indices, extents, 4);
    return status;
}

saccade_status sac_exchange_open(sac_exchange *x, const saccade_block_mask *mask,
                                 const saccade_block_mask_tensors *t) {
    if (!t) return sac_fail(SACCADE_INVALID_ARGUMENT, "tensors: is NULL");
    int32_t queries = mask->num_q_blocks, keys = mask->num_kv_blocks;
    saccade_status status;
    status = open_list(&x->partial[0], mask, queries, keys, t->kv_num_blocks, "kv_num_blocks", t->kv_indices,
                       "kv_indices");
    if (status == SACCADE_OK)
        status = open_list(&x->full[0], mask, queries, keys, t->full_kv_num_blocks, "full_kv_num_blocks",
                           t->full_kv_indices, "full_kv_indices");
    if (status == SACCADE_OK)
        status = open_list(&x->partial[1], mask, keys, queries, t->q_num_blocks, "q_num_blocks", t->q_indices,
                           "q_indices");
    if (status == SACCADE_OK)
        status = open_list(&x->full[1], mask, keys, queries, t->full_q_num_blocks, "full_q_num_blocks",
                           t->full_q_indices, "full_q_indices");
    return status;
}

/* ---- export ---- */

/* PyTorch pads the tokens to whole blocks with invisible ones, so that a block that reaches past the end is PARTIAL
 * there even when all its pairs are visible. Asking the mask_mod gives the same result; a mask without one keeps
 * such blocks as they are. */
static bool is_cut(const saccade_block_mask *mask, int32_t q_block_index, int32_t kv_block_index) {
    return (q_block_index + 1) * (int64_t)mask->shape.q_block > mask->shape.q_len ||
           (kv_block_index + 1) * (int64_t)mask->shape.kv_block > mask->shape.kv_len;
}

static bool exports_as_full(const saccade_block_mask *mask, bool by_key, int32_t row, int32_t entry) {
    int32_t column = SAC_ENTRY_INDEX(entry);
    if (SAC_ENTRY_KIND(entry) != SACCADE_FULL) return false;
    return !mask->mask_mod || !(by_key ? is_cut(mask, column, row) : is_cut(mask, row, column));
}

static void export_row(const sac_block_tensors *t, int64_t b, int64_t h, int32_t row, const int32_t *chosen,
                       int32_t count) {
    if (t->has_counts) *count_at(t, b, h, row) = count;
    if (!t->has_indices || t->indices.extent[3] == 0) return;
    int32_t *indices = indices_at(t, b, h, row);
    memcpy(indices, chosen, (size_t)count * sizeof *indices);
    memset(indices + count, 0, (size_t)(t->indices.extent[3] - count) * sizeof *indices);
}

/* One direction; partial_row and full_row (columns) are scratch. */
static void export_lists(const saccade_block_mask *mask, bool by_key, const sac_block_tensors *partial,
                         const sac_block_tensors *full, int32_t *partial_row, int32_t *full_row) {
    int32_t rows = by_key ? mask->num_kv_blocks : mask->num_q_blocks;
    const int64_t *offsets = by_key ? mask->col_offsets : mask->row_offsets;
    const int32_t *entries = by_key ? mask->col_entries : mask->row_entries;
    for (int32_t b = 0; b < mask->shape.batch; b++)
        for (int32_t h = 0; h < mask->shape.num_heads; h++)
            for (int32_t row = 0; row < rows; row++) {
                int64_t head = (int64_t)(mask->list_batch == 1 ? 0 : b) * mask->list_heads +
                               (mask->list_heads == 1 ? 0 : h);
                int32_t num_partial = 0, num_full = 0;
                for (int64_t r = head * rows + row, i = offsets[r]; i < offsets[r + 1]; i++) {
                    if (exports_as_full(mask, by_key, row, entries[i]))
                        full_row[num_full++] = SAC_ENTRY_INDEX(entries[i]);
                    else
                        partial_row[num_partial++] = SAC_ENTRY_INDEX(entries[i]);
                }
                export_row(partial, b, h, row, partial_row, num_partial);
                export_row(full, b, h, row, full_row, num_full);
            }
}

saccade_status saccade_block_mask_export(const saccade_block_mask *mask,
                                         const saccade_block_mask_tensors *tensors) {
    if (!mask) return sac_fail(SACCADE_INVALID_ARGUMENT, "mask: is NULL");
    sac_exchange x;
    SAC_TRY(sac_mask_on_host(mask, "mask", "export"));
    SAC_TRY(sac_exchange_open(&x, mask, tensors));
    size_t width = (size_t)sac_max(mask->num_q_blocks, mask->num_kv_blocks) + 1;
    int32_t *rows = malloc(2 * width * sizeof *rows);
    if (!rows) return sac_fail(SACCADE_OUT_OF_MEMORY, "export: %zu bytes", 2 * width * sizeof *rows);
    for (int by_key = 0; by_key < 2; by_key++)
        export_lists(mask, by_key, &x.partial[by_key], &x.full[by_key], rows, rows + width);
    free(rows);
    return SACCADE_OK;
}

/* ---- import ---- */

static int compare_entries(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Appends what one list says of a row to `entries`; how many there are now in *count. */
static saccade_status read_row(const sac_block_tensors *t, const sac_mask_piece *at, int32_t kind,
                               int32_t columns, int32_t *entries, int32_t *count) {
    if (!t->has_counts) return SACCADE_OK;
    int32_t listed = *count_at(t, at->b, at->h, at->row);
    if (listed < 0 || listed > columns)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s[%d, %d, %d]: %d, but a row has 0 to %d blocks",
                        t->counts_name, at->b, at->h, at->row, listed, columns);
    const int32_t *indices = indices_at(t, at->b, at->h, at->row);
    for (int32_t i = 0; i < listed; i++) {
        if (indices[i] < 0 || indices[i] >= columns)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "%s[%d, %d, %d, %d]: %d, but blocks are numbered 0 to %d", t->indices_name, at->b,
                            at->h, at->row, i, indices[i], columns - 1);
        entries[(*count)++] = SAC_ENTRY(indices[i], kind);
    }
    return SACCADE_OK;
}

/* Reads both lists of a row into `entries` (2 * columns), ascending, without repeats. */
static saccade_status read_lists(const sac_block_tensors *partial, const sac_block_tensors *full,
                                 const sac_mask_piece *at, int32_t columns, int32_t *entries,
                                 int32_t *count) {
    *count = 0;
    SAC_TRY(read_row(partial, at, SACCADE_PARTIAL, columns, entries, count));
    SAC_TRY(read_row(full, at, SACCADE_FULL, columns, entries, count));
    qsort(entries, (size_t)*count, sizeof *entries, compare_entries);
    for (int32_t i = 1; i < *count; i++)
        if (SAC_ENTRY_INDEX(entries[i]) == SAC_ENTRY_INDEX(entries[i - 1]))
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s[%d, %d, %d]: block %d occurs twice in this row",
                            SAC_ENTRY_KIND(entries[i - 1]) == SACCADE_FULL ? full->indices_name
                                                                           : partial->indices_name,
                            at->b, at->h, at->row, SAC_ENTRY_INDEX(entries[i]));
    return SACCADE_OK;
}

typedef struct import_rule {
    const sac_exchange *x;
    int32_t columns;
    int32_t *entries; /* (2 * columns) scratch */
} import_rule;

static saccade_status list_imported(const void *context, const sac_mask_piece *piece, sac_entry_list *list) {
    const import_rule *rule = context;
    int32_t count;
    saccade_status status =
        read_lists(&rule->x->partial[0], &rule->x->full[0], piece, rule->columns, rule->entries, &count);
    for (int32_t i = 0; status == SACCADE_OK && i < count; i++) {
        int32_t column = SAC_ENTRY_INDEX(rule->entries[i]);
        sac_list_run(list, column, column + 1, SAC_ENTRY_KIND(rule->entries[i]));
    }
    return status;
}

/* A given q_ list must say what the kv_ lists say. A missing one is not looked at. */
static saccade_status check_transpose(const saccade_block_mask *mask, const sac_exchange *x,
                                      int32_t *entries) {
    const sac_block_tensors *partial = &x->partial[1], *full = &x->full[1];
    int32_t rows = mask->num_kv_blocks, columns = mask->num_q_blocks;
    for (int64_t r = 0, total = (int64_t)mask->shape.batch * mask->shape.num_heads * rows; r < total; r++) {
        int64_t head = r / rows;
        sac_mask_piece at = {.b = (int32_t)(head / mask->shape.num_heads),
                             .h = (int32_t)(head % mask->shape.num_heads),
                             .row = (int32_t)(r % rows)};
        int32_t count;
        SAC_TRY(read_lists(partial, full, &at, columns, entries, &count));
        const int32_t *given = entries, *end = entries + count;
        for (int64_t i = mask->col_offsets[r]; i < mask->col_offsets[r + 1]; i++) {
            int32_t entry = mask->col_entries[i];
            bool looked_at = SAC_ENTRY_KIND(entry) == SACCADE_FULL ? full->has_counts : partial->has_counts;
            if (looked_at && (given == end || *given++ != entry)) {
                given = NULL;
                break;
            }
        }
        if (given != end)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s[%d, %d, %d]: is not the transpose of the kv_ lists",
                            partial->has_counts ? partial->indices_name : full->indices_name, at.b, at.h,
                            at.row);
    }
    return SACCADE_OK;
}

saccade_status sac_exchange_check_pairs(const sac_exchange *x) {
    if (!x->partial[0].has_counts && !x->partial[0].has_indices)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "kv_num_blocks, kv_indices: are NULL");
    const sac_block_tensors *lists[] = {&x->partial[0], &x->full[0], &x->partial[1], &x->full[1]};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (lists[i]->has_counts != lists[i]->has_indices)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL, but %s is given",
                            lists[i]->has_counts ? lists[i]->indices_name : lists[i]->counts_name,
                            lists[i]->has_counts ? lists[i]->counts_name : lists[i]->indices_name);
    return SACCADE_OK;
}

saccade_status saccade_block_mask_import(saccade_context *ctx, saccade_block_mask **result,
                                         const saccade_mask_shape *shape,
                                         const saccade_block_mask_tensors *tensors) {
    saccade_block_mask *mask;
    saccade_status status = sac_mask_new(ctx, &mask, shape);
    if (status != SACCADE_OK) return status;
    mask->list_batch = mask->shape.batch;
    mask->list_heads = mask->shape.num_heads;
    sac_exchange x;
    size_t width = (size_t)sac_max(mask->num_q_blocks, mask->num_kv_blocks) + 1;
    int32_t *entries = malloc(2 * width * sizeof *entries);
    if (!entries) status = sac_fail(SACCADE_OUT_OF_MEMORY, "import: %zu bytes", 2 * width * sizeof *entries);
    if (status == SACCADE_OK) status = sac_exchange_open(&x, mask, tensors);
    if (status == SACCADE_OK) status = sac_exchange_check_pairs(&x);
    if (status == SACCADE_OK) {
        import_rule rule = {&x, mask->num_kv_blocks, entries};
        status = sac_mask_list(ctx, mask, &(sac_lister){.list = list_imported, .rule = &rule});
    }
    if (status == SACCADE_OK) status = check_transpose(mask, &x, entries);
    free(entries);
    return sac_mask_finish(result, mask, status);
}
