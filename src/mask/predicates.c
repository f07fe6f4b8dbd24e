/* predicates.c - what the built-in masks say about one pair.
 *
 * Lengths and offsets are integers in aux tensors, not scalars: a float holds no more than 24 bits of them. Values
 * that a mask holds once for every batch entry have extent 1 and are read at 0 whatever b is.
 */
#include "mask/predicates.h"

#include <saccade/native_modifier.h>
#include <string.h>

#include "base/error.h"
#include "mask/buffer.h"
#include "mask/stored_blocks.h"
#include "mod/modifier.h"

/* The slots, as the texts name them. */
enum { bounds };
enum { keys };
enum { prefix };
enum { distances };
enum { sizes };
enum { q_len, lengths };
enum { strides, bytes };
enum { geometry, offsets, entries, slots, bits };

SACCADE_MASK_MOD(band, {
    int32_t shift = kv_idx - q_idx;
    int32_t low = aux_i32(bounds, 0);
    int32_t high = aux_i32(bounds, 1);
    return shift >= low && shift < high;
})

SACCADE_MASK_MOD(intervals, {
    int32_t begin = aux_i32(keys, 2 * q_idx);
    int32_t end = aux_i32(keys, 2 * q_idx + 1);
    return kv_idx >= begin && kv_idx < end;
})

SACCADE_MASK_MOD(prefix_lm, {
    int32_t length = aux_i32(prefix, aux_size(prefix, 0) > 1 ? b : 0);
    return kv_idx < length || kv_idx <= q_idx;
})

SACCADE_MASK_MOD(dilated, {
    int32_t distance = kv_idx < q_idx ? q_idx - kv_idx : kv_idx - q_idx;
    return distance <= aux_i32(distances, 0) && distance % aux_i32(distances, 1) == 0;
})

SACCADE_MASK_MOD(block_diagonal, {
    int64_t size = aux_i32(sizes, 1);
    int64_t first = q_idx / aux_i32(sizes, 0) * size;
    return kv_idx >= first && kv_idx < first + size;
})

/* Queries end where the first round does, so "causal within it" is kv_idx <= q_idx, and a later key on the query's
 * own diagonal is one whose place in its round is the query's. Either way a visible key's place is at most q_idx,
 * so one bound on the query does for both. */
SACCADE_MASK_MOD(eagle3, {
    int32_t length = aux_i32(lengths, aux_size(lengths, 0) > 1 ? b : 0);
    return q_idx < length && (kv_idx <= q_idx || kv_idx % aux_i32(q_len, 0) == q_idx);
})

SACCADE_MASK_MOD(dense, {
    int64_t row = b * aux_i64(strides, 0) + h * aux_i64(strides, 1) + q_idx * aux_i64(strides, 2);
    return aux_u8(bytes, row + kv_idx) != 0;
})

/* The lists themselves: the block is looked up in its row; where it is PARTIAL, slots says which of the stored
 * blocks of bits it is. geometry: q_block, kv_block, query blocks, batch and heads of the lists, bytes of a row of
 * bits. */
SACCADE_MASK_MOD(blocks, {
    int32_t q_block = aux_i32(geometry, 0);
    int32_t kv_block = aux_i32(geometry, 1);
    int64_t heads = aux_i32(geometry, 4);
    int64_t head = (aux_i32(geometry, 3) > 1 ? b : 0) * heads + (heads > 1 ? h : 0);
    int64_t row = head * aux_i32(geometry, 2) + q_idx / q_block;
    int64_t low = aux_i64(offsets, row);
    int64_t end = aux_i64(offsets, row + 1);
    int64_t high = end;
    int32_t column = kv_idx / kv_block;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (aux_i32(entries, middle) >> 2 < column) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == end || aux_i32(entries, low) >> 2 != column) return 0;
    if ((aux_i32(entries, low) & 3) == 2) return 1;
    int64_t line = (int64_t)aux_i32(slots, low) * q_block + q_idx % q_block;
    int32_t bit = kv_idx % kv_block;
    return aux_u8(bits, line * aux_i32(geometry, 5) + bit / 8) >> (bit % 8) & 1;
})

