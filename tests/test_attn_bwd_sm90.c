/* test_attn_bwd_sm90.c - the variants of the Hopper backward kernels, compiled by NVRTC, which needs no GPU for it. */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/attn_bwd_sm90.h"
#include "cuda/modifier_text.h"
#include "mod/modifier.h"
#include "support/cmocka_all.h"
#include "support/kernel_compile.h"
#include "support/sm90_calls.h"
#include "support/test_context.h"

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
        sac_attention_call call = ragged_call(dims[i][0], dims[i][1]);
        assert_call_compiles_clean(&call, true);
    }
}

static void block_masks_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_SUMMING_TILES; i++) {
        sac_attention_call wide = blocks_call(dims[i][0], dims[i][1], 128),
                           narrow = blocks_call(dims[i][0], dims[i][1], 64);
        assert_call_compiles_clean(&wide, true);
        assert_call_compiles_clean(&narrow, true);
        assert_call_compiles_clean(&narrow, false);
    }
}

static void shared_lists_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_SUMMING_TILES; i++) {
        sac_attention_call call = shared_lists_call(dims[i][0], dims[i][1]);
        assert_call_compiles_clean(&call, true);
        call.args.len_q = call.args.len_k = ragged_call(dims[i][0], dims[i][1]).args.len_q;
        assert_call_compiles_clean(&call, true);
        assert_call_compiles_clean(&call, false);
    }
}

static void softcap_and_alibi_compile_without_spills(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_TILES; i++) {
        sac_attention_call softcap = softcap_call(dims[i][0], dims[i][1]),
                           alibi = alibi_call(dims[i][0], dims[i][1]);
        assert_call_compiles_clean(&softcap, true);
        assert_call_compiles_clean(&alibi, true);
    }
}

static void modifiers_compile_without_spills(void **state) {
    (void)state;
    saccade_modifier *score = some_score_mod(ctx), *mask = some_mask_mod(ctx);
    sac_attention_call modified = plain_call(128, 128, SAC_BF16), masked = modified;
    modified.score_mod = score;
    masked.mask_mod = mask;
    assert_call_compiles_clean(&modified, true);
    assert_call_compiles_clean(&masked, true);
    saccade_modifier_destroy(score);
    saccade_modifier_destroy(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_head_dim_compiles_without_spills),
        cmocka_unit_test(kernels_that_leave_dq_to_another_compile_without_spills),
        cmocka_unit_test(ragged_lengths_compile_without_spills),
        cmocka_unit_test(block_masks_compile_without_spills),
        cmocka_unit_test(shared_lists_compile_without_spills),
        cmocka_unit_test(softcap_and_alibi_compile_without_spills),
        cmocka_unit_test(modifiers_compile_without_spills),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
