/* classify.c - masks from what is said of single pairs: a mask_mod, or a dense tensor.
 *
 * Nothing of the size of queries x keys is ever held: a block is asked row by row, a part of a row at a time, and
 * most blocks that are neither full nor empty say so in their first row.
 */
#include "mask/classify.h"

#include <string.h>

#include "base/error.h"
#include "mask/buffer.h"
#include "mask/checks.h"
#include "mask/lists.h"
#include "mask/predicates.h"
#include "mask/stored_blocks.h"
#include "mod/modifier.h"

enum { CHUNK = 1024 }; /* keys asked at once */

int32_t sac_mask_classify(const saccade_block_mask *mask, int32_t b, int32_t h, sac_range q, sac_range k) {
    uint8_t answer[CHUNK], some = 0, every = 1;
    for (int32_t i = q.begin; i < q.end; i++)
        for (int32_t j = k.begin; j < k.end; j += CHUNK) {
            int32_t n = sac_min(CHUNK, k.end - j);
            sac_mask_row(mask->mask_mod, answer, n, b, h, i, j, &mask->aux);
            for (int32_t x = 0; x < n; x++) {
                some |= answer[x];
                every &= answer[x];
            }
            if (some && !every) return SACCADE_PARTIAL;
        }
    return some ? SACCADE_FULL : 0;
}

static saccade_status list_by_asking(const void *rule, const sac_mask_piece *piece, sac_entry_list *list) {
    const saccade_block_mask *mask = rule;
    sac_range q = sac_mask_queries(mask, piece->row);
    for (int32_t c = piece->begin; c < piece->end; c++) {
        int32_t kind = sac_mask_classify(mask, piece->b, piece->h, q, sac_mask_keys(mask, c));
        if (kind) sac_list_run(list, c, c + 1, kind);
    }
    return SACCADE_OK;
}

saccade_status sac_mask_list_by_asking(saccade_context *ctx, saccade_block_mask *mask) {
    SAC_TRY(sac_modifier_ready(ctx, mask->mask_mod, false));
    return sac_mask_list(ctx, mask, &(sac_lister){.list = list_by_asking, .rule = mask, .parallel = true});
}

/* ---- from a mask_mod ---- */

/* The caller's tensors may change or go; the mask keeps what it was built from. */
static saccade_status keep_values(saccade_block_mask *mask) {
    for (int32_t i = 0; i < mask->mask_mod->num_aux; i++) {
        saccade_aux_slot *slot = &mask->aux.tensor[i];
        size_t bytes = (size_t)slot->count * (mask->mask_mod->aux[i].dtype.bits / 8);
        mask->owned[i] = sac_buffer_new(bytes);
        if (!mask->owned[i]) return sac_fail(SACCADE_OUT_OF_MEMORY, "mask_mod.aux[%d]: %zu bytes", i, bytes);
        if (bytes) memcpy(mask->owned[i], slot->data, bytes);
        slot->data = mask->owned[i];
    }
    return SACCADE_OK;
}

saccade_status sac_check_mask_mod(const saccade_bound_modifier *mask_mod) {
    if (!mask_mod || !mask_mod->modifier) return sac_fail(SACCADE_INVALID_ARGUMENT, "mask_mod: is NULL");
    if (mask_mod->modifier->kind == SACCADE_MASK_KIND) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "mask_mod: \"%s\" is a score_mod", mask_mod->modifier->name);
}

saccade_status saccade_block_mask_from_mod(saccade_context *ctx, saccade_block_mask **result,
                                           const saccade_mask_shape *shape,
                                           const saccade_bound_modifier *mask_mod) {
    SAC_TRY(sac_check_mask_mod(mask_mod));
    saccade_block_mask *mask;
    SAC_TRY(sac_mask_new(ctx, &mask, shape));
    mask->list_batch = mask->shape.batch;
    mask->list_heads = mask->shape.num_heads;
    mask->mask_mod = sac_modifier_retain(mask_mod->modifier);
    saccade_status status = sac_modifier_bind(&mask->aux, mask_mod, (DLDevice){kDLCPU, 0}, "mask_mod");
    if (status == SACCADE_OK) status = keep_values(mask);
    if (status == SACCADE_OK) status = sac_mask_list_by_asking(ctx, mask);
    return sac_mask_finish(result, mask, status);
}

/* ---- from a dense tensor ---- */

/* While listing, the mask_mod reads the caller's tensor where it lies. */
static saccade_status borrow_dense(saccade_context *ctx, saccade_block_mask *mask,
                                   const sac_mask_tensor *visible) {
    const int64_t *stride = visible->stride;
    const int64_t strides[] = {mask->list_batch == 1 ? 0 : stride[0], mask->list_heads == 1 ? 0 : stride[1],
                               stride[2]};
    return sac_mask_set_predicate(
        ctx, mask, SAC_PREDICATE_DENSE,
        (sac_predicate_value[]){{strides, 3, SAC_COPIED}, {visible->data, 0, SAC_BORROWED}});
}

saccade_status saccade_block_mask_from_dense(saccade_context *ctx, saccade_block_mask **result,
                                             const DLTensor *visible, int32_t q_block, int32_t kv_block) {
    sac_mask_tensor dense;
    SAC_TRY(sac_host_tensor_of(&dense, "visible", visible, SACCADE_U8, 4));
    for (int d = 0; d < 4; d++)
        if (dense.extent[d] > SAC_MAX_SEQLEN || (d < 2 && dense.extent[d] == 0))
            return sac_fail(SACCADE_INVALID_ARGUMENT, "visible: shape[%d] is %lld, allowed are %d to %d", d,
                            (long long)dense.extent[d], d < 2, SAC_MAX_SEQLEN);
    saccade_block_mask *mask;
    SAC_TRY(sac_mask_new(ctx, &mask,
                         &(saccade_mask_shape){.batch = (int32_t)dense.extent[0],
                                               .num_heads = (int32_t)dense.extent[1],
                                               .q_len = (int32_t)dense.extent[2],
                                               .kv_len = (int32_t)dense.extent[3],
                                               .q_block = q_block,
                                               .kv_block = kv_block}));
    mask->list_batch = mask->shape.batch;
    mask->list_heads = mask->shape.num_heads;
    saccade_status status = borrow_dense(ctx, mask, &dense);
    if (status == SACCADE_OK) status = sac_mask_list_by_asking(ctx, mask);
    if (status == SACCADE_OK) status = sac_mask_store_partial(ctx, mask);
    return sac_mask_finish(result, mask, status);
}
