/* stored_blocks.c - the mask_mod `blocks` and what it reads (predicates.c). */
#include "mask/stored_blocks.h"

#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "mask/buffer.h"
#include "mask/predicates.h"
#include "mod/modifier.h"

static int64_t num_rows(const saccade_block_mask *mask) {
    return (int64_t)mask->list_batch * mask->list_heads * mask->num_q_blocks;
}

/* Bytes that hold one row of a block's bits. */
static int32_t line_bytes(const saccade_block_mask *mask) { return sac_ceil_div(mask->shape.kv_block, 8); }

/* slots and bits are buffers, or NULL where every block is FULL. */
static saccade_status set_blocks(saccade_context *ctx, saccade_block_mask *mask, const int32_t *slots,
                                 const uint8_t *bits) {
    const int32_t geometry[] = {mask->shape.q_block, mask->shape.kv_block, mask->num_q_blocks,
                                mask->list_batch,    mask->list_heads,     line_bytes(mask)};
    int64_t rows = num_rows(mask), entries = mask->row_offsets[rows];
    const sac_predicate_value values[] = {
        {geometry, sizeof geometry / sizeof *geometry, SAC_COPIED},
        {mask->row_offsets, rows + 1, SAC_SHARED},
        {mask->row_entries, entries, SAC_SHARED},
        {slots, slots ? entries : 0, slots ? SAC_SHARED : SAC_COPIED},
        {bits, bits ? (int64_t)sac_buffer_bytes(bits) : 0, bits ? SAC_SHARED : SAC_COPIED},
    };
    return sac_mask_set_predicate(ctx, mask, SAC_PREDICATE_BLOCKS, values);
}

void sac_stored_blocks_row(uint8_t *visible, int32_t n, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,
                           const saccade_aux *aux) {
    const int32_t *geometry = aux->tensor[0].data, *slots = aux->tensor[3].data;
    const sac_block_list list = {aux->tensor[1].data, aux->tensor[2].data, NULL};
    int32_t q_block = geometry[0], kv_block = geometry[1], batch = geometry[3], heads = geometry[4];
    int64_t head = (int64_t)(batch > 1 ? b : 0) * heads + (heads > 1 ? h : 0);
    int64_t row = head * geometry[2] + q_idx / q_block;
    for (int32_t span; n > 0; n -= span, visible += span, kv_idx += span) {
        int32_t bit = kv_idx % kv_block;
        span = sac_min(n, kv_block - bit);
        int64_t found = sac_block_list_find(&list, row, kv_idx / kv_block);
        int32_t kind = found < 0 ? 0 : SAC_ENTRY_KIND(list.entries[found]);
        if (kind != SACCADE_PARTIAL) {
            memset(visible, kind == SACCADE_FULL, (size_t)span);
            continue;
        }
        int64_t line = (int64_t)slots[found] * q_block + q_idx % q_block;
        const uint8_t *bits = (const uint8_t *)aux->tensor[4].data + line * geometry[5];
        for (int32_t i = 0; i < span; i++) visible[i] = bits[(bit + i) / 8] >> (bit + i) % 8 & 1;
    }
}

/* Which stored block each entry is: PARTIAL ones in the order of the lists. */
static void number_partial(const saccade_block_mask *mask, int32_t *slots) {
    int32_t next = 0;
    for (int64_t i = 0, end = mask->row_offsets[num_rows(mask)]; i < end; i++)
        slots[i] = SAC_ENTRY_KIND(mask->row_entries[i]) == SACCADE_PARTIAL ? next++ : 0;
}

/* One PARTIAL block as bits, asked of the mask_mod row by row; answer (kv_block) is scratch. */
static void store_block(const saccade_block_mask *mask, int32_t b, int32_t h, sac_range q, sac_range k,
                        uint8_t *bits, uint8_t *answer) {
    memset(bits, 0, (size_t)mask->shape.q_block * (size_t)line_bytes(mask));
    for (int32_t i = q.begin; i < q.end; i++, bits += line_bytes(mask)) {
        int32_t n = k.end - k.begin;
        sac_mask_row(mask->mask_mod, answer, n, b, h, i, k.begin, &mask->aux);
        for (int32_t x = 0; x < n; x++) bits[x / 8] |= (uint8_t)(answer[x] << x % 8);
    }
}

