/* test_cuda_compile.c - every kernel of the portable backend for every architecture, without a GPU: that it compiles,
 * and what it costs in registers, as the assembler reports it. Needs NVRTC; says so and skips where there is none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/attn_portable.h"
#include "cuda/nsa_select.h"
#include "cuda/standard_kernels.h"
#include "mod/modifier.h"
#include "support/attention_suite.h"
#include "support/cmocka_all.h"
#include "support/device.h"

/* Bytes a lane may spill: loop invariants may wait in local memory, an accumulator must not. Beside two texts, softcap
 * and ALiBi at once, a score more or less no longer shows. */
enum { MOST_SPILLED = 224, MOST_SPILLED_WITH_TEXTS = 640 };

typedef struct target {
    const char *architecture;
    int32_t compute_capability, smem_bytes;
} target;

static const target targets[] = {{"sm_80", 80, 163 << 10},
                                 {"sm_90", 90, 227 << 10},
                                 {"sm_100", 100, 227 << 10},
                                 {"sm_120", 120, 99 << 10}};

static struct {
    const target *target;
    const char *what;
    int num_kernels;
} now;

static int spilled_bytes(const char *log) {
    const char *at = strstr(log, "bytes stack frame, ");
    return at ? atoi(at + strlen("bytes stack frame, ")) : -1;
}

/* In the place of a launch. */
static saccade_status compile(saccade_context *ctx, const sac_cuda_device *device,
                              const sac_kernel_spec *spec, int64_t num_ctas, void **params) {
    (void)ctx, (void)params;
    void *cubin = NULL;
    size_t size = 0;
    char *log = NULL;
    assert_true(num_ctas > 0);
    assert_true(spec->smem_bytes <= device->smem_bytes);
    char architecture[16];
    snprintf(architecture, sizeof architecture, "%s%s", now.target->architecture,
             spec->arch_specific ? "a" : "");
    if (sac_kernel_compile(spec, architecture, &cubin, &size, &log) != SACCADE_OK)
        fail_msg("%s, %s, %s: %s", spec->entry, architecture, now.what, saccade_last_error());
    int bytes = spilled_bytes(log);
    int most = spec->modifiers ? MOST_SPILLED_WITH_TEXTS : MOST_SPILLED;
    if (bytes < 0 || bytes > most)
        fail_msg("%s, %s, %s: %d bytes spilled, at most %d are allowed\n%s", spec->entry,
                 now.target->architecture, now.what, bytes, most, log);
    now.num_kernels++;
    free(log);
    free(cubin);
    return SACCADE_OK;
}

/* What a variant has beside its dtype and head dimensions. */
typedef struct features {
    const char *name;
    bool softcap, alibi, score_mod, mask_mod, block_mask, shared_lists, deterministic, unaligned, split,
        few_rows;
} features;

static const features plain = {.name = "plain"};
static const features everything = {.name = "everything",
                                    .softcap = true,
                                    .alibi = true,
                                    .score_mod = true,
                                    .mask_mod = true,
                                    .block_mask = true,
                                    .split = true};
static const features few_rows = {.name = "few rows",
                                  .softcap = true,
                                  .alibi = true,
                                  .score_mod = true,
                                  .mask_mod = true,
                                  .few_rows = true};
/* Blocks of 16 queries, each for those that chose it; four heads fill a tile. */
static const features shared_lists = {.name = "shared lists", .block_mask = true, .shared_lists = true};
static const features deterministic = {.name = "deterministic", .deterministic = true};
static const features unaligned = {.name = "unaligned", .unaligned = true};

static char *modifier_text(const features *f) {
    saccade_context *ctx;
    saccade_modifier *score, *mask;
    char *score_text = NULL, *mask_text = NULL, *text = NULL;
    if (!f->score_mod) return NULL;
    assert_int_equal(saccade_context_create(&ctx, NULL), SACCADE_OK);
    saccade_modifier_params s = {.kind = SACCADE_SCORE_KIND,
                                 .text = "score + aux_f32(0, kv_idx)",
                                 .grad_text = "{ aux_grad(0, kv_idx, grad); return grad; }",
                                 .num_aux = 1,
                                 .aux = (saccade_aux_decl[]){{.name = "bias", .dtype = SACCADE_F32}}};
    saccade_modifier_params m = {.kind = SACCADE_MASK_KIND,
                                 .text = "q_idx >= kv_idx || kv_idx < scalar(0)",
                                 .num_scalars = 1,
                                 .scalars = (const char *[]){"prefix"}};
    assert_int_equal(saccade_modifier_create(ctx, &score, &s), SACCADE_OK);
    assert_int_equal(saccade_modifier_create(ctx, &mask, &m), SACCADE_OK);
    assert_int_equal(sac_modifier_device_text(score, &score_text), SACCADE_OK);
    assert_int_equal(sac_modifier_device_text(mask, &mask_text), SACCADE_OK);
    assert_true(asprintf(&text, "%s%s", score_text, mask_text) > 0);
    free(score_text);
    free(mask_text);
    saccade_modifier_destroy(score);
    saccade_modifier_destroy(mask);
    saccade_context_destroy(ctx);
    return text;
}

