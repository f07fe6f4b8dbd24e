/* test_block_mask_classify.c - masks found by asking: from a mask_mod, from a dense tensor, from chosen blocks. */
#include <saccade/native_modifier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "mask/block_mask.h"
#include "support/cmocka_all.h"
#include "support/mask_check.h"
#include "support/test_context.h"

static const int32_t blocks[][2] = {{16, 16}, {32, 8}, {8, 24}, {1, 16}, {16, 1}, {5, 7}, {1, 1}, {128, 64}};
enum { NUM_BLOCKS = sizeof blocks / sizeof *blocks };

/* ---- from a mask_mod ---- */

/* Depends on everything: empty, full and mixed blocks in every head. */
SACCADE_MASK_MOD(stripes, {
    int32_t width = aux_i32(0, b);
    return (q_idx / width + kv_idx / (width + h)) % 3 != 1 && kv_idx < scalar(0);
})

static bool in_stripes(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const int32_t *widths = rule;
    return (i / widths[b] + j / (widths[b] + h)) % 3 != 1 && j < 60;
}

static saccade_modifier *make_stripes(void) {
    saccade_modifier *modifier;
    must(saccade_modifier_create(
        ctx, &modifier,
        &(saccade_modifier_params){.native = &stripes,
                                   .num_aux = 1,
                                   .aux = (saccade_aux_decl[]){{"widths", SACCADE_I32}},
                                   .num_scalars = 1,
                                   .scalars = (const char *const[]){"limit"}}));
    return modifier;
}

static void mask_mod_of_everything_is_classified_exactly(void **state) {
    (void)state;
    static const int32_t widths[] = {31, 5, 64};
    saccade_modifier *modifier = make_stripes();
    saccade_bound_modifier bound = {.modifier = modifier,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(widths, SACCADE_I32, 3)},
                                    .scalars = (float[]){60}};
    for (int i = 0; i < NUM_BLOCKS; i++) {
        saccade_mask_shape shape = {3, 2, 70, 96, blocks[i][0], blocks[i][1]};
        saccade_block_mask *mask;
        must(saccade_block_mask_from_mod(ctx, &mask, &shape, &bound));
        assert_mask_is(ctx, mask, &(expected_mask){"stripes", in_stripes, widths});
        saccade_block_mask_destroy(mask);
    }
    saccade_modifier_destroy(modifier);
}

static void mask_keeps_its_own_copy_of_what_it_reads(void **state) {
    (void)state;
    int32_t widths[] = {31};
    saccade_modifier *modifier = make_stripes();
    saccade_bound_modifier bound = {.modifier = modifier,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(widths, SACCADE_I32, 1)},
                                    .scalars = (float[]){60}};
    saccade_block_mask *mask;
    must(saccade_block_mask_from_mod(ctx, &mask, &(saccade_mask_shape){1, 1, 70, 96, 16, 16}, &bound));
    saccade_modifier_destroy(modifier);
    widths[0] = 2;
    assert_mask_is(ctx, mask, &(expected_mask){"stripes", in_stripes, (int32_t[]){31}});
    saccade_block_mask_destroy(mask);
}

/* Threads take pieces in any order; the lists are those of one thread. */
static void lists_do_not_depend_on_the_number_of_threads(void **state) {
    (void)state;
    static const int32_t widths[] = {31, 5, 64};
    saccade_modifier *modifier = make_stripes();
    saccade_bound_modifier bound = {.modifier = modifier,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(widths, SACCADE_I32, 3)},
                                    .scalars = (float[]){60}};
    saccade_mask_shape shape = {3, 7, 200, 300, 3, 5};
    saccade_block_mask *alone = NULL;
    for (int32_t threads = 1; threads <= 16; threads *= 4) {
        saccade_context *own;
        saccade_block_mask *mask;
        must(saccade_context_create(&own, &(saccade_context_params){.num_threads = threads}));
        must(saccade_block_mask_from_mod(own, &mask, &shape, &bound));
        saccade_context_destroy(own);
        if (!alone) {
            alone = mask;
            continue;
        }
        size_t rows = 3 * 7 * 67, columns = 3 * 7 * 60, entries = (size_t)alone->row_offsets[rows];
        assert_memory_equal(mask->row_offsets, alone->row_offsets, (rows + 1) * sizeof *alone->row_offsets);
        assert_memory_equal(mask->row_entries, alone->row_entries, entries * sizeof *alone->row_entries);
        assert_memory_equal(mask->col_offsets, alone->col_offsets,
                            (columns + 1) * sizeof *alone->col_offsets);
        assert_memory_equal(mask->col_entries, alone->col_entries, entries * sizeof *alone->col_entries);
        saccade_block_mask_destroy(mask);
    }
    saccade_block_mask_destroy(alone);
    saccade_modifier_destroy(modifier);
}

