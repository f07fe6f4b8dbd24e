/* test_cuda_masks.c - block masks built on a device. On a GPU their lists are held against those of the host's
 * builders, bit for bit; without one, the rows that the kernels loop over are, every kernel compiles for every
 * architecture (skipped without NVRTC), and refusals are heard. */
#include <saccade/attention.h>
#include <saccade/device_mask.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/mask_lists.h"
#include "mask/block_mask.h"
#include "support/attention_suite.h"
#include "support/cmocka_all.h"
#include "support/cuda_graph.h"
#include "support/device.h"
#include "support/mask_check.h"
#include "support/random.h"
#include "support/test_context.h"

/* ---- the rows that kernels loop over, on the host ---- */

/* Fails unless the candidates of each row that are listed are the host mask's. */
static void candidates_are(const sac_mask_args *args, const saccade_block_mask *mask) {
    int64_t rows = (int64_t)mask->list_batch * mask->list_heads * mask->num_q_blocks;
    for (int64_t r = 0; r < rows; r++) {
        sac_listed_row row = sac_listed_row_of(args, r);
        int64_t at = mask->row_offsets[r];
        for (int32_t i = 0; i < row.candidates; i++) {
            int32_t entry = sac_mask_candidate(args, &row, i);
            if (!entry) continue;
            if (at == mask->row_offsets[r + 1] || entry != mask->row_entries[at])
                fail_msg("%s, source %d, row %lld: candidate %d is %#x, the host lists %#x",
                         shape_text(&mask->shape), args->source, (long long)r, i, entry,
                         at == mask->row_offsets[r + 1] ? 0 : mask->row_entries[at]);
            at++;
        }
        assert_int_equal(at, mask->row_offsets[r + 1]);
    }
}

static sac_mask_args args_like(const saccade_block_mask *mask, sac_mask_source source) {
    return (sac_mask_args){.source = (int32_t)source,
                           .batch = mask->list_batch,
                           .num_heads = mask->list_heads,
                           .rows = mask->num_q_blocks,
                           .columns = mask->num_kv_blocks,
                           .q_len = mask->shape.q_len,
                           .kv_len = mask->shape.kv_len,
                           .q_block = mask->shape.q_block,
                           .kv_block = mask->shape.kv_block};
}

static void candidates_of_bands_are_what_the_host_lists(void **state) {
    (void)state;
    static const int32_t lengths[] = {1, 33, 96, 130}, blocks[][2] = {{16, 16}, {32, 8}, {5, 7}, {1, 1}};
    for (size_t i = 0; i < 4 * 4 * 4; i++)
        for (int32_t left = -1; left < 40; left += 13) {
            saccade_mask_shape shape = {.q_len = lengths[i % 4],
                                        .kv_len = lengths[i / 4 % 4],
                                        .q_block = blocks[i / 16][0],
                                        .kv_block = blocks[i / 16][1]};
            saccade_block_mask *mask;
            must(saccade_block_mask_window(ctx, &mask, &shape, left, 9, true));
            sac_mask_args args = args_like(mask, SAC_MASK_BAND);
            sac_band_rule rule = {.window_left = left, .window_right = 9, .window_align = SAC_BOTTOM_RIGHT};
            args.band = sac_band_make(&rule, shape.q_len, shape.kv_len);
            candidates_are(&args, mask);
            saccade_block_mask_destroy(mask);
        }
}

static void candidates_of_eagle3_are_what_the_host_lists(void **state) {
    (void)state;
    static const int32_t blocks[][2] = {{16, 16}, {32, 8}, {8, 1}, {1, 1}};
    int32_t values[] = {96, 70, 0, 96, 200}; /* q_len, lengths */
    for (size_t i = 0; i < 4; i++)
        for (int32_t rounds = 1; rounds <= 5; rounds += 2) {
            saccade_mask_shape shape = {.batch = 4,
                                        .q_len = 96,
                                        .kv_len = 96 * rounds,
                                        .q_block = blocks[i][0],
                                        .kv_block = blocks[i][1]};
            saccade_block_mask *mask;
            must(saccade_block_mask_eagle3(ctx, &mask, &shape, values + 1));
            sac_mask_args args = args_like(mask, SAC_MASK_EAGLE3);
            args.values = values;
            candidates_are(&args, mask);
            saccade_block_mask_destroy(mask);
        }
}

