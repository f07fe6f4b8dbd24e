/* test_block_mask_exchange.c - the eight tensors of PyTorch's BlockMask, out and in, hostile ones included. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mask/block_mask.h"
#include "support/cmocka_all.h"
#include "support/mask_check.h"
#include "support/test_context.h"

/* Room for the eight tensors of a mask of up to 2 x 3 x 8 x 16 blocks. */
enum { MAX_LIST = 2 * 3 * 8 * 16 };

typedef struct eight {
    int32_t data[8][MAX_LIST];
    int64_t shape[8][4];
    DLTensor tensor[8];
    saccade_block_mask_tensors all;
} eight;

/* The eight tensors of a shape, poisoned. */
static void lay_out(eight *e, int64_t batch, int64_t heads, int64_t rows, int64_t columns) {
    memset(e->data, 0x5a, sizeof e->data);
    for (int n = 0; n < 8; n++) {
        bool by_key = n >= 4;
        const int64_t shape[] = {batch, heads, by_key ? columns : rows, by_key ? rows : columns};
        memcpy(e->shape[n], shape, sizeof shape);
        e->tensor[n] = *SACCADE_TENSOR(e->data[n], SACCADE_I32, 0);
        e->tensor[n].ndim = n % 2 ? 4 : 3;
        e->tensor[n].shape = e->shape[n];
    }
    DLTensor *t = e->tensor;
    e->all = (saccade_block_mask_tensors){&t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]};
}

static void lay_out_for(eight *e, const saccade_block_mask *mask) {
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    lay_out(e, info.shape.batch, info.shape.num_heads, info.num_q_blocks, info.num_kv_blocks);
}

/* A mask with FULL, PARTIAL and DIAGONAL blocks, rows cut short, two batches that differ, broadcast heads. */
static saccade_block_mask *make_mask(void) {
    saccade_mask_shape shape = {2, 3, 64, 128, 16, 8};
    saccade_block_mask *mask;
    must(saccade_block_mask_eagle3(ctx, &mask, &shape, (int32_t[]){64, 40}));
    return mask;
}

static void export_pads_and_expands(void **state) {
    (void)state;
    static eight e;
    saccade_block_mask *mask = make_mask();
    lay_out_for(&e, mask);
    must(saccade_block_mask_export(mask, &e.all));
    for (int b = 0; b < 2; b++)
        for (int h = 0; h < 3; h++)
            for (int n = 0; n < 8;
                 n += 2) { /* counts in n, indices in n + 1, FULL in n / 2 odd, keys from 4 on */
                bool full = n / 2 % 2, by_key = n >= 4;
                int rows = by_key ? 16 : 4, columns = by_key ? 4 : 16;
                for (int r = 0; r < rows; r++) {
                    int64_t line = (b * 3 + h) * rows + r;
                    const int32_t *indices = &e.data[n + 1][line * columns];
                    int count = 0;
                    for (int c = 0; c < columns; c++) {
                        int32_t kind = saccade_block_mask_kind(mask, b, h, by_key ? c : r, by_key ? r : c);
                        if (kind == 0 || (kind == SACCADE_FULL) != full) continue;
                        assert_int_equal(indices[count], c);
                        count++;
                    }
                    assert_int_equal(e.data[n][line], count);
                    for (int c = count; c < columns; c++) assert_int_equal(indices[c], 0);
                }
            }
    saccade_block_mask_destroy(mask);
}