SACCADE_MASK_MOD(triangle, { return kv_idx <= q_idx; })

static int64_t peak_bytes(void) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (int64_t)usage.ru_maxrss * 1024;
}

/* 16 K x 16 K pairs are 256 MiB of bytes, 32 of bits. */
static void classification_never_holds_the_grid(void **state) {
    (void)state;
    saccade_modifier *modifier;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    must(saccade_modifier_create(ctx, &modifier, &(saccade_modifier_params){.native = &triangle}));
    int64_t before = peak_bytes();
    saccade_mask_shape shape = {.q_len = 16384, .kv_len = 16384};
    must(saccade_block_mask_from_mod(ctx, &mask, &shape, &(saccade_bound_modifier){.modifier = modifier}));
    int64_t growth = peak_bytes() - before;
    if (growth > 16 << 20) fail_msg("the peak grew by %lld bytes", (long long)growth);
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.full, 128 * 127 / 2);
    assert_int_equal(info.partial, 128);
    saccade_block_mask_destroy(mask);
    saccade_modifier_destroy(modifier);
}

static bool above(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    (void)rule, (void)b, (void)h;
    return j > i + 20;
}

/* One block row, cut among threads; and a block wider than what is asked at once. */
static void few_long_rows_are_classified_exactly(void **state) {
    (void)state;
    saccade_modifier *modifier;
    saccade_bound_modifier bound = {0};
    must(saccade_modifier_create(
        ctx, &modifier,
        &(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "kv_idx > q_idx + 20"}));
    bound.modifier = modifier;
    static const saccade_mask_shape shapes[] = {{1, 1, 5, 4000, 64, 64},
                                                {1, 1, 3, 5000, 1, 2100},
                                                {1, 1, 40, 3000, 40, 3000},
                                                {2, 3, 0, 10, 4, 4},
                                                {1, 1, 10, 0, 4, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        saccade_block_mask *mask;
        must(saccade_block_mask_from_mod(ctx, &mask, &shapes[i], &bound));
        assert_mask_is(ctx, mask, &(expected_mask){"above", above, NULL});
        saccade_block_mask_destroy(mask);
    }
    saccade_modifier_destroy(modifier);
}

static void score_mod_and_broken_text_are_refused(void **state) {
    (void)state;
    saccade_block_mask *mask = NULL;
    saccade_modifier *modifier;
    saccade_mask_shape shape = {.q_len = 4, .kv_len = 4};
    assert_refused(saccade_block_mask_from_mod(ctx, &mask, &shape, NULL), SACCADE_INVALID_ARGUMENT,
                   "mask_mod: is NULL");
    must(saccade_modifier_create(
        ctx, &modifier,
        &(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .name = "cap", .text = "score"}));
    assert_refused(
        saccade_block_mask_from_mod(ctx, &mask, &shape, &(saccade_bound_modifier){.modifier = modifier}),
        SACCADE_INVALID_ARGUMENT, "\"cap\" is a score_mod");
    saccade_modifier_destroy(modifier);
    must(saccade_modifier_create(
        ctx, &modifier, &(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "kv_idx > nobody"}));
    assert_refused(
        saccade_block_mask_from_mod(ctx, &mask, &shape, &(saccade_bound_modifier){.modifier = modifier}),
        SACCADE_COMPILE_FAILED, "nobody");
    saccade_modifier_destroy(modifier);
    assert_null(mask);
}

/* ---- from a dense tensor ---- */

typedef struct dense {
    uint8_t *data;
    int64_t stride[3];
} dense;

static bool in_dense(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const dense *d = rule;
    return d->data[b * d->stride[0] + h * d->stride[1] + i * d->stride[2] + j] != 0;
}

/* Random pairs, in a tensor with gaps, with one full and one empty corner; non-zero is any non-zero. */
static dense make_dense(int32_t batch, int32_t heads, int32_t q_len, int32_t kv_len, uint32_t seed) {
    dense d = {.stride = {(int64_t)heads * q_len * (kv_len + 3), (int64_t)q_len * (kv_len + 3), kv_len + 3}};
    d.data = malloc((size_t)(batch * d.stride[0]));
    assert_non_null(d.data);
    for (int64_t n = 0; n < batch * d.stride[0]; n++) {
        int64_t i = n / d.stride[2] % q_len, j = n % d.stride[2];
        seed = seed * 1664525u + 1013904223u;
        d.data[n] = i < 32 && j < 48     ? 255
                    : i >= 32 && j >= 48 ? 0
                    : seed >> 30         ? 0
                                         : (uint8_t)(1 + (seed >> 20 & 127));
    }
    return d;
}

static void dense_tensor_is_kept_for_partial_blocks(void **state) {
    (void)state;
    dense d = make_dense(2, 3, 70, 97, 7);
    for (int i = 0; i < NUM_BLOCKS; i++) {
        DLTensor *tensor = SACCADE_TENSOR(d.data, SACCADE_U8, 2, 3, 70, 97);
        tensor->strides = (int64_t[]){d.stride[0], d.stride[1], d.stride[2], 1};
        uint8_t *kept = d.data;
        saccade_block_mask *mask;
        must(saccade_block_mask_from_dense(ctx, &mask, tensor, blocks[i][0], blocks[i][1]));
        tensor->data = NULL; /* the mask must not look at it again */
        assert_mask_is(
            ctx, mask,
            &(expected_mask){"dense", in_dense, &(dense){kept, {d.stride[0], d.stride[1], d.stride[2]}}});
        saccade_block_mask_destroy(mask);
    }
    free(d.data);
}

static void dense_mask_outlives_its_tensor(void **state) {
    (void)state;
    dense d = make_dense(1, 1, 40, 50, 11), copy = make_dense(1, 1, 40, 50, 11);
    DLTensor *tensor = SACCADE_TENSOR(d.data, SACCADE_U8, 1, 1, 40, 50);
    tensor->strides = (int64_t[]){d.stride[0], d.stride[1], d.stride[2], 1};
    saccade_block_mask *mask;
    must(saccade_block_mask_from_dense(ctx, &mask, tensor, 16, 16));
    memset(d.data, 1, (size_t)d.stride[0]);
    free(d.data);
    assert_mask_is(ctx, mask, &(expected_mask){"dense", in_dense, &copy});
    saccade_block_mask_destroy(mask);
    free(copy.data);
}

static void dense_mask_costs_bits_of_partial_blocks(void **state) {
    (void)state;
    enum { N = 1024 };
    uint8_t *data = malloc(N * N);
    assert_non_null(data);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) data[i * N + j] = j <= i;
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    must(saccade_block_mask_from_dense(ctx, &mask, SACCADE_TENSOR(data, SACCADE_U8, 1, 1, N, N), 64, 64));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.partial, 16);
    assert_int_equal(info.full, 16 * 15 / 2);
    assert_true(info.bytes < 16 * 64 * 64 / 8 + 4096);
    saccade_block_mask_destroy(mask);
    free(data);
}