/* ---- compilation ---- */

static void every_kernel_compiles_without_spills(void **state) {
    static const char *const architectures[] = {"sm_80", "sm_90a", "sm_100", "sm_120"};
    (void)state;
    skip_without_compiler();
    for (int k = 0; k < SAC_NUM_MASK_KERNELS; k++)
        for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++) {
            sac_kernel_spec spec = sac_mask_kernels[k];
            void *cubin = NULL;
            size_t size;
            char *log = NULL;
            if (k == SAC_MASK_CLASSIFY)
                spec.modifiers = "#include \"shared/types.h\"\n#include \"saccade/modifier_text.h\"\n"
                                 "SACCADE_TEXT_FN bool sac_mask_mod(int b, int h, int q_idx, int kv_idx, "
                                 "const saccade_aux *aux) { return q_idx >= kv_idx; }\n";
            if (sac_kernel_compile(&spec, architectures[i], &cubin, &size, &log) != SACCADE_OK)
                fail_msg("%s, %s: %s", spec.entry, architectures[i], saccade_last_error());
            if (!strstr(log, "0 bytes spill stores"))
                fail_msg("%s, %s: %s", spec.entry, architectures[i], log);
            free(log);
            free(cubin);
        }
}

/* ---- refusals that need no GPU ---- */

static void arguments_are_checked_before_the_device_is_touched(void **state) {
    (void)state;
    saccade_device_mask_params good_params = {.shape = {.q_len = 512, .kv_len = 512}, .device = {kDLCUDA, 0}},
                               p = good_params;
    saccade_block_mask *mask = NULL;
    size_t bytes;
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    must(saccade_device_mask_bytes(ctx, &p, &bytes));
    assert_true(bytes >= 2 * 16 * sizeof(int32_t));
    assert_refused(saccade_device_mask_causal(ctx, &mask, NULL, false), bad, "params: is NULL");
    assert_refused(saccade_device_mask_causal(ctx, &mask, &p, false), bad, "params.memory: is NULL");
    p.memory = (void *)128;
    assert_refused(saccade_device_mask_causal(ctx, &mask, &p, false), bad, "256 bytes");
    p.memory = (void *)256, p.memory_bytes = 512;
    assert_refused(saccade_device_mask_causal(ctx, &mask, &p, false), bad, "params.memory_bytes: 512, but");
    assert_refused(saccade_device_mask_window(ctx, &mask, &p, -2, 0, false), bad, "left: -2");
    assert_refused(saccade_device_mask_from_mod(ctx, &mask, &p, NULL), bad, "mask_mod: is NULL");
    p = good_params, p.capacity = -1;
    assert_refused(saccade_device_mask_bytes(ctx, &p, &bytes), bad, "params.capacity: -1");
    p = good_params, p.device = (DLDevice){kDLCPU, 0};
    assert_refused(saccade_device_mask_bytes(ctx, &p, &bytes), bad, "params.device: type 1");
    p = good_params, p.shape.q_len = -1;
    assert_refused(saccade_device_mask_bytes(ctx, &p, &bytes), bad, "shape.q_len: -1");
    p = good_params, p.shape.kv_len = 100;
    int32_t values[4] = {0};
    const DLDevice gpu = {kDLCUDA, 0};
    assert_refused(
        saccade_device_mask_documents(ctx, &mask, &p, SACCADE_TENSOR_ON(gpu, values, SACCADE_I32, 4)), bad,
        "q_len 512 and kv_len 100");
    p = good_params;
    assert_refused(saccade_device_mask_documents(ctx, &mask, &p, SACCADE_TENSOR(values, SACCADE_I32, 4)), bad,
                   "cu_seqlens: is on device cpu:0, expected cuda:0");
    assert_refused(saccade_device_mask_eagle3(ctx, &mask, &p, SACCADE_TENSOR_ON(gpu, values, SACCADE_I32, 4)),
                   bad, "lengths: shape[0] is 4, but the mask has 1");
    assert_refused(saccade_device_mask_from_indices(
                       ctx, &mask, &p, SACCADE_TENSOR_ON(gpu, values, SACCADE_I32, 1, 1, 2, 2), SACCADE_FULL),
                   bad, "indices: shape[2] is 2, but the mask has 4");
    assert_null(mask);
}