/* PyTorch pads tokens to whole blocks with hidden ones; so a visible but cut block is PARTIAL there. */
static void blocks_cut_by_the_end_are_exported_as_partial(void **state) {
    (void)state;
    static eight e;
    saccade_block_mask *mask;
    saccade_mask_shape shape = {1, 1, 40, 40, 16, 16};
    must(saccade_block_mask_window(ctx, &mask, &shape, -1, -1, false));
    lay_out_for(&e, mask);
    must(saccade_block_mask_export(mask, &e.all));
    static const int32_t partial[] = {1, 1, 3}, full[] = {2, 2, 0}, last_row[] = {0, 1, 2};
    for (int by_key = 0; by_key < 2; by_key++) {
        assert_memory_equal(e.data[4 * by_key], partial, sizeof partial);
        assert_memory_equal(e.data[4 * by_key + 2], full, sizeof full);
        assert_memory_equal(e.data[4 * by_key + 1] + 6, last_row, sizeof last_row);
    }
    saccade_block_mask_destroy(mask);
    /* A mask without a mask_mod cannot say that a PARTIAL block is all visible: FULL stays FULL. */
    static const int32_t chosen[3] = {2, 2, 2};
    must(saccade_block_mask_from_indices(ctx, &mask, &shape, SACCADE_TENSOR(chosen, SACCADE_I32, 1, 1, 3, 1),
                                         SACCADE_FULL));
    must(saccade_block_mask_export(mask, &e.all));
    assert_int_equal(e.data[0][0], 0);
    assert_int_equal(e.data[2][0], 1);
    saccade_block_mask_destroy(mask);
}

static void export_writes_into_strided_tensors_only_their_own(void **state) {
    (void)state;
    static eight e;
    saccade_block_mask *mask = make_mask();
    lay_out_for(&e, mask);
    int64_t strides[] = {3 * 8 * 16 - 7, 5 * 16, 17, 1}; /* rows 17 apart */
    e.tensor[1].strides = strides;
    must(saccade_block_mask_export(mask, &(saccade_block_mask_tensors){.kv_indices = &e.tensor[1]}));
    assert_int_equal(e.data[1][16], 0x5a5a5a5a);
    assert_int_equal(e.data[1][17 + 0], 2); /* row 1: PARTIAL 2, 3, and 10, 11 of the second round */
    assert_int_equal(e.data[1][17 + 3], 11);
    assert_int_equal(e.data[0][0], 0x5a5a5a5a);
    saccade_block_mask_destroy(mask);
}

static void import_of_an_export_lists_the_same_blocks(void **state) {
    (void)state;
    static eight e, again;
    saccade_block_mask *mask = make_mask(), *imported;
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    lay_out_for(&e, mask);
    must(saccade_block_mask_export(mask, &e.all));
    for (int with_transpose = 0; with_transpose < 2; with_transpose++) {
        saccade_block_mask_tensors given = e.all;
        if (!with_transpose)
            given.q_num_blocks = given.q_indices = given.full_q_num_blocks = given.full_q_indices = NULL;
        must(saccade_block_mask_import(ctx, &imported, &info.shape, &given));
        assert_lists_are_consistent(imported);
        lay_out_for(&again, imported);
        must(saccade_block_mask_export(imported, &again.all));
        assert_memory_equal(again.data, e.data, sizeof e.data);
        saccade_block_mask_destroy(imported);
    }
    saccade_block_mask_destroy(mask);
}

static void transpose_of_the_transpose_is_the_mask(void **state) {
    (void)state;
    static eight e, turned;
    saccade_block_mask *mask = make_mask(), *flipped;
    lay_out_for(&e, mask);
    must(saccade_block_mask_export(mask, &e.all));
    saccade_mask_shape shape = {2, 3, 128, 64, 8, 16};
    saccade_block_mask_tensors q_as_kv = {
        e.all.q_num_blocks,  e.all.q_indices,  e.all.full_q_num_blocks,  e.all.full_q_indices,
        e.all.kv_num_blocks, e.all.kv_indices, e.all.full_kv_num_blocks, e.all.full_kv_indices};
    must(saccade_block_mask_import(ctx, &flipped, &shape, &q_as_kv)); /* refuses what is no transpose */
    lay_out_for(&turned, flipped);
    must(saccade_block_mask_export(flipped, &turned.all));
    for (int n = 0; n < 8; n++) assert_memory_equal(turned.data[n], e.data[(n + 4) % 8], sizeof e.data[n]);
    saccade_block_mask_destroy(mask);
    saccade_block_mask_destroy(flipped);
}

