/* test_cuda_mask_exchange.c - PyTorch's BlockMask read and written on a device. On a GPU what is exported is held
 * against what the host exports of the same mask, and what is imported is exported again; without one, refusals are
 * heard. */
#include <saccade/device_mask.h>
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/device.h"
#include "support/mask_check.h"
#include "support/random.h"
#include "support/test_context.h"

/* ---- the eight tensors ---- */

enum { NUM_TENSORS = 8, MOST_NUMBERS = 1 << 16 };

/* In the order of saccade_block_mask_tensors. */
typedef struct eight {
    int64_t shape[NUM_TENSORS][4], count[NUM_TENSORS];
    DLTensor tensor[NUM_TENSORS];
    int32_t numbers[NUM_TENSORS][MOST_NUMBERS];
} eight;

/* Their shapes, and numbers that no list holds. */
static eight *new_eight(const saccade_mask_shape *shape) {
    eight *t = malloc(sizeof *t);
    assert_non_null(t);
    memset(t->numbers, 0xa5, sizeof t->numbers);
    const int64_t rows = (shape->q_len + shape->q_block - 1) / shape->q_block;
    const int64_t columns = (shape->kv_len + shape->kv_block - 1) / shape->kv_block;
    for (int i = 0; i < NUM_TENSORS; i++) {
        const bool by_key = i >= NUM_TENSORS / 2, has_columns = i % 2;
        const int64_t extents[] = {shape->batch, shape->num_heads, by_key ? columns : rows,
                                   by_key ? rows : columns};
        memcpy(t->shape[i], extents, sizeof extents);
        t->count[i] = extents[0] * extents[1] * extents[2] * (has_columns ? extents[3] : 1);
        assert_true(t->count[i] <= MOST_NUMBERS);
        t->tensor[i] = (DLTensor){.data = t->numbers[i],
                                  .device = {kDLCPU, 0},
                                  .ndim = has_columns ? 4 : 3,
                                  .dtype = SACCADE_I32,
                                  .shape = t->shape[i]};
    }
    return t;
}

static saccade_block_mask_tensors named(eight *t) {
    DLTensor *x = t->tensor;
    return (saccade_block_mask_tensors){&x[0], &x[1], &x[2], &x[3], &x[4], &x[5], &x[6], &x[7]};
}

static saccade_block_mask_tensors keys_of_queries(eight *t) {
    DLTensor *x = t->tensor;
    return (saccade_block_mask_tensors){&x[0], &x[1], &x[2], &x[3], NULL, NULL, NULL, NULL};
}

/* ---- on a GPU ---- */

static const test_device *gpu;

static eight *uploaded(const eight *host) {
    eight *device = malloc(sizeof *device);
    assert_non_null(device);
    memcpy(device, host, sizeof *device);
    for (int i = 0; i < NUM_TENSORS; i++) {
        device->tensor[i].shape = device->shape[i];
        device->tensor[i].device = gpu->device;
        device->tensor[i].data = gpu->alloc(sizeof host->numbers[i]);
        assert_non_null(device->tensor[i].data);
        gpu->upload(device->tensor[i].data, host->numbers[i], sizeof host->numbers[i]);
    }
    return device;
}

static void free_uploaded(eight *device) {
    for (int i = 0; i < NUM_TENSORS; i++) gpu->free(device->tensor[i].data);
    free(device);
}

static saccade_device_mask_params params_for(const saccade_mask_shape *shape) {
    saccade_device_mask_params p = {.shape = *shape, .device = gpu->device};
    must(saccade_device_mask_bytes(ctx, &p, &p.memory_bytes));
    p.memory = gpu->alloc(p.memory_bytes);
    assert_non_null(p.memory);
    return p;
}

/* Fails unless the device writes of `mask` what the host wrote of the like of it, and nothing behind it. */
static void exports_what_the_host_exports(const saccade_block_mask *mask, const saccade_mask_shape *shape,
                                          const eight *expected) {
    eight *blank = new_eight(shape), *device = uploaded(blank);
    const saccade_block_mask_tensors tensors = named(device);
    must(saccade_device_mask_export(ctx, mask, &tensors));
    must(saccade_device_mask_check(ctx, mask, NULL));
    for (int i = 0; i < NUM_TENSORS; i++) {
        gpu->download(device->numbers[i], device->tensor[i].data, sizeof device->numbers[i]);
        for (int64_t n = 0; n < MOST_NUMBERS; n++)
            if (device->numbers[i][n] != expected->numbers[i][n])
                fail_msg("%s: number %lld of tensor %d is %d, on the host %d", shape_text(shape),
                         (long long)n, i, device->numbers[i][n], expected->numbers[i][n]);
    }
    free_uploaded(device);
    free(blank);
}

