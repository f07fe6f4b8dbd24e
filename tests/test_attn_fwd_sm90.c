/* test_attn_fwd_sm90.c - the variants of the Hopper forward kernel, compiled by NVRTC, which needs no GPU for it. */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/attn_fwd_sm90.h"
#include "mod/modifier.h"
#include "support/cmocka_all.h"
#include "support/kernel_compile.h"
#include "support/sm90_calls.h"
#include "support/test_context.h"

static void assert_call_compiles_clean(const sac_attention_call *call, bool split) {
    char what[64], *modifiers;
    sac_kernel_spec spec;
    snprintf(what, sizeof what, "D %d/%d, dtype %d", call->args.head_dim, call->args.head_dim_v,
             call->args.dtype);
    if (sac_attn_fwd_sm90_spec(call, split, &spec, &modifiers) != SACCADE_OK)
        fail_msg("%s: %s", what, saccade_last_error());
    assert_compiles_clean(&spec, what);
    free(modifiers);
}

static void every_head_dim_compiles_without_spills(void **state) {
    static const int32_t dims[][2] = {{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}, {72, 40}};
    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        sac_attention_call call = plain_call(dims[i][0], dims[i][1], i % 2 ? SAC_F16 : SAC_BF16);
        assert_call_compiles_clean(&call, false);
    }
}

static void split_keys_compile_without_spills(void **state) {
    (void)state;
    sac_attention_call call = plain_call(128, 128, SAC_BF16);
    assert_call_compiles_clean(&call, true);
}

static void ragged_lengths_compile_without_spills(void **state) {
    (void)state;
    sac_attention_call call = ragged_call(128, 128);
    assert_call_compiles_clean(&call, false);
}

static void block_masks_compile_without_spills(void **state) {
    (void)state;
    for (int32_t kv_block = 64; kv_block <= 128; kv_block *= 2) {
        sac_attention_call call = blocks_call(128, 128, kv_block);
        assert_call_compiles_clean(&call, false);
    }
}

static void shared_lists_compile_without_spills(void **state) {
    static const int32_t dims[][2] = {{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}};
    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        sac_attention_call call = shared_lists_call(dims[i][0], dims[i][1]);
        assert_call_compiles_clean(&call, false);
        call.args.len_q = call.args.len_k = ragged_call(dims[i][0], dims[i][1]).args.len_q;
        assert_call_compiles_clean(&call, false);
    }
}

static void softcap_and_alibi_compile_without_spills(void **state) {
    (void)state;
    sac_attention_call softcap = softcap_call(128, 128), alibi = alibi_call(128, 128);
    assert_call_compiles_clean(&softcap, false);
    assert_call_compiles_clean(&alibi, false);
}

static void modifiers_compile_without_spills(void **state) {
    (void)state;
    saccade_modifier *score = some_score_mod(ctx), *mask = some_mask_mod(ctx);
    sac_attention_call call = plain_call(128, 128, SAC_BF16);
    call.score_mod = score;
    call.mask_mod = mask;
    assert_call_compiles_clean(&call, false);
    saccade_modifier_destroy(score);
    saccade_modifier_destroy(mask);
}

/* Of few pairs, and of so many that its tiles are classified first. */
static void mask_mod_alone_compiles_without_spills(void **state) {
    (void)state;
    saccade_modifier *mask = some_mask_mod(ctx);
    sac_attention_call call = plain_call(128, 128, SAC_BF16);
    call.mask_mod = mask;
    call.args.num_heads = 2;
    for (int32_t seqlen = 256; seqlen <= 1024; seqlen *= 4) {
        call.args.len_q.seqlen = call.args.len_k.seqlen = seqlen;
        assert_call_compiles_clean(&call, false);
    }
    saccade_modifier_destroy(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_head_dim_compiles_without_spills),
        cmocka_unit_test(split_keys_compile_without_spills),
        cmocka_unit_test(ragged_lengths_compile_without_spills),
        cmocka_unit_test(block_masks_compile_without_spills),
        cmocka_unit_test(shared_lists_compile_without_spills),
        cmocka_unit_test(softcap_and_alibi_compile_without_spills),
        cmocka_unit_test(modifiers_compile_without_spills),
        cmocka_unit_test(mask_mod_alone_compiles_without_spills),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