static void order_within_a_row_does_not_matter(void **state) {
    (void)state;
    saccade_block_mask *mask;
    saccade_mask_shape shape = {1, 1, 8, 32, 8, 8};
    must(saccade_block_mask_import(
        ctx, &mask, &shape,
        &(saccade_block_mask_tensors){
            .kv_num_blocks = SACCADE_TENSOR((int32_t[]){2}, SACCADE_I32, 1, 1, 1),
            .kv_indices = SACCADE_TENSOR(((int32_t[]){3, 0, 9, -5}), SACCADE_I32, 1, 1, 1, 4),
            .full_kv_num_blocks = SACCADE_TENSOR((int32_t[]){1}, SACCADE_I32, 1, 1, 1),
            .full_kv_indices = SACCADE_TENSOR(((int32_t[]){1, 1, 1, 1}), SACCADE_I32, 1, 1, 1, 4)}));
    static const int32_t kinds[] = {SACCADE_PARTIAL, SACCADE_FULL, 0, SACCADE_PARTIAL};
    for (int c = 0; c < 4; c++) assert_int_equal(saccade_block_mask_kind(mask, 0, 0, 0, c), kinds[c]);
    assert_lists_are_consistent(mask);
    saccade_block_mask_destroy(mask);
}

/* ---- hostile tensors: one row of four blocks, and what is wrong with it ---- */

typedef struct hostile {
    int32_t partial_count, partial[4], full_count, full[4];
    const char *words;
} hostile;

static void hostile_lists_are_refused_by_name(void **state) {
    (void)state;
    static const hostile cases[] = {
        {5, {0, 1, 2, 3}, 0, {0}, "kv_num_blocks[0, 0, 0]: 5, but a row has 0 to 4"},
        {-1, {0}, 0, {0}, "kv_num_blocks[0, 0, 0]: -1"},
        {INT32_MIN, {0}, 0, {0}, "kv_num_blocks[0, 0, 0]: -2147483648"},
        {2, {0, -1}, 0, {0}, "kv_indices[0, 0, 0, 1]: -1"},
        {1, {-1}, 0, {0}, "kv_indices[0, 0, 0, 0]: -1"},
        {2, {0, 4}, 0, {0}, "kv_indices[0, 0, 0, 1]: 4, but blocks are numbered 0 to 3"},
        {1, {1 << 29}, 0, {0}, "kv_indices[0, 0, 0, 0]: 536870912"},
        {1, {INT32_MIN}, 0, {0}, "kv_indices[0, 0, 0, 0]: -2147483648"},
        {3, {2, 0, 2}, 0, {0}, "kv_indices[0, 0, 0]: block 2 occurs twice"},
        {1, {1}, 2, {3, 1}, "block 1 occurs twice"},
        {0, {0}, 2, {3, 3}, "full_kv_indices[0, 0, 0]: block 3 occurs twice"},
        {0, {0}, 9, {0}, "full_kv_num_blocks[0, 0, 0]: 9"},
        {4, {0, 1, 2, 3}, 4, {0, 1, 2, 3}, "occurs twice"},
    };
    saccade_mask_shape shape = {1, 1, 8, 32, 8, 8};
    saccade_block_mask *mask = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hostile *c = &cases[i];
        saccade_block_mask_tensors t = {
            .kv_num_blocks = SACCADE_TENSOR(&c->partial_count, SACCADE_I32, 1, 1, 1),
            .kv_indices = SACCADE_TENSOR(c->partial, SACCADE_I32, 1, 1, 1, 4),
            .full_kv_num_blocks = SACCADE_TENSOR(&c->full_count, SACCADE_I32, 1, 1, 1),
            .full_kv_indices = SACCADE_TENSOR(c->full, SACCADE_I32, 1, 1, 1, 4)};
        assert_refused(saccade_block_mask_import(ctx, &mask, &shape, &t), SACCADE_INVALID_ARGUMENT, c->words);
    }
    assert_null(mask);
}

static void a_transpose_that_is_none_is_refused(void **state) {
    (void)state;
    static eight e;
    saccade_block_mask *mask = make_mask(), *imported = NULL;
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    static const struct {
        int list, element;
        int32_t value;
        const char *words;
    } lies[] = {{4, 3, 0, "q_indices[0, 0, 3]: is not the transpose"},       /* one PARTIAL block fewer */
                {5, 15 * 4, 0, "q_indices[0, 0, 15]: is not the transpose"}, /* another row */
                {6, 0, 1, "is not the transpose"},                           /* one FULL block fewer */
                {4, 0, 2, "q_indices[0, 0, 0]: block 0 occurs twice"}, /* the zero tail read as a block */
                {4, 0, 7, "q_num_blocks[0, 0, 0]: 7, but a row has 0 to 4"}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        lay_out_for(&e, mask);
        must(saccade_block_mask_export(mask, &e.all));
        e.data[lies[i].list][lies[i].element] = lies[i].value;
        assert_refused(saccade_block_mask_import(ctx, &imported, &info.shape, &e.all),
                       SACCADE_INVALID_ARGUMENT, lies[i].words);
    }
    assert_null(imported);
    saccade_block_mask_destroy(mask);
}