static void unusable_dense_tensors_are_named(void **state) {
    (void)state;
    uint8_t data[64] = {0};
    saccade_block_mask *mask = NULL;
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    DLTensor *t = SACCADE_TENSOR(data, SACCADE_U8, 1, 1, 8, 8);
    assert_refused(saccade_block_mask_from_dense(ctx, &mask, NULL, 4, 4), bad, "visible: is NULL");
    assert_refused(
        saccade_block_mask_from_dense(ctx, &mask, SACCADE_TENSOR(data, SACCADE_I32, 1, 1, 4, 4), 4, 4), bad,
        "visible: dtype is int32, expected uint8");
    assert_refused(saccade_block_mask_from_dense(ctx, &mask, SACCADE_TENSOR(data, SACCADE_U8, 8, 8), 4, 4),
                   bad, "visible: shape is (8, 8), expected (any, any, any, any)");
    assert_refused(
        saccade_block_mask_from_dense(ctx, &mask, SACCADE_TENSOR(data, SACCADE_U8, 0, 1, 8, 8), 4, 4), bad,
        "shape[0] is 0");
    assert_refused(
        saccade_block_mask_from_dense(ctx, &mask, SACCADE_TENSOR(NULL, SACCADE_U8, 1, 1, 8, 8), 4, 4), bad,
        "data is NULL");
    assert_refused(saccade_block_mask_from_dense(ctx, &mask, t, -4, 4), bad, "q_block: -4");
    t->device.device_type = kDLCUDA;
    assert_refused(saccade_block_mask_from_dense(ctx, &mask, t, 4, 4), bad, "device cuda:0");
    t->device.device_type = kDLCPU;
    t->strides = (int64_t[]){64, 64, 1, 8};
    assert_refused(saccade_block_mask_from_dense(ctx, &mask, t, 4, 4), bad, "has stride 8");
    assert_null(mask);
}

/* ---- from chosen blocks ---- */

enum { PLACES = 20 }; /* for chosen blocks in a row */

static bool is_chosen(const void *rule, int32_t b, int32_t h, int64_t i, int64_t j) {
    const int32_t *chosen = (const int32_t *)rule + (h * 3 + i / 8) * PLACES;
    (void)b;
    for (int n = 0; n < PLACES; n++)
        if (chosen[n] == j / 4) return true;
    return false;
}

