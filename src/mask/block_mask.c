/* block_mask.c - a mask's life, and looking at it. */
#include "mask/block_mask.h"

#include <stdlib.h>

#include "base/dtype.h"
#include "base/error.h"
#include "mask/buffer.h"
#include "mod/modifier.h"

static saccade_status check_length(const char *name, int32_t length) {
    if (length < 0) return sac_fail(SACCADE_INVALID_ARGUMENT, "shape.%s: %d is negative", name, length);
    if (length > SAC_MAX_SEQLEN)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "shape.%s: %d is above %d", name, length, SAC_MAX_SEQLEN);
    return SACCADE_OK;
}

/* Block indices have 29 bits beside the 2 of the kind: lengths up to 2^29 keep them there whatever the block. */
_Static_assert((SAC_MAX_SEQLEN - 1) <= (INT32_MAX >> 2), "a block index must fit beside its kind");

static saccade_status check_shape(const saccade_mask_shape *shape) {
    if (!shape) return sac_fail(SACCADE_INVALID_ARGUMENT, "shape: is NULL");
    const struct {
        const char *name;
        int32_t value;
    } lengths[] = {{"batch", shape->batch},   {"num_heads", shape->num_heads}, {"q_len", shape->q_len},
                   {"kv_len", shape->kv_len}, {"q_block", shape->q_block},     {"kv_block", shape->kv_block}};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        SAC_TRY(check_length(lengths[i].name, lengths[i].value));
    }
    return SACCADE_OK;
}

/* So that heads x blocks can be counted, and bytes of them. */
static saccade_status check_size(const saccade_block_mask *mask) {
    int64_t heads = (int64_t)mask->shape.batch * mask->shape.num_heads;
    if (heads <= (INT64_MAX >> 8) / sac_max(1, sac_max(mask->num_q_blocks, mask->num_kv_blocks)))
        return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "shape: %d x %d heads of %d x %d blocks are beyond counting",
                    mask->shape.batch, mask->shape.num_heads, mask->num_q_blocks, mask->num_kv_blocks);
}

saccade_status sac_mask_new(const saccade_context *ctx, saccade_block_mask **result,
                            const saccade_mask_shape *shape) {
    enum { DEFAULT_BLOCK = 128 };
    if (!ctx) return sac_fail(SACCADE_INVALID_ARGUMENT, "ctx: is NULL");
    SAC_TRY(check_shape(shape));
    saccade_block_mask *mask = calloc(1, sizeof *mask);
    if (!mask) return sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for a block mask");
    atomic_init(&mask->references, 1);
    mask->shape = *shape;
    mask->shape.batch = sac_max(1, shape->batch);
    mask->shape.num_heads = sac_max(1, shape->num_heads);
    if (shape->q_block == 0) mask->shape.q_block = DEFAULT_BLOCK;
    if (shape->kv_block == 0) mask->shape.kv_block = DEFAULT_BLOCK;
    mask->num_q_blocks = sac_ceil_div(shape->q_len, mask->shape.q_block);
    mask->num_kv_blocks = sac_ceil_div(shape->kv_len, mask->shape.kv_block);
    mask->diagonals_from = mask->num_kv_blocks;
    mask->list_batch = mask->list_heads = 1;
    mask->device = (DLDevice){kDLCPU, 0};
    return sac_mask_finish(result, mask, check_size(mask));
}

saccade_status sac_mask_finish(saccade_block_mask **result, saccade_block_mask *mask, saccade_status status) {
    if (status == SACCADE_OK && !result) status = sac_fail(SACCADE_INVALID_ARGUMENT, "mask: is NULL");
    if (status == SACCADE_OK)
        *result = mask;
    else
        saccade_block_mask_destroy(mask);
    return status;
}

static bool on_host(const saccade_block_mask *mask) { return mask->device.device_type == kDLCPU; }