static saccade_status store_bits(saccade_context *ctx, const saccade_block_mask *mask, const int32_t *slots,
                                 uint8_t *bits) {
    size_t block_bytes = (size_t)mask->shape.q_block * (size_t)line_bytes(mask);
    size_t width = (size_t)sac_min(mask->shape.kv_block, mask->shape.kv_len);
    int64_t rows = num_rows(mask);
    bool failed = false;
#pragma omp parallel num_threads(ctx->num_threads)
    {
        uint8_t *answer = malloc(width + 1);
        if (!answer) {
#pragma omp atomic write
            failed = true;
        }
#pragma omp for schedule(dynamic)
        for (int64_t r = 0; r < rows; r++) {
            if (!answer) continue;
            int64_t head = r / mask->num_q_blocks;
            sac_range q = sac_mask_queries(mask, (int32_t)(r % mask->num_q_blocks));
            for (int64_t i = mask->row_offsets[r]; i < mask->row_offsets[r + 1]; i++) {
                int32_t entry = mask->row_entries[i];
                if (SAC_ENTRY_KIND(entry) != SACCADE_PARTIAL) continue;
                store_block(mask, (int32_t)(head / mask->list_heads), (int32_t)(head % mask->list_heads), q,
                            sac_mask_keys(mask, SAC_ENTRY_INDEX(entry)),
                            bits + (size_t)slots[i] * block_bytes, answer);
            }
        }
        free(answer);
    }
    return failed ? sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for rows of %zu keys", width) : SACCADE_OK;
}

saccade_status sac_mask_store_partial(saccade_context *ctx, saccade_block_mask *mask) {
    int64_t entries = mask->row_offsets[num_rows(mask)], partial = mask->count[SACCADE_PARTIAL];
    size_t block_bytes = (size_t)mask->shape.q_block * (size_t)line_bytes(mask);
    if (partial > INT32_MAX)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "visible: %lld PARTIAL blocks, but at most %d can be kept",
                        (long long)partial, INT32_MAX);
    int32_t *slots = sac_buffer_new((size_t)entries * sizeof *slots);
    uint8_t *bits = sac_buffer_new((size_t)partial * block_bytes);
    saccade_status status = SACCADE_OK;
    if (!slots || !bits)
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for the bits of %lld blocks", (long long)partial);
    if (status == SACCADE_OK) {
        number_partial(mask, slots);
        status = store_bits(ctx, mask, slots, bits);
    }
    sac_mask_drop_predicate(mask);
    if (status == SACCADE_OK) status = set_blocks(ctx, mask, slots, bits);
    sac_buffer_release(slots);
    sac_buffer_release(bits);
    return status;
}

saccade_status sac_mask_decided(saccade_context *ctx, saccade_block_mask **decided, const char *name,
                                const saccade_block_mask *mask) {
    if (mask->mask_mod) {
        *decided = (saccade_block_mask *)mask;
        atomic_fetch_add_explicit(&(*decided)->references, 1, memory_order_relaxed);
        return SACCADE_OK;
    }
    if (mask->count[SACCADE_PARTIAL])
        return sac_fail(
            SACCADE_INVALID_ARGUMENT,
            "%s: has PARTIAL blocks but no mask_mod of its own; what it hides is known only at the call",
            name);
    saccade_block_mask *twin = calloc(1, sizeof *twin);
    if (!twin) return sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for a block mask");
    memcpy(twin, mask, sizeof *twin);
    atomic_init(&twin->references, 1);
    twin->row_offsets = sac_buffer_retain(mask->row_offsets);
    twin->row_entries = sac_buffer_retain(mask->row_entries);
    twin->col_offsets = sac_buffer_retain(mask->col_offsets);
    twin->col_entries = sac_buffer_retain(mask->col_entries);
    return sac_mask_finish(decided, twin, set_blocks(ctx, twin, NULL, NULL));
}