static void tensors_of_other_shapes_are_refused(void **state) {
    (void)state;
    static eight e;
    saccade_block_mask *mask = make_mask(), *imported = NULL;
    saccade_block_mask_info info;
    saccade_block_mask_get_info(mask, &info);
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    static const struct {
        int tensor, dimension;
        int64_t extent;
        const char *words;
    } wrong[] = {{0, 0, 1, "kv_num_blocks: shape[0] is 1, but the mask has 2"},
                 {1, 3, 15, "kv_indices: shape[3] is 15, but the mask has 16"},
                 {2, 2, 5, "full_kv_num_blocks: shape[2] is 5, but the mask has 4"},
                 {7, 1, 4, "full_q_indices: shape[1] is 4, but the mask has 3"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        lay_out_for(&e, mask);
        e.shape[wrong[i].tensor][wrong[i].dimension] = wrong[i].extent;
        assert_refused(saccade_block_mask_export(mask, &e.all), bad, wrong[i].words);
        assert_int_equal(e.data[0][0], 0x5a5a5a5a); /* nothing was written */
        assert_refused(saccade_block_mask_import(ctx, &imported, &info.shape, &e.all), bad, wrong[i].words);
    }
    lay_out_for(&e, mask);
    e.tensor[3].dtype = SACCADE_I64;
    assert_refused(saccade_block_mask_export(mask, &e.all), bad,
                   "full_kv_indices: dtype is int64, expected int32");
    e.tensor[3].dtype = SACCADE_I32;
    e.tensor[3].byte_offset = 2;
    assert_refused(saccade_block_mask_export(mask, &e.all), bad, "full_kv_indices: data is not aligned");
    e.tensor[3].byte_offset = 0;
    e.all.kv_indices = NULL;
    assert_refused(saccade_block_mask_import(ctx, &imported, &info.shape, &e.all), bad,
                   "kv_indices: is NULL, but kv_num_blocks is given");
    assert_refused(saccade_block_mask_import(ctx, &imported, &info.shape, &(saccade_block_mask_tensors){0}),
                   bad, "kv_num_blocks, kv_indices: are NULL");
    assert_null(imported);
    saccade_block_mask_destroy(mask);
}

static void empty_masks_are_exchanged_too(void **state) {
    (void)state;
    static eight e;
    static const saccade_mask_shape shapes[] = {{1, 1, 0, 32, 8, 8}, {1, 1, 32, 0, 8, 8}, {2, 1, 0, 0, 8, 8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        saccade_block_mask *mask, *imported;
        must(saccade_block_mask_causal(ctx, &mask, &shapes[i], false));
        lay_out_for(&e, mask);
        must(saccade_block_mask_export(mask, &e.all));
        must(saccade_block_mask_import(ctx, &imported, &shapes[i], &e.all));
        assert_lists_are_consistent(imported);
        saccade_block_mask_destroy(mask);
        saccade_block_mask_destroy(imported);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(export_pads_and_expands),
        cmocka_unit_test(blocks_cut_by_the_end_are_exported_as_partial),
        cmocka_unit_test(export_writes_into_strided_tensors_only_their_own),
        cmocka_unit_test(import_of_an_export_lists_the_same_blocks),
        cmocka_unit_test(transpose_of_the_transpose_is_the_mask),
        cmocka_unit_test(order_within_a_row_does_not_matter),
        cmocka_unit_test(hostile_lists_are_refused_by_name),
        cmocka_unit_test(a_transpose_that_is_none_is_refused),
        cmocka_unit_test(tensors_of_other_shapes_are_refused),
        cmocka_unit_test(empty_masks_are_exchanged_too),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