void saccade_block_mask_destroy(saccade_block_mask *mask) {
    if (!mask || atomic_fetch_sub_explicit(&mask->references, 1, memory_order_acq_rel) != 1) return;
    if (on_host(mask)) {
        sac_buffer_release(mask->row_offsets);
        sac_buffer_release(mask->row_entries);
        sac_buffer_release(mask->col_offsets);
        sac_buffer_release(mask->col_entries);
    }
    for (int i = 0; i < SACCADE_MAX_AUX; i++) sac_buffer_release(mask->owned[i]);
    saccade_modifier_destroy(mask->mask_mod);
    free(mask);
}

static sac_range block_range(int32_t index, int32_t block, int32_t len) {
    sac_range r = {index * block, sac_min(len - index * block, block)};
    r.end += r.begin;
    return r;
}

sac_range sac_mask_queries(const saccade_block_mask *mask, int32_t row) {
    return block_range(row, mask->shape.q_block, mask->shape.q_len);
}

sac_range sac_mask_keys(const saccade_block_mask *mask, int32_t column) {
    return block_range(column, mask->shape.kv_block, mask->shape.kv_len);
}

int64_t sac_mask_row_index(const saccade_block_mask *mask, int32_t b, int32_t h, int32_t row) {
    int64_t head =
        (int64_t)(mask->list_batch == 1 ? 0 : b) * mask->list_heads + (mask->list_heads == 1 ? 0 : h);
    return head * mask->num_q_blocks + row;
}

sac_block_mask_args sac_block_mask_view(const saccade_block_mask *mask) {
    return (sac_block_mask_args){
        .by_query = {mask->row_offsets, mask->row_entries, NULL},
        .by_key = {mask->col_offsets, mask->col_entries, NULL},
        .q_block = mask->shape.q_block,
        .kv_block = mask->shape.kv_block,
        .num_q_blocks = mask->num_q_blocks,
        .num_kv_blocks = mask->num_kv_blocks,
        .batch = mask->list_batch,
        .num_heads = mask->list_heads,
        .heads_per_list = 1,
        .period = mask->period,
    };
}

saccade_status sac_mask_on_host(const saccade_block_mask *mask, const char *name, const char *what) {
    if (on_host(mask)) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT,
                    "%s: its lists lie on device %s:%d, where the host cannot %s them; build it with "
                    "saccade/block_mask.h for that",
                    name, sac_device_text(mask->device), mask->device.device_id, what);
}

saccade_status sac_block_mask_check(const saccade_block_mask *mask, DLDevice device, int64_t batch,
                                    int64_t num_heads, int64_t q_len, int64_t kv_len) {
    const saccade_mask_shape *shape = &mask->shape;
    if (!on_host(mask) &&
        (mask->device.device_type != device.device_type || mask->device.device_id != device.device_id))
        return sac_fail(
            SACCADE_INVALID_ARGUMENT, "block_mask: its lists lie on device %s:%d, but the call is on %s:%d",
            sac_device_text(mask->device), mask->device.device_id, sac_device_text(device), device.device_id);
    if (shape->q_len != q_len || shape->kv_len != kv_len)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "block_mask: made for %d queries and %d keys, but the call has %lld and %lld",
                        shape->q_len, shape->kv_len, (long long)q_len, (long long)kv_len);
    if (shape->batch != 1 && shape->batch != batch)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "block_mask: made for batch %d, but the call's is %lld; 1 would serve any",
                        shape->batch, (long long)batch);
    if (shape->num_heads != 1 && shape->num_heads != num_heads)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "block_mask: made for %d query heads, but the call has %lld; 1 would serve any",
                        shape->num_heads, (long long)num_heads);
    return SACCADE_OK;
}