static void what_reads_lists_on_the_host_refuses_those_on_a_device(void **state) {
    (void)state;
    saccade_mask_shape shape = {.q_len = 256, .kv_len = 256};
    saccade_block_mask *mask, *host, *result = NULL;
    saccade_block_mask_info info;
    const saccade_status bad = SACCADE_INVALID_ARGUMENT;
    bool visible;
    must(sac_mask_new(ctx, &mask, &shape)); /* as a builder on a device leaves it */
    mask->device = (DLDevice){kDLCUDA, 1};
    mask->count[SACCADE_FULL] = -1;
    must(saccade_block_mask_causal(ctx, &host, &shape, false));
    assert_refused(saccade_block_mask_and(ctx, &result, mask, host), bad,
                   "a: its lists lie on device cuda:1");
    assert_refused(saccade_block_mask_or(ctx, &result, host, mask), bad, "b: its lists lie on device cuda:1");
    assert_refused(saccade_block_mask_not(ctx, &result, mask), bad, "a: its lists lie on device cuda:1");
    assert_refused(saccade_block_mask_visible(ctx, mask, 0, 0, 0, 0, &visible), bad, "cannot read");
    assert_refused(saccade_block_mask_export(mask, &(saccade_block_mask_tensors){0}), bad, "cannot export");
    assert_refused(saccade_device_mask_check(ctx, host, &info), bad, "on the host");
    assert_int_equal(saccade_block_mask_kind(mask, 0, 0, 0, 0), -1);
    saccade_block_mask_get_info(mask, &info);
    assert_int_equal(info.full, -1);

    static float q[256 * 8], out[256 * 8];
    const DLTensor *t = SACCADE_TENSOR(q, SACCADE_F32, 1, 256, 1, 8);
    assert_refused(saccade_attention_forward(ctx, t, t, t, SACCADE_TENSOR(out, SACCADE_F32, 1, 256, 1, 8),
                                             NULL, &(saccade_attention_params){.block_mask = mask}),
                   bad, "lists lie on device cuda:1, but the call is on cpu:0");
    saccade_block_mask_destroy(host);
    saccade_block_mask_destroy(mask);
}

/* ---- on a GPU ---- */

static const test_device *gpu;

/* Memory as a builder wants it, full of what no list holds. */
static saccade_device_mask_params params_for(const saccade_mask_shape *shape, int64_t capacity) {
    saccade_device_mask_params p = {.shape = *shape, .device = gpu->device, .capacity = capacity};
    must(saccade_device_mask_bytes(ctx, &p, &p.memory_bytes));
    char *poison = malloc(p.memory_bytes);
    assert_non_null(poison);
    memset(poison, 0xa5, p.memory_bytes);
    p.memory = test_device_copy(gpu, poison, p.memory_bytes);
    free(poison);
    return p;
}

static void same_numbers(const char *what, const saccade_mask_shape *shape, const void *on_device,
                         const void *expected, int64_t count, size_t size) {
    char *found = malloc((size_t)count * size + 1);
    assert_non_null(found);
    gpu->download(found, on_device, (size_t)count * size);
    for (int64_t i = 0; i < count; i++)
        if (memcmp(found + (size_t)i * size, (const char *)expected + (size_t)i * size, size) != 0) {
            int64_t a = 0, b = 0;
            memcpy(&a, found + (size_t)i * size, size);
            memcpy(&b, (const char *)expected + (size_t)i * size, size);
            fail_msg("%s: %s[%lld] is %#llx, on the host %#llx", shape_text(shape), what, (long long)i,
                     (long long)a, (long long)b);
        }
    free(found);
}