static sac_attention_call call_of(sac_dtype dtype, int32_t head_dim, int32_t head_dim_v, const features *f) {
    static char memory[128] __attribute__((aligned(64)));
    const int32_t seqlen_q = f->few_rows ? 8 : f->split ? 64 : 4096;
    sac_attention_call call =
        sac_call_to_compile(dtype, head_dim, head_dim_v, seqlen_q, 4, memory + (f->unaligned ? 2 : 0));
    sac_attention_args *args = &call.args;
    args->softcap = f->softcap ? 30 : 0;
    args->deterministic = f->deterministic;
    args->has_score_mod = f->score_mod;
    args->has_mask_mod = f->mask_mod;
    if (f->alibi) args->alibi_slopes = (const float *)memory;
    if (f->score_mod) args->sink = args->dsink = (float *)memory;
    if (f->block_mask)
        args->blocks = (sac_block_mask_args){
            .by_query.offsets = (const int64_t *)memory, .q_block = 128, .kv_block = 128};
    if (f->shared_lists) {
        args->blocks.by_query.bits = args->blocks.by_key.bits = (const uint32_t *)memory;
        args->blocks.by_key.offsets = (const int64_t *)memory;
        args->blocks.q_block = 16;
        args->blocks.kv_block = 64;
        args->blocks.part = 1;
        args->blocks.num_heads = 2;
        args->blocks.heads_per_list = 4;
    }
    return call;
}

/* Forward and backward of one variant: all their kernels. */
static void compile_variant(const target *t, sac_dtype dtype, int32_t head_dim, int32_t head_dim_v,
                            const features *f) {
    char what[96], workspace[1]; /* only offsets from it are taken */
    const sac_cuda_device device = {.compute_capability = t->compute_capability,
                                    .num_sms = 100,
                                    .smem_bytes = t->smem_bytes,
                                    .l2_bytes = 40 << 20};
    const sac_attention_call call = call_of(dtype, head_dim, head_dim_v, f);
    snprintf(what, sizeof what, "dtype %d, head_dim %d/%d, %s", (int)dtype, head_dim, head_dim_v, f->name);
    now.target = t;
    now.what = what;
    sac_portable_job job = {
        .device = &device, .launch = compile, .args = call.args, .modifiers = modifier_text(f)};
    assert_true(sac_portable_serves_forward(dtype, head_dim, head_dim_v, t->smem_bytes));
    sac_portable_plan_forward(&device, &call, NULL, &job.plan);
    assert_int_equal(sac_portable_launch_forward(&job), SACCADE_OK);
    if (sac_portable_serves_backward(dtype, head_dim, head_dim_v, t->smem_bytes)) {
        sac_portable_plan_backward(&call, workspace, &job.plan);
        assert_int_equal(sac_portable_launch_backward(&job), SACCADE_OK);
    }
    free(job.modifiers);
}

/* fp16 differs from bf16 in two instructions. */
static const sac_dtype dtypes[] = {SAC_BF16, SAC_F32};
static const int32_t head_dims[][2] = {{8, 8},     {40, 40},   {64, 64},   {64, 128}, {96, 64},
                                       {128, 128}, {192, 128}, {160, 160}, {256, 256}};

static void every_head_dim_compiles_for(const target *t) {
    skip_without_compiler();
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (size_t i = 0; i < sizeof head_dims / sizeof *head_dims; i++)
            compile_variant(t, dtypes[d], head_dims[i][0], head_dims[i][1], &plain);
    compile_variant(t, SAC_F16, 128, 128, &plain);
}

static void every_feature_compiles_for(const target *t) {
    skip_without_compiler();
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        for (int32_t head_dim = 64; head_dim <= 256; head_dim *= 2)
            compile_variant(t, dtypes[d], head_dim, head_dim, &everything);
        compile_variant(t, dtypes[d], 128, 128, &few_rows);
        compile_variant(t, dtypes[d], 128, 128, &shared_lists);
        compile_variant(t, dtypes[d], 128, 128, &deterministic);
        compile_variant(t, dtypes[d], 128, 128, &unaligned);
    }
}