enum { MAX_INPUTS = 5 };

static const struct {
    const saccade_native_modifier *native;
    int32_t num_inputs;
    saccade_aux_decl inputs[MAX_INPUTS];
    saccade_mask_row_fn row; /* a better one than the text's for the CPU, or NULL */
} predicates[] = {
    [SAC_PREDICATE_BAND] = {&band, 1, {{"bounds", SACCADE_I32}}},
    [SAC_PREDICATE_INTERVALS] = {&intervals, 1, {{"keys", SACCADE_I32}}},
    [SAC_PREDICATE_PREFIX_LM] = {&prefix_lm, 1, {{"prefix", SACCADE_I32}}},
    [SAC_PREDICATE_DILATED] = {&dilated, 1, {{"distances", SACCADE_I32}}},
    [SAC_PREDICATE_BLOCK_DIAGONAL] = {&block_diagonal, 1, {{"sizes", SACCADE_I32}}},
    [SAC_PREDICATE_EAGLE3] = {&eagle3, 2, {{"q_len", SACCADE_I32}, {"lengths", SACCADE_I32}}},
    [SAC_PREDICATE_DENSE] = {&dense, 2, {{"strides", SACCADE_I64}, {"bytes", SACCADE_U8}}},
    [SAC_PREDICATE_BLOCKS] = {&blocks,
                              5,
                              {{"geometry", SACCADE_I32},
                               {"offsets", SACCADE_I64},
                               {"entries", SACCADE_I32},
                               {"slots", SACCADE_I32},
                               {"bits", SACCADE_U8}},
                              sac_stored_blocks_row},
};

static saccade_status take_value(saccade_block_mask *mask, int32_t slot, const saccade_aux_decl *input,
                                 const sac_predicate_value *value) {
    size_t size = (size_t)value->count * (input->dtype.bits / 8);
    mask->aux.tensor[slot] =
        (saccade_aux_slot){.data = value->data, .count = value->count, .extent = {value->count}};
    if (value->ownership == SAC_BORROWED) return SACCADE_OK;
    if (value->ownership == SAC_SHARED) {
        mask->owned[slot] = sac_buffer_retain(value->data);
        return SACCADE_OK;
    }
    void *copy = sac_buffer_new(size);
    if (!copy) return sac_fail(SACCADE_OUT_OF_MEMORY, "no memory: %zu bytes for %s", size, input->name);
    if (size) memcpy(copy, value->data, size);
    mask->aux.tensor[slot].data = mask->owned[slot] = copy;
    return SACCADE_OK;
}

saccade_status sac_mask_set_predicate(saccade_context *ctx, saccade_block_mask *mask, sac_predicate predicate,
                                      const sac_predicate_value *values) {
    saccade_native_modifier native = *predicates[predicate].native;
    if (predicates[predicate].row) native.mask_row = predicates[predicate].row;
    const saccade_modifier_params params = {
        .native = &native, .num_aux = predicates[predicate].num_inputs, .aux = predicates[predicate].inputs};
    saccade_status status = saccade_modifier_create(ctx, &mask->mask_mod, &params);
    for (int32_t i = 0; status == SACCADE_OK && i < params.num_aux; i++)
        status = take_value(mask, i, &params.aux[i], &values[i]);
    return status;
}

void sac_mask_drop_predicate(saccade_block_mask *mask) {
    saccade_modifier_destroy(mask->mask_mod);
    mask->mask_mod = NULL;
    for (int i = 0; i < SACCADE_MAX_AUX; i++) sac_buffer_release(mask->owned[i]);
    memset(mask->owned, 0, sizeof mask->owned);
    memset(&mask->aux, 0, sizeof mask->aux);
}
