/* test_attn_bwd_sm90.c - the variants of the Hopper backward kernels, compiled by NVRTC, which needs no GPU for it. */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/attn_bwd_sm90.h"
#include "cuda/modifier_text.h"
#include "mod/modifier.h"
#include "support/cmocka_all.h"
#include "support/kernel_compile.h"

static saccade_context *ctx;

/* Only which pointers are there matters to a variant. */
static char there[64];

static sac_attention_call plain_call(int32_t head_dim, int32_t head_dim_v, sac_dtype dtype) {
    return (sac_attention_call){
        .args = {.dtype = dtype, .head_dim = head_dim, .head_dim_v = head_dim_v, .scale = 0.125f}};
}

static void assert_call_compiles_clean(const sac_attention_call *call, bool sum_dq) {
    char what[64], *modifiers;
    sac_kernel_spec spec = sac_attn_bwd_sm90_spec(call, sum_dq);
    snprintf(what, sizeof what, "D %d/%d, dtype %d", call->args.head_dim, call->args.head_dim_v,
             (int)call->args.dtype);
    assert_int_equal(sac_cuda_modifier_text(call, &modifiers), SACCADE_OK);
    spec.modifiers = modifiers;
    assert_compiles_clean(&spec, what);
    free(modifiers);
}

/* A row of each tile, then dims that fill none. */
static const int32_t dims[][2] = {{64, 64}, {128, 128}, {192, 128}, {256, 256}, {72, 40}, {8, 128}};
enum { NUM_TILES = 4, NUM_SUMMING_TILES = 2 };

static void every_head_dim_compiles_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        sac_attention_call call = plain_call(dims[i][0], dims[i][1], i % 2 ? SAC_F16 : SAC_BF16);
        assert_call_compiles_clean(&call, true);
    }
}

static void kernels_that_leave_dq_to_another_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_TILES; i++) {
        sac_attention_call call = plain_call(dims[i][0], dims[i][1], SAC_BF16);
        assert_call_compiles_clean(&call, false);
    }
}

static void ragged_lengths_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_TILES; i++) {
        sac_attention_call call = plain_call(dims[i][0], dims[i][1], SAC_BF16);
        call.args.len_q.cu_seqlens = call.args.len_k.cu_seqlens = (const int32_t *)there;
        assert_call_compiles_clean(&call, true);
    }
}

static void block_masks_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_SUMMING_TILES; i++) {
        sac_attention_call call = plain_call(dims[i][0], dims[i][1], SAC_BF16);
        call.args.blocks.by_query.offsets = (const int64_t *)there;
        call.args.blocks.q_block = call.args.blocks.kv_block = 128;
        assert_call_compiles_clean(&call, true);
    }
}

static void softcap_and_alibi_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_TILES; i++) {
        sac_attention_call softcap = plain_call(dims[i][0], dims[i][1], SAC_BF16), alibi = softcap;
        softcap.args.softcap = 30;
        alibi.args.alibi_slopes = (const float *)there;
        assert_call_compiles_clean(&softcap, true);
        assert_call_compiles_clean(&alibi, true);
    }
}

static saccade_modifier *made(const saccade_modifier_params *params) {
    saccade_modifier *m = NULL;
    if (saccade_modifier_create(ctx, &m, params) != SACCADE_OK) fail_msg("%s", saccade_last_error());
    return m;
}

static void modifiers_compile_without_spills(void **state) {
    (void)state;
    saccade_modifier *score =
        made(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND,
                                        .text = "score - 0.01f * fabsf((float)(q_idx - kv_idx))",
                                        .grad_text = "grad"});
    saccade_modifier *mask =
        made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "q_idx / 100 == kv_idx / 100"});
    sac_attention_call modified = plain_call(128, 128, SAC_BF16), masked = modified;
    modified.score_mod = score;
    masked.mask_mod = mask;
    assert_call_compiles_clean(&modified, true);
    assert_call_compiles_clean(&masked, true);
    saccade_modifier_destroy(score);
    saccade_modifier_destroy(mask);
}

static int set_up(void **state) {
    (void)state;
    return saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = ""});
}
static int tear_down(void **state) {
    (void)state;
    saccade_context_destroy(ctx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_head_dim_compiles_without_spills),
        cmocka_unit_test(kernels_that_leave_dq_to_another_compile_without_spills),
        cmocka_unit_test(ragged_lengths_compile_without_spills),
        cmocka_unit_test(block_masks_compile_without_spills),
        cmocka_unit_test(softcap_and_alibi_compile_without_spills),
        cmocka_unit_test(modifiers_compile_without_spills),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