/* Fails unless the device's lists are the host's. Destroys neither. */
static void lists_agree(const saccade_block_mask *device, const saccade_block_mask *host) {
    saccade_block_mask_info found, expected;
    must(saccade_device_mask_check(ctx, device, &found));
    saccade_block_mask_get_info(host, &expected);
    int64_t heads = (int64_t)host->list_batch * host->list_heads, rows = heads * host->num_q_blocks;
    int64_t columns = heads * host->num_kv_blocks, entries = host->row_offsets[rows];
    assert_int_equal(device->list_batch, host->list_batch);
    assert_int_equal(device->list_heads, host->list_heads);
    const saccade_mask_shape *shape = &host->shape;
    same_numbers("row_offsets", shape, device->row_offsets, host->row_offsets, rows + 1, sizeof(int64_t));
    same_numbers("row_entries", shape, device->row_entries, host->row_entries, entries, sizeof(int32_t));
    same_numbers("col_offsets", shape, device->col_offsets, host->col_offsets, columns + 1, sizeof(int64_t));
    same_numbers("col_entries", shape, device->col_entries, host->col_entries, entries, sizeof(int32_t));
    assert_int_equal(found.full, expected.full);
    assert_int_equal(found.partial, expected.partial);
    assert_int_equal(found.diagonal, expected.diagonal);
    if (expected.diagonal) assert_int_equal(found.period, expected.period);
}

static void compare_and_destroy(saccade_block_mask *device, saccade_block_mask *host,
                                saccade_device_mask_params *p) {
    lists_agree(device, host);
    saccade_block_mask_destroy(device);
    saccade_block_mask_destroy(host);
    gpu->free(p->memory);
}

static const saccade_mask_shape shapes[] = {
    {.q_len = 1, .kv_len = 1},
    {.q_len = 33, .kv_len = 130, .q_block = 16, .kv_block = 8},
    {.q_len = 700, .kv_len = 700, .q_block = 7, .kv_block = 5},
    {.q_len = 300, .kv_len = 300, .q_block = 1, .kv_block = 1},
    {.q_len = 8192, .kv_len = 8192},
    {.q_len = 5000, .kv_len = 20000, .q_block = 64, .kv_block = 32},
    {.q_len = 0, .kv_len = 64},
    {.q_len = 64, .kv_len = 0},
};
enum { NUM_SHAPES = sizeof shapes / sizeof *shapes };

static void windows_on_the_device_are_the_hosts(void **state) {
    (void)state;
    gpu = test_gpu();
    for (size_t i = 0; i < NUM_SHAPES; i++)
        for (int32_t left = -1; left < 600; left += 299) {
            saccade_block_mask *device, *host;
            saccade_device_mask_params p = params_for(&shapes[i], 0);
            must(saccade_device_mask_window(ctx, &device, &p, left, 5, i % 2));
            must(saccade_block_mask_window(ctx, &host, &shapes[i], left, 5, i % 2));
            compare_and_destroy(device, host, &p);
            p = params_for(&shapes[i], 0);
            must(saccade_device_mask_causal(ctx, &device, &p, left > 0));
            must(saccade_block_mask_causal(ctx, &host, &shapes[i], left > 0));
            compare_and_destroy(device, host, &p);
        }
}

static void documents_on_the_device_are_the_hosts(void **state) {
    (void)state;
    gpu = test_gpu();
    test_random random = {1};
    for (size_t i = 0; i < NUM_SHAPES; i++) {
        saccade_mask_shape shape = shapes[i];
        shape.kv_len = shape.q_len;
        int32_t lengths[40], starts[41] = {0};
        for (int d = 0; d < 40; d++) {
            int32_t left = shape.q_len - starts[d];
            lengths[d] = d == 39 ? left : d % 7 == 3 ? 0 : random_below(&random, left / 3 + 1);
            starts[d + 1] = starts[d] + lengths[d];
        }
        saccade_block_mask *device, *host;
        saccade_device_mask_params p = params_for(&shape, 0);
        void *cu_seqlens = test_device_copy(gpu, starts, sizeof starts);
        must(saccade_device_mask_documents(ctx, &device, &p,
                                           SACCADE_TENSOR_ON(gpu->device, cu_seqlens, SACCADE_I32, 41)));
        must(saccade_block_mask_documents(ctx, &host, &shape, lengths, 40));
        same_numbers("keys", &shape, device->aux.tensor[0].data, host->aux.tensor[0].data, 2 * shape.q_len,
                     sizeof(int32_t));
        compare_and_destroy(device, host, &p);
        gpu->free(cu_seqlens);
    }
}

