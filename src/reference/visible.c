/* visible.c - may query i see key j? Asked of each pair, answered from the definitions. */
#include <string.h>

#include "mod/modifier.h"
#include "reference/row.h"

static bool causal_admits(const sac_band_rule *rule, int64_t i, int64_t j, int64_t shift) {
    return rule->causal == 0 || j <= i + (rule->causal == 2 ? shift : 0);
}

static bool window_admits(const sac_band_rule *rule, int64_t i, int64_t j, int64_t shift) {
    int64_t position = i + (rule->window_align == SAC_BOTTOM_RIGHT ? shift : 0);
    if (rule->window_left >= 0 && j < position - rule->window_left) return false;
    return rule->window_right < 0 || j <= position + rule->window_right;
}

/* Key j is the mean of tokens j*l .. j*l + l-1: visible once the last of them, or the first, is. */
static bool compressed_admits(const sac_band_rule *rule, int64_t i, int64_t j) {
    int64_t first = j * rule->compress, last = first + rule->compress - 1;
    return (rule->compress_started ? first : last) <= i;
}

static bool band_admits(const sac_band_rule *rule, int64_t i, int64_t j, int64_t shift) {
    if (rule->compress > 0) return compressed_admits(rule, i, j);
    return causal_admits(rule, i, j, shift) && window_admits(rule, i, j, shift);
}

/* The kind of the block that holds each key of query i's row; 0 where none is listed. */
static void block_kinds(const sac_reference_head *head, int32_t i, uint8_t *kinds) {
    const sac_block_mask_args *mask = &head->call->args.blocks;
    int64_t list = mask->batch == 1 ? 0 : head->b;
    list = list * mask->num_heads + (mask->num_heads == 1 ? 0 : head->h / mask->heads_per_list);
    list = list * mask->num_q_blocks + i / mask->q_block;
    memset(kinds, 0, (size_t)head->k_len);
    for (int64_t e = mask->by_query.offsets[list]; e < mask->by_query.offsets[list + 1]; e++) {
        int64_t begin = (int64_t)SAC_ENTRY_INDEX(mask->by_query.entries[e]) * mask->kv_block;
        for (int64_t j = begin; j < begin + mask->kv_block && j < head->k_len; j++)
            kinds[j] = (uint8_t)SAC_ENTRY_KIND(mask->by_query.entries[e]);
    }
}

static bool mask_mod_admits(const sac_reference_head *head, int32_t i, int32_t j) {
    if (!head->call->mask_mod) return true;
    uint8_t visible;
    sac_mask_row(head->call->mask_mod, &visible, 1, head->b, head->h, i, j, &head->call->args.mask_aux);
    return visible;
}

static bool block_admits(const sac_reference_head *head, int32_t i, int32_t j, uint8_t kind) {
    switch (kind) {
    case SACCADE_FULL:
        return true;
    case SACCADE_PARTIAL:
        return mask_mod_admits(head, i, j);
    case SACCADE_DIAGONAL:
        return (j - i) % head->call->args.blocks.period == 0 && mask_mod_admits(head, i, j);
    default:
        return false;
    }
}

void sac_reference_visible(const sac_reference_head *head, int32_t i, uint8_t *visible) {
    const sac_attention_args *args = &head->call->args;
    bool blocks = args->blocks.by_query.offsets != NULL;
    if (blocks) block_kinds(head, i, visible);
    for (int32_t j = 0; j < head->k_len; j++)
        visible[j] = band_admits(&args->band, i, j, (int64_t)head->k_len - head->q_len) &&
                     (blocks ? block_admits(head, i, j, visible[j]) : mask_mod_admits(head, i, j));
}