static void chosen_blocks_become_full_or_partial(void **state) {
    (void)state;
    static const int32_t lists[2][3][4] = {{{0, 2, 5, 6}, {-1, -1, -1, -1}, {-1, 1, -1, 4}},
                                           {{3, -1, -1, -1}, {0, 1, 2, 3}, {6, -1, -1, -1}}};
    int32_t chosen[2][3][PLACES]; /* the first head's at the end, behind sixteen that are none */
    memset(chosen, 0xff, sizeof chosen);
    for (int row = 0; row < 3; row++) {
        memcpy(chosen[0][row] + PLACES - 4, lists[0][row], sizeof lists[0][row]);
        memcpy(chosen[1][row], lists[1][row], sizeof lists[1][row]);
    }
    saccade_block_mask *mask;
    saccade_block_mask_info info;
    saccade_mask_shape shape = {5, 2, 20, 26, 8, 4}; /* last blocks cut; batch broadcast */
    DLTensor *indices = SACCADE_TENSOR(chosen, SACCADE_I32, 1, 2, 3, PLACES);
    must(saccade_block_mask_from_indices(ctx, &mask, &shape, indices, SACCADE_FULL));
    assert_mask_is(ctx, mask, &(expected_mask){"indices", is_chosen, chosen});
    saccade_block_mask_destroy(mask);
    must(saccade_block_mask_from_indices(ctx, &mask, &shape, indices, SACCADE_PARTIAL));
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.partial, 12);
    assert_int_equal(info.shape.batch, 5);
    bool visible;
    must(saccade_block_mask_visible(ctx, mask, 0, 0, 0, 5, &visible));
    assert_false(visible);
    assert_refused(saccade_block_mask_visible(ctx, mask, 0, 0, 0, 9, &visible), SACCADE_INVALID_ARGUMENT,
                   "no mask_mod");
    saccade_block_mask_destroy(mask);
}

static void bad_indices_are_named(void **state) {
    (void)state;
    saccade_block_mask *mask = NULL;
    saccade_mask_shape shape = {1, 1, 8, 32, 8, 8};
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    static const struct {
        int32_t chosen[3];
        const char *words;
    } cases[] = {{{0, 4, -1}, "indices[0, 0, 0, 1]: 4, but blocks are numbered 0 to 3"},
                 {{0, -2, 1}, "indices[0, 0, 0, 1]: -2"},
                 {{1, 1, 2}, "indices[0, 0, 0, 1]: 1 comes after 1"},
                 {{2, -1, 0}, "indices[0, 0, 0, 2]: 0 comes after 2"},
                 {{INT32_MAX, 0, 0}, "indices[0, 0, 0, 0]: 2147483647"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(
            saccade_block_mask_from_indices(
                ctx, &mask, &shape, SACCADE_TENSOR(cases[i].chosen, SACCADE_I32, 1, 1, 1, 3), SACCADE_FULL),
            bad, cases[i].words);
    DLTensor *two_rows = SACCADE_TENSOR(cases, SACCADE_I32, 1, 1, 2, 1);
    assert_refused(saccade_block_mask_from_indices(ctx, &mask, &shape, two_rows, SACCADE_FULL), bad,
                   "indices: shape[2] is 2, but the mask has 1");
    DLTensor *two_heads = SACCADE_TENSOR(cases, SACCADE_I32, 1, 2, 1, 1);
    assert_refused(saccade_block_mask_from_indices(ctx, &mask, &shape, two_heads, SACCADE_FULL), bad,
                   "shape[1] is 2");
    DLTensor *one = SACCADE_TENSOR(cases, SACCADE_I32, 1, 1, 1, 1);
    assert_refused(saccade_block_mask_from_indices(ctx, &mask, &shape, one, SACCADE_DIAGONAL), bad,
                   "kind: 3");
    assert_null(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mask_mod_of_everything_is_classified_exactly),
        cmocka_unit_test(mask_keeps_its_own_copy_of_what_it_reads),
        cmocka_unit_test(lists_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(classification_never_holds_the_grid),
        cmocka_unit_test(few_long_rows_are_classified_exactly),
        cmocka_unit_test(score_mod_and_broken_text_are_refused),
        cmocka_unit_test(dense_tensor_is_kept_for_partial_blocks),
        cmocka_unit_test(dense_mask_outlives_its_tensor),
        cmocka_unit_test(dense_mask_costs_bits_of_partial_blocks),
        cmocka_unit_test(unusable_dense_tensors_are_named),
        cmocka_unit_test(chosen_blocks_become_full_or_partial),
        cmocka_unit_test(bad_indices_are_named),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