static void every_head_dim_compiles(void **state) { every_head_dim_compiles_for(*state); }
static void every_feature_compiles(void **state) { every_feature_compiles_for(*state); }

/* Scoring and selecting: every tile of its table, by both rules, with means and without. */
static void selection_compiles_for(const target *t) {
    static const int32_t dims[] = {40, 128, 256}, query_tiles[] = {1, 256};
    static _Alignas(16) char memory[16];
    const sac_cuda_device device = {
        .compute_capability = t->compute_capability, .num_sms = 100, .smem_bytes = t->smem_bytes};
    skip_without_compiler();
    for (int i = 0; i < 3 * 3 * 2 * 2; i++) {
        const sac_nsa_args args = {.q.data = memory,
                                   .k_cmp.data = memory + (i % 5 == 4 ? 2 : 0),
                                   .dtype = i % 3,
                                   .head_dim = dims[i / 3 % 3],
                                   .score = 1 + i / 9 % 2,
                                   .batch = 1,
                                   .num_lists = 8,
                                   .heads_per_list = i % 4 < 2 ? 4 : 16,
                                   .query_tile = query_tiles[i / 18],
                                   .max_tiles = 1 << 16,
                                   .indices.top_k = i % 7 == 6 ? 100 : 16,
                                   .lse_cmp.data = i % 2 && i / 9 == 1 ? (float *)memory : NULL};
        char what[96];
        sac_kernel_spec spec;
        sac_nsa_select_plan plan;
        snprintf(what, sizeof what, "dtype %d, head_dim %d, score %d, query_tile %d", args.dtype,
                 args.head_dim, args.score, args.query_tile);
        now.target = t, now.what = what;
        sac_nsa_select_spec(&args, &device, &spec, &plan);
        compile(NULL, &device, &spec, 1, NULL);
        sac_nsa_means_spec(&args, &spec);
        if (i < 9) compile(NULL, &device, &spec, 1, NULL);
    }
}

static void selection_compiles(void **state) { selection_compiles_for(*state); }

/* The device with the least shared memory must not be refused in silence: only fp32 training above 128 may be. */
static void smallest_shared_memory_is_enough(void **state) {
    (void)state;
    for (int32_t head_dim = 8; head_dim <= 256; head_dim += 8)
        for (int32_t head_dim_v = 8; head_dim_v <= 256; head_dim_v += 8) {
            assert_true(sac_portable_serves_forward(SAC_BF16, head_dim, head_dim_v, 99 << 10));
            assert_true(sac_portable_serves_forward(SAC_F32, head_dim, head_dim_v, 99 << 10));
            assert_true(sac_portable_serves_backward(SAC_BF16, head_dim, head_dim_v, 99 << 10));
            if (head_dim <= 128 && head_dim_v <= 128)
                assert_true(sac_portable_serves_backward(SAC_F32, head_dim, head_dim_v, 99 << 10));
            assert_true(sac_portable_serves_backward(SAC_F32, head_dim, head_dim_v, 163 << 10));
        }
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction function;
    } each[] = {{"every_head_dim_compiles", every_head_dim_compiles},
                {"every_feature_compiles", every_feature_compiles},
                {"selection_compiles", selection_compiles}};
    enum { NUM_TARGETS = sizeof targets / sizeof *targets, NUM_EACH = sizeof each / sizeof *each };
    struct CMUnitTest tests[NUM_EACH * NUM_TARGETS + 1];
    char names[NUM_EACH * NUM_TARGETS][64];
    for (int i = 0; i < NUM_EACH * NUM_TARGETS; i++) {
        const target *t = &targets[i / NUM_EACH];
        snprintf(names[i], sizeof *names, "%s [%s]", each[i % NUM_EACH].name, t->architecture);
        tests[i] = (struct CMUnitTest){.name = names[i],
                                       .test_func = each[i % NUM_EACH].function,
                                       .initial_state = (void *)(uintptr_t)t};
    }
    tests[NUM_EACH * NUM_TARGETS] = (struct CMUnitTest)cmocka_unit_test(smallest_shared_memory_is_enough);
    size_t count = test_take_shard(tests, NUM_EACH * NUM_TARGETS + 1);
    cmocka_set_test_filter(getenv("SACCADE_TEST_FILTER"));
    int failed = _cmocka_run_group_tests("test_cuda_compile", tests, count, NULL, NULL);
    print_message("%d kernels compiled\n", now.num_kernels);
    return failed;
}