/* What the host exports of a mask, which is destroyed. */
static eight *exported(saccade_block_mask *mask, const saccade_mask_shape *shape) {
    eight *t = new_eight(shape);
    const saccade_block_mask_tensors tensors = named(t);
    must(saccade_block_mask_export(mask, &tensors));
    saccade_block_mask_destroy(mask);
    return t;
}

static const saccade_mask_shape shapes[] = {
    {.batch = 1, .num_heads = 1, .q_len = 33, .kv_len = 130, .q_block = 16, .kv_block = 8},
    {.batch = 2, .num_heads = 3, .q_len = 96, .kv_len = 384, .q_block = 32, .kv_block = 16},
    {.batch = 1, .num_heads = 2, .q_len = 700, .kv_len = 700, .q_block = 7, .kv_block = 7},
    {.batch = 2, .num_heads = 1, .q_len = 0, .kv_len = 64, .q_block = 16, .kv_block = 16},
};
enum { NUM_SHAPES = sizeof shapes / sizeof *shapes };

static void bands_are_exported_as_on_the_host(void **state) {
    (void)state;
    gpu = test_gpu();
    for (size_t i = 0; i < NUM_SHAPES; i++) {
        saccade_block_mask *host, *device;
        saccade_device_mask_params p = params_for(&shapes[i]);
        must(saccade_block_mask_window(ctx, &host, &shapes[i], 90, 5, true));
        must(saccade_device_mask_window(ctx, &device, &p, 90, 5, true));
        eight *expected = exported(host, &shapes[i]);
        exports_what_the_host_exports(device, &shapes[i], expected);
        saccade_block_mask_destroy(device);
        gpu->free(p.memory);
        free(expected);
    }
}

static void diagonal_blocks_are_exported_as_partial(void **state) {
    (void)state;
    gpu = test_gpu();
    saccade_block_mask *host, *device;
    saccade_device_mask_params p = params_for(&shapes[1]);
    must(saccade_block_mask_eagle3(ctx, &host, &shapes[1], NULL));
    must(saccade_device_mask_eagle3(ctx, &device, &p, NULL));
    eight *expected = exported(host, &shapes[1]);
    exports_what_the_host_exports(device, &shapes[1], expected);
    saccade_block_mask_destroy(device);
    gpu->free(p.memory);
    free(expected);
}

/* Each row's listed blocks in another order. */
static void shuffle_rows(eight *t, test_random *random) {
    for (int list = 0; list < NUM_TENSORS / 2; list += 2)
        for (int64_t row = 0; row < t->count[list]; row++) {
            int32_t *indices = t->numbers[list + 1] + row * t->shape[list + 1][3];
            for (int32_t i = t->numbers[list][row] - 1; i > 0; i--) {
                const int32_t j = random_below(random, i + 1), moved = indices[i];
                indices[i] = indices[j];
                indices[j] = moved;
            }
        }
}

static void imported_lists_are_exported_again(void **state) {
    (void)state;
    gpu = test_gpu();
    test_random random = {7};
    for (size_t i = 0; i < NUM_SHAPES; i++) {
        saccade_block_mask *window, *host, *device;
        must(saccade_block_mask_window(ctx, &window, &shapes[i], 50, 20, false));
        eight *given = exported(window, &shapes[i]);
        const saccade_block_mask_tensors on_host = named(given);
        must(saccade_block_mask_import(ctx, &host, &shapes[i], &on_host));
        eight *expected = exported(host, &shapes[i]);
        shuffle_rows(given, &random);
        eight *shuffled = uploaded(given);
        const saccade_block_mask_tensors on_device = keys_of_queries(shuffled);
        saccade_device_mask_params p = params_for(&shapes[i]);
        must(saccade_device_mask_import(ctx, &device, &p, &on_device));
        exports_what_the_host_exports(device, &shapes[i], expected);
        saccade_block_mask_destroy(device);
        free_uploaded(shuffled);
        gpu->free(p.memory);
        free(given);
        free(expected);
    }
}