static void eagle3_on_the_device_is_the_hosts(void **state) {
    (void)state;
    gpu = test_gpu();
    static const saccade_mask_shape trained[] = {
        {.batch = 3, .q_len = 2048, .kv_len = 5 * 2048},
        {.batch = 3, .q_len = 256, .kv_len = 3 * 256, .q_block = 64, .kv_block = 32},
        {.batch = 3, .q_len = 100, .kv_len = 300, .q_block = 16, .kv_block = 16}, /* by asking */
        {.batch = 3, .q_len = 40, .kv_len = 80, .q_block = 1, .kv_block = 1}};
    const int32_t lengths[] = {0, 70, 5000};
    for (size_t i = 0; i < sizeof trained / sizeof *trained; i++)
        for (int bounded = 0; bounded < 2; bounded++) {
            saccade_block_mask *device, *host;
            saccade_device_mask_params p = params_for(&trained[i], 0);
            void *bounds = test_device_copy(gpu, lengths, sizeof lengths);
            const DLTensor *tensor = SACCADE_TENSOR_ON(gpu->device, bounds, SACCADE_I32, 3);
            must(saccade_device_mask_eagle3(ctx, &device, &p, bounded ? tensor : NULL));
            must(saccade_block_mask_eagle3(ctx, &host, &trained[i], bounded ? lengths : NULL));
            compare_and_destroy(device, host, &p);
            gpu->free(bounds);
        }
}

static void chosen_blocks_on_the_device_are_the_hosts(void **state) {
    (void)state;
    gpu = test_gpu();
    enum { B = 2, H = 3, ROWS = 70, COLUMNS = 200, TOP_K = 45 };
    static int32_t chosen[B][H][ROWS][TOP_K];
    test_random random = {2};
    for (int r = 0; r < B * H * ROWS; r++)
        for (int i = 0, next = 0; i < TOP_K; i++) {
            bool none = random_below(&random, 3) == 0;
            next += random_below(&random, 4);
            (&chosen[0][0][0][0])[r * TOP_K + i] = none || next >= COLUMNS ? -1 : next++;
        }
    saccade_mask_shape shape = {.batch = B,
                                .num_heads = H,
                                .q_len = ROWS * 16,
                                .kv_len = COLUMNS * 64,
                                .q_block = 16,
                                .kv_block = 64};
    void *indices = test_device_copy(gpu, chosen, sizeof chosen);
    saccade_block_mask *device, *host;
    saccade_device_mask_params p = params_for(&shape, B * H * ROWS * TOP_K);
    must(saccade_device_mask_from_indices(
        ctx, &device, &p, SACCADE_TENSOR_ON(gpu->device, indices, SACCADE_I32, B, H, ROWS, TOP_K),
        SACCADE_FULL));
    must(saccade_block_mask_from_indices(
        ctx, &host, &shape, SACCADE_TENSOR(chosen, SACCADE_I32, B, H, ROWS, TOP_K), SACCADE_FULL));
    compare_and_destroy(device, host, &p);
    gpu->free(indices);
}

