/* blocks.c - patterns of blocks. The random ones go through import, in PyTorch's padded layout. */
#include "support/blocks.h"

#include <stdlib.h>

#include "support/cmocka_all.h"
#include "support/random.h"

static int32_t num_blocks(int32_t len, int32_t block) { return (len + block - 1) / block; }

/* 0 not listed, else the kind. */
static int listed_kind(const attention_case *c, int32_t b, int32_t h, int32_t q_block, int32_t kv_block) {
    int32_t columns = num_blocks(c->seqlen_k, c->blocks.kv_block);
    if (c->blocks.pattern == BLOCKS_RAGGED) {
        if (q_block % 4 == 1) return SACCADE_FULL;
        if (q_block % 4 == 3) return 0;
        return kv_block == (q_block * 5 + 2) % columns ? SACCADE_PARTIAL : 0;
    }
    uint64_t place = (uint64_t)(c->blocks.per_batch ? b : 0) * 131 + (uint64_t)(c->blocks.per_head ? h : 0);
    test_random random = {((place * 8191 + (uint64_t)q_block) * 8191 + (uint64_t)kv_block) * 7 + c->seed};
    int32_t draw = random_below(&random, 6);
    return draw < 2 ? 0 : draw < 4 ? SACCADE_PARTIAL : SACCADE_FULL;
}

static saccade_mask_shape shape_of(const attention_case *c) {
    return (saccade_mask_shape){.batch = c->blocks.per_batch ? c->batch : 1,
                                .num_heads = c->blocks.per_head ? c->num_heads : 1,
                                .q_len = c->seqlen_q,
                                .kv_len = c->seqlen_k,
                                .q_block = c->blocks.q_block,
                                .kv_block = c->blocks.kv_block};
}

static saccade_status import(saccade_context *ctx, saccade_block_mask **mask, const attention_case *c) {
    saccade_mask_shape shape = shape_of(c);
    int32_t rows = num_blocks(shape.q_len, shape.q_block), columns = num_blocks(shape.kv_len, shape.kv_block);
    int64_t lists = (int64_t)shape.batch * shape.num_heads * rows;
    int32_t *count[2], *index[2]; /* PARTIAL, FULL */
    for (int f = 0; f < 2; f++) {
        count[f] = calloc((size_t)lists + 1, sizeof(int32_t));
        index[f] = calloc((size_t)(lists * columns) + 1, sizeof(int32_t));
        assert_true(count[f] && index[f]);
    }
    for (int64_t list = 0; list < lists; list++)
        for (int32_t column = 0; column < columns; column++) {
            int32_t row = (int32_t)(list % rows), h = (int32_t)(list / rows % shape.num_heads);
            int kind = listed_kind(c, (int32_t)(list / rows / shape.num_heads), h, row, column);
            if (kind == 0) continue;
            int f = kind == SACCADE_FULL;
            index[f][list * columns + count[f][list]++] = column;
        }
#define COUNTS(f) SACCADE_TENSOR(count[f], SACCADE_I32, shape.batch, shape.num_heads, rows)
#define INDICES(f) SACCADE_TENSOR(index[f], SACCADE_I32, shape.batch, shape.num_heads, rows, columns)
    saccade_block_mask_tensors tensors = {.kv_num_blocks = COUNTS(0),
                                          .kv_indices = INDICES(0),
                                          .full_kv_num_blocks = COUNTS(1),
                                          .full_kv_indices = INDICES(1)};
    saccade_status status = saccade_block_mask_import(ctx, mask, &shape, &tensors);
    for (int f = 0; f < 2; f++) {
        free(count[f]);
        free(index[f]);
    }
    return status;
}

saccade_block_mask *test_blocks_create(saccade_context *ctx, const attention_case *c,
                                       const saccade_bound_modifier *mask_mod) {
    saccade_block_mask *mask = NULL;
    saccade_mask_shape shape = shape_of(c);
    saccade_status status = SACCADE_OK;
    switch (c->blocks.pattern) {
    case BLOCKS_NONE:
        return NULL;
    case BLOCKS_RANDOM:
    case BLOCKS_RAGGED:
        status = import(ctx, &mask, c);
        break;
    case BLOCKS_MOD:
        status = saccade_block_mask_from_mod(ctx, &mask, &shape, mask_mod);
        break;
    case BLOCKS_CAUSAL:
        status = saccade_block_mask_causal(ctx, &mask, &shape, false);
        break;
    case BLOCKS_EAGLE3:
        status = saccade_block_mask_eagle3(ctx, &mask, &shape, NULL);
        break;
    case BLOCKS_DILATED:
        status = saccade_block_mask_dilated(ctx, &mask, &shape, 2, 150);
        break;
    }
    if (status != SACCADE_OK) fail_msg("%s: block mask: %s", c->name, saccade_last_error());
    return mask;
}

int test_blocks_admit(const attention_case *c, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx) {
    switch (c->blocks.pattern) {
    case BLOCKS_CAUSAL:
        return kv_idx <= q_idx;
    case BLOCKS_EAGLE3:
        return kv_idx < c->seqlen_q ? q_idx >= kv_idx : (kv_idx - q_idx) % c->seqlen_q == 0;
    case BLOCKS_DILATED:
        return abs(q_idx - kv_idx) <= 300 && (q_idx - kv_idx) % 150 == 0;
    case BLOCKS_RANDOM:
    case BLOCKS_RAGGED: {
        int kind = listed_kind(c, b, h, q_idx / c->blocks.q_block, kv_idx / c->blocks.kv_block);
        return kind == SACCADE_PARTIAL ? -1 : kind == SACCADE_FULL;
    }
    default:
        return -1;
    }
}

bool test_blocks_carry_mod(const attention_case *c) { return c->blocks.pattern == BLOCKS_MOD; }