/* Imports lists of one row, (2, 3) blocks, in which `counts` and `indices` stand. */
static void import_says(int32_t partial_count, int32_t full_count, const int32_t *partial,
                        const int32_t *full, const char *words) {
    const saccade_mask_shape shape = {
        .batch = 1, .num_heads = 1, .q_len = 16, .kv_len = 48, .q_block = 16, .kv_block = 16};
    eight *host = new_eight(&shape);
    host->numbers[0][0] = partial_count;
    host->numbers[2][0] = full_count;
    memcpy(host->numbers[1], partial, 3 * sizeof *partial);
    memcpy(host->numbers[3], full, 3 * sizeof *full);
    eight *device = uploaded(host);
    const saccade_block_mask_tensors tensors = keys_of_queries(device);
    saccade_device_mask_params p = params_for(&shape);
    saccade_block_mask *mask;
    must(saccade_device_mask_import(ctx, &mask, &p, &tensors));
    assert_refused(saccade_device_mask_check(ctx, mask, NULL), SACCADE_INVALID_ARGUMENT, words);
    saccade_block_mask_destroy(mask);
    gpu->free(p.memory);
    free_uploaded(device);
    free(host);
}

static void lists_that_are_wrong_are_found_on_the_device(void **state) {
    (void)state;
    gpu = test_gpu();
    const int32_t fine[] = {0, 2, 1}, beyond[] = {3, 0, 1}, negative[] = {0, -1, 1}, twice[] = {1, 1, 0};
    import_says(4, 0, fine, fine, "[0, 0, 0]: a row has 0 to 3 blocks");
    import_says(1, -1, fine, fine, "[0, 0, 0]: a row has 0 to 3 blocks");
    import_says(1, 0, beyond, fine, "blocks are numbered 0 to 2");
    import_says(0, 2, fine, negative, "blocks are numbered 0 to 2");
    import_says(2, 0, twice, fine, "none occurs twice");
    import_says(1, 1, fine, fine, "none occurs twice");
}

/* ---- refusals that need no GPU ---- */

static void arguments_are_checked_before_the_device_is_touched(void **state) {
    (void)state;
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    const saccade_device_mask_params p = {.shape = shapes[0], .device = {kDLCUDA, 0}};
    eight *t = new_eight(&shapes[0]);
    saccade_block_mask *mask = NULL, *host;
    saccade_block_mask_tensors tensors = keys_of_queries(t);
    assert_refused(saccade_device_mask_import(ctx, &mask, &p, NULL), bad, "tensors: is NULL");
    assert_refused(saccade_device_mask_import(ctx, &mask, &p, &tensors), bad,
                   "kv_num_blocks: is on device cpu:0, expected cuda:0");
    for (int i = 0; i < NUM_TENSORS; i++) t->tensor[i].device = p.device;
    assert_refused(saccade_device_mask_import(ctx, &mask, &p, &tensors), bad, "params.memory: is NULL");
    tensors = named(t);
    assert_refused(saccade_device_mask_import(ctx, &mask, &p, &tensors), bad, "leave the q_ ones NULL");
    tensors = keys_of_queries(t);
    tensors.full_kv_indices = NULL;
    assert_refused(saccade_device_mask_import(ctx, &mask, &p, &tensors), bad,
                   "full_kv_indices: is NULL, but full_kv_num_blocks is given");
    t->shape[0][2] = 4;
    assert_refused(saccade_device_mask_import(ctx, &mask, &p, &tensors), bad,
                   "kv_num_blocks: shape[2] is 4, but the mask has 3");
    must(saccade_block_mask_causal(ctx, &host, &shapes[0], false));
    assert_refused(saccade_device_mask_export(ctx, host, &tensors), bad, "its lists lie on the host");
    assert_null(mask);
    saccade_block_mask_destroy(host);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_are_checked_before_the_device_is_touched),
        cmocka_unit_test(bands_are_exported_as_on_the_host),
        cmocka_unit_test(diagonal_blocks_are_exported_as_partial),
        cmocka_unit_test(imported_lists_are_exported_again),
        cmocka_unit_test(lists_that_are_wrong_are_found_on_the_device),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