saccade_status saccade_block_mask_get_info(const saccade_block_mask *mask, saccade_block_mask_info *info) {
    if (!mask || !info) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", mask ? "info" : "mask");
    *info = (saccade_block_mask_info){
        .shape = mask->shape,
        .num_q_blocks = mask->num_q_blocks,
        .num_kv_blocks = mask->num_kv_blocks,
        .list_batch = mask->list_batch,
        .list_heads = mask->list_heads,
        .full = mask->count[SACCADE_FULL],
        .partial = mask->count[SACCADE_PARTIAL],
        .diagonal = mask->count[SACCADE_DIAGONAL],
        .period = mask->period,
        .bytes = sizeof *mask,
    };
    const void *buffers[] = {mask->row_offsets, mask->row_entries, mask->col_offsets, mask->col_entries};
    for (size_t i = 0; on_host(mask) && i < sizeof buffers / sizeof buffers[0]; i++)
        info->bytes += sac_buffer_bytes(buffers[i]);
    for (int i = 0; i < SACCADE_MAX_AUX; i++)
        if (mask->owned[i]) info->bytes += sac_buffer_bytes(mask->owned[i]);
    return SACCADE_OK;
}

static bool head_exists(const saccade_block_mask *mask, int32_t b, int32_t h) {
    return b >= 0 && h >= 0 && (mask->shape.batch == 1 || b < mask->shape.batch) &&
           (mask->shape.num_heads == 1 || h < mask->shape.num_heads);
}

int64_t sac_block_list_find(const sac_block_list *list, int64_t row, int32_t index) {
    int64_t low = list->offsets[row], end = list->offsets[row + 1], high = end;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (SAC_ENTRY_INDEX(list->entries[middle]) < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && SAC_ENTRY_INDEX(list->entries[low]) == index ? low : -1;
}

int32_t saccade_block_mask_kind(const saccade_block_mask *mask, int32_t b, int32_t h, int32_t row,
                                int32_t column) {
    if (!mask) return -1;
    if (!head_exists(mask, b, h) || row < 0 || row >= mask->num_q_blocks || column < 0 ||
        column >= mask->num_kv_blocks)
        return 0;
    if (!on_host(mask)) return -1;
    const sac_block_list list = {mask->row_offsets, mask->row_entries, NULL};
    int64_t found = sac_block_list_find(&list, sac_mask_row_index(mask, b, h, row), column);
    return found < 0 ? 0 : SAC_ENTRY_KIND(list.entries[found]);
}

saccade_status saccade_block_mask_visible(saccade_context *ctx, const saccade_block_mask *mask, int32_t b,
                                          int32_t h, int32_t q_idx, int32_t kv_idx, bool *visible) {
    if (!ctx || !mask || !visible)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", !ctx ? "ctx" : !mask ? "mask" : "visible");
    SAC_TRY(sac_mask_on_host(mask, "mask", "read"));
    if (!head_exists(mask, b, h))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "b, h: (%d, %d) lies outside of batch %d, heads %d", b, h,
                        mask->shape.batch, mask->shape.num_heads);
    if (q_idx < 0 || q_idx >= mask->shape.q_len || kv_idx < 0 || kv_idx >= mask->shape.kv_len) {
        *visible = false;
        return SACCADE_OK;
    }
    int32_t kind =
        saccade_block_mask_kind(mask, b, h, q_idx / mask->shape.q_block, kv_idx / mask->shape.kv_block);
    if (kind == 0 || kind == SACCADE_FULL) {
        *visible = kind == SACCADE_FULL;
        return SACCADE_OK;
    }
    if (!mask->mask_mod)
        return sac_fail(
            SACCADE_INVALID_ARGUMENT,
            "mask: the block of query %d and key %d is PARTIAL, and this mask carries no mask_mod", q_idx,
            kv_idx);
    SAC_TRY(sac_modifier_ready(ctx, mask->mask_mod, false));
    uint8_t answer;
    sac_mask_row(mask->mask_mod, &answer, 1, b, h, q_idx, kv_idx, &mask->aux);
    *visible = answer != 0;
    return SACCADE_OK;
}