static void classification_on_the_device_is_the_hosts(void **state) {
    (void)state;
    gpu = test_gpu();
    int32_t group[8192];
    for (int i = 0; i < 8192; i++) group[i] = i / 700;
    saccade_modifier *modifier;
    must(saccade_modifier_create(
        ctx, &modifier,
        &(saccade_modifier_params){
            .kind = SACCADE_MASK_KIND,
            .text = "q_idx >= kv_idx && aux_i32(group, q_idx) - aux_i32(group, kv_idx) <= h + b",
            .num_aux = 1,
            .aux = (saccade_aux_decl[]){{.name = "group", .dtype = SACCADE_I32}}}));
    void *on_device = test_device_copy(gpu, group, sizeof group);
    for (size_t i = 0; i < NUM_SHAPES; i++) {
        saccade_mask_shape shape = shapes[i];
        shape.kv_len = shape.q_len;
        shape.batch = 2, shape.num_heads = 2;
        saccade_block_mask *device, *host;
        saccade_device_mask_params p = params_for(&shape, 0);
        must(saccade_device_mask_from_mod(
            ctx, &device, &p,
            &(saccade_bound_modifier){
                modifier, (const DLTensor *[]){SACCADE_TENSOR_ON(gpu->device, on_device, SACCADE_I32, 8192)},
                NULL}));
        must(saccade_block_mask_from_mod(
            ctx, &host, &shape,
            &(saccade_bound_modifier){modifier,
                                      (const DLTensor *[]){SACCADE_TENSOR(group, SACCADE_I32, 8192)}, NULL}));
        compare_and_destroy(device, host, &p);
    }
    gpu->free(on_device);
    saccade_modifier_destroy(modifier);
}

/* What is wrong is known to the device alone: the mask lists nothing, and check says why. */
static void a_mask_that_is_wrong_lists_nothing_and_says_why(void **state) {
    (void)state;
    gpu = test_gpu();
    saccade_mask_shape shape = {.q_len = 512, .kv_len = 512};
    const int32_t starts[] = {0, 300, 200, 512}, chosen[4][2] = {{0, 1}, {-1, 3}, {2, 2}, {0, 4}},
                  length = -5;
    void *cu_seqlens = test_device_copy(gpu, starts, sizeof starts),
         *indices = test_device_copy(gpu, chosen, sizeof chosen),
         *lengths = test_device_copy(gpu, &length, sizeof length);
    static const char *const words[] = {"params.capacity: is below the 10 blocks", "cu_seqlens[2]",
                                        "indices[0, 0, 3]", "lengths[0]"};
    for (int i = 0; i < 4; i++) {
        saccade_device_mask_params p = params_for(&shape, i == 0 ? 9 : 0);
        saccade_block_mask *mask;
        if (i == 0) must(saccade_device_mask_causal(ctx, &mask, &p, false));
        if (i == 1)
            must(saccade_device_mask_documents(ctx, &mask, &p,
                                               SACCADE_TENSOR_ON(gpu->device, cu_seqlens, SACCADE_I32, 4)));
        if (i == 2)
            must(saccade_device_mask_from_indices(
                ctx, &mask, &p, SACCADE_TENSOR_ON(gpu->device, indices, SACCADE_I32, 1, 1, 4, 2),
                SACCADE_PARTIAL));
        if (i == 3)
            must(saccade_device_mask_eagle3(ctx, &mask, &p,
                                            SACCADE_TENSOR_ON(gpu->device, lengths, SACCADE_I32, 1)));
        assert_refused(saccade_device_mask_check(ctx, mask, NULL), SACCADE_INVALID_ARGUMENT, words[i]);
        const int64_t none[5] = {0};
        same_numbers("row_offsets", &shape, mask->row_offsets, none, 5, sizeof *none);
        same_numbers("col_offsets", &shape, mask->col_offsets, none, 5, sizeof *none);
        saccade_block_mask_destroy(mask);
        gpu->free(p.memory);
    }
    gpu->free(cu_seqlens);
    gpu->free(indices);
    gpu->free(lengths);
}

/* Attention of 1024 tokens of head dimension 64 under the mask; out is the caller's to free. */
static float *attend(const void *q, const saccade_block_mask *mask) {
    enum { TOKENS = 1024, HEAD_DIM = 64 };
    size_t bytes = sizeof(float) * TOKENS * HEAD_DIM;
    void *on_device = gpu->alloc(bytes);
    float *out = malloc(bytes);
    assert_non_null(out);
    const DLTensor *t = SACCADE_TENSOR_ON(gpu->device, q, SACCADE_F32, 1, TOKENS, 1, HEAD_DIM);
    must(saccade_attention_forward(
        ctx, t, t, t, SACCADE_TENSOR_ON(gpu->device, on_device, SACCADE_F32, 1, TOKENS, 1, HEAD_DIM), NULL,
        &(saccade_attention_params){.block_mask = mask}));
    gpu->download(out, on_device, bytes);
    gpu->free(on_device);
    return out;
}

