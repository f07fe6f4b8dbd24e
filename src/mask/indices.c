/* indices.c - masks from chosen blocks, as top-k selection gives them. */
#include "base/error.h"
#include "mask/checks.h"
#include "mask/lists.h"

typedef struct index_rule {
    const saccade_block_mask *mask;
    sac_mask_tensor indices;
    int32_t kind;
} index_rule;

static saccade_status list_indices(const void *context, const sac_mask_piece *piece, sac_entry_list *list) {
    const index_rule *rule = context;
    const int32_t *chosen =
        (const int32_t *)rule->indices.data + sac_tensor_row(&rule->indices, piece->b, piece->h, piece->row);
    int32_t previous = -1, columns = rule->mask->num_kv_blocks;
    for (int64_t i = 0; i < rule->indices.extent[3]; i++) {
        if (chosen[i] == -1) continue;
        if (chosen[i] < 0 || chosen[i] >= columns)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "indices[%d, %d, %d, %lld]: %d, but blocks are numbered 0 to %d, and -1 is none",
                            piece->b, piece->h, piece->row, (long long)i, chosen[i], columns - 1);
        if (chosen[i] <= previous)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "indices[%d, %d, %d, %lld]: %d comes after %d, but blocks must ascend", piece->b,
                            piece->h, piece->row, (long long)i, chosen[i], previous);
        previous = chosen[i];
        sac_list_run(list, previous, previous + 1, rule->kind);
    }
    return SACCADE_OK;
}

saccade_status sac_check_indices(const saccade_block_mask *mask, const sac_mask_tensor *indices,
                                 saccade_block_kind kind) {
    if (kind != SACCADE_FULL && kind != SACCADE_PARTIAL)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "kind: %d is neither SACCADE_FULL nor SACCADE_PARTIAL",
                        (int)kind);
    saccade_status status = sac_tensor_extent(indices, "indices", 0, mask->shape.batch, true);
    if (status == SACCADE_OK) status = sac_tensor_extent(indices, "indices", 1, mask->shape.num_heads, true);
    if (status == SACCADE_OK) status = sac_tensor_extent(indices, "indices", 2, mask->num_q_blocks, false);
    return status;
}

saccade_status saccade_block_mask_from_indices(saccade_context *ctx, saccade_block_mask **result,
                                               const saccade_mask_shape *shape, const DLTensor *indices,
                                               saccade_block_kind kind) {
    saccade_block_mask *mask;
    SAC_TRY(sac_mask_new(ctx, &mask, shape));
    index_rule rule = {.mask = mask, .kind = (int32_t)kind};
    saccade_status status = sac_host_tensor_of(&rule.indices, "indices", indices, SACCADE_I32, 4);
    if (status == SACCADE_OK) status = sac_check_indices(mask, &rule.indices, kind);
    if (status == SACCADE_OK) {
        mask->list_batch = (int32_t)rule.indices.extent[0];
        mask->list_heads = (int32_t)rule.indices.extent[1];
        status = sac_mask_list(ctx, mask, &(sac_lister){.list = list_indices, .rule = &rule});
    }
    return sac_mask_finish(result, mask, status);
}