static void attention_is_the_same_wherever_the_mask_was_built(void **state) {
    (void)state;
    gpu = test_gpu();
    static float values[1024 * 64];
    test_random random = {3};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) values[i] = (float)random_normal(&random);
    void *q = test_device_copy(gpu, values, sizeof values);
    saccade_mask_shape shape = {.q_len = 1024, .kv_len = 1024};
    const int32_t lengths[] = {100, 600, 324}, starts[] = {0, 100, 700, 1024};
    void *cu_seqlens = test_device_copy(gpu, starts, sizeof starts);
    saccade_device_mask_params p = params_for(&shape, 0);
    saccade_block_mask *device, *host;
    must(saccade_device_mask_documents(ctx, &device, &p,
                                       SACCADE_TENSOR_ON(gpu->device, cu_seqlens, SACCADE_I32, 4)));
    must(saccade_block_mask_documents(ctx, &host, &shape, lengths, 3));
    float *a = attend(q, device), *b = attend(q, host);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("out[%zu]: %a and %a", i, (double)a[i], (double)b[i]);
    free(a);
    free(b);
    compare_and_destroy(device, host, &p);
    gpu->free(cu_seqlens);
    gpu->free(q);
}

/* ---- in a graph ---- */

typedef struct capture {
    const saccade_device_mask_params *params;
    const DLTensor *cu_seqlens;
    saccade_block_mask *mask;
} capture;

static void build_documents(void *data) {
    capture *c = data;
    must(saccade_device_mask_documents(ctx, &c->mask, c->params, c->cu_seqlens));
}

static void replay_lists_what_the_tensor_then_holds(void **state) {
    (void)state;
    gpu = test_gpu();
    saccade_mask_shape shape = {.q_len = 1024, .kv_len = 1024};
    const int32_t lengths[2][2] = {{500, 524}, {130, 894}}, starts[2][3] = {{0, 500, 1024}, {0, 130, 1024}};
    void *cu_seqlens = test_device_copy(gpu, starts[0], sizeof starts[0]);
    saccade_device_mask_params p = params_for(&shape, 0);
    capture c = {.params = &p, .cu_seqlens = SACCADE_TENSOR_ON(gpu->device, cu_seqlens, SACCADE_I32, 3)};
    test_graph *graph = test_graph_capture(ctx, build_documents, &c);
    for (int i = 0; i < 2; i++) {
        saccade_block_mask *host;
        gpu->upload(cu_seqlens, starts[i], sizeof starts[i]);
        test_graph_replay(graph);
        must(saccade_block_mask_documents(ctx, &host, &shape, lengths[i], 2));
        lists_agree(c.mask, host);
        saccade_block_mask_destroy(host);
    }
    saccade_block_mask_destroy(c.mask);
    test_graph_free(graph);
    gpu->free(cu_seqlens);
    gpu->free(p.memory);
}

int main(void) {
    struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_of_bands_are_what_the_host_lists),
        cmocka_unit_test(candidates_of_eagle3_are_what_the_host_lists),
        cmocka_unit_test(every_kernel_compiles_without_spills),
        cmocka_unit_test(arguments_are_checked_before_the_device_is_touched),
        cmocka_unit_test(what_reads_lists_on_the_host_refuses_those_on_a_device),
        cmocka_unit_test(windows_on_the_device_are_the_hosts),
        cmocka_unit_test(documents_on_the_device_are_the_hosts),
        cmocka_unit_test(eagle3_on_the_device_is_the_hosts),
        cmocka_unit_test(chosen_blocks_on_the_device_are_the_hosts),
        cmocka_unit_test(classification_on_the_device_is_the_hosts),
        cmocka_unit_test(a_mask_that_is_wrong_lists_nothing_and_says_why),
        cmocka_unit_test(attention_is_the_same_wherever_the_mask_was_built),
        cmocka_unit_test(replay_lists_what_the_tensor_then_holds),
    };
    size_t count = test_take_shard(tests, COUNT_OF(tests));
    return _cmocka_run_group_tests("cuda_masks", tests, count, make_context, end_context);
}
