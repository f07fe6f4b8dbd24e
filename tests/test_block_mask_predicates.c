/* test_block_mask_predicates.c - the mask_mods that built masks carry: their texts, which devices compile, say what
 * their native forms say. */
#include <stdlib.h>
#include <string.h>

#include "mask/block_mask.h"
#include "mod/modifier.h"
#include "support/cmocka_all.h"
#include "support/mask_check.h"
#include "support/test_context.h"

/* The same slots, the text alone. */
static saccade_modifier *text_twin(const saccade_modifier *native) {
    saccade_aux_decl aux[SACCADE_MAX_AUX];
    for (int32_t i = 0; i < native->num_aux; i++)
        aux[i] = (saccade_aux_decl){native->aux[i].name, native->aux[i].dtype};
    saccade_modifier *twin;
    must(saccade_modifier_create(ctx, &twin,
                                 &(saccade_modifier_params){.kind = SACCADE_MASK_KIND,
                                                            .name = native->name,
                                                            .text = native->text,
                                                            .num_aux = native->num_aux,
                                                            .aux = aux}));
    must(saccade_modifier_compile(ctx, twin));
    assert_null(twin->mask_row);
    return twin;
}

/* Rows of every length from every key on. */
static void assert_text_says_the_same(saccade_block_mask *mask) {
    enum { MAX_KEYS = 128 };
    const saccade_mask_shape *s = &mask->shape;
    const saccade_modifier *native = mask->mask_mod;
    saccade_modifier *twin = text_twin(native);
    uint8_t wanted[MAX_KEYS], found[MAX_KEYS];
    assert_non_null(native->mask_row);
    assert_true(s->kv_len <= MAX_KEYS);
    for (int32_t b = 0; b < s->batch; b++)
        for (int32_t h = 0; h < s->num_heads; h++)
            for (int32_t i = 0; i < s->q_len; i++)
                for (int32_t first = 0; first < s->kv_len; first += 5) {
                    int32_t n = 1 + (i * 31 + first * 7) % (s->kv_len - first);
                    sac_mask_row(native, wanted, n, b, h, i, first, &mask->aux);
                    sac_mask_row(twin, found, n, b, h, i, first, &mask->aux);
                    for (int32_t x = 0; x < n; x++)
                        if (wanted[x] != found[x])
                            fail_msg("%s, %s: pair (%d, %d, %d, %d) is %d natively, %d by the text",
                                     native->name, shape_text(s), b, h, i, first + x, wanted[x], found[x]);
                }
    saccade_modifier_destroy(twin);
    saccade_block_mask_destroy(mask);
}

static const saccade_mask_shape shape = {2, 2, 40, 101, 16, 12};
static const saccade_mask_shape square = {2, 2, 90, 90, 16, 12};

static void band_text_is_its_native_form(void **state) {
    (void)state;
    saccade_block_mask *mask;
    must(saccade_block_mask_causal(ctx, &mask, &shape, true));
    assert_text_says_the_same(mask);
    must(saccade_block_mask_window(ctx, &mask, &shape, 7, -1, false));
    assert_text_says_the_same(mask);
}

static void interval_text_is_its_native_form(void **state) {
    (void)state;
    saccade_block_mask *mask;
    must(saccade_block_mask_documents(ctx, &mask, &square, (int32_t[]){10, 0, 50, 30}, 4));
    assert_text_says_the_same(mask);
}

static void prefix_text_is_its_native_form(void **state) {
    (void)state;
    saccade_block_mask *mask;
    must(saccade_block_mask_prefix_lm(ctx, &mask, &shape, (int32_t[]){60, 3}));
    assert_text_says_the_same(mask);
}

static void dilated_text_is_its_native_form(void **state) {
    (void)state;
    saccade_block_mask *mask;
    must(saccade_block_mask_dilated(ctx, &mask, &square, 3, 7));
    assert_text_says_the_same(mask);
}

static void block_diagonal_text_is_its_native_form(void **state) {
    (void)state;
    saccade_block_mask *mask;
    must(saccade_block_mask_block_diagonal(ctx, &mask, &shape, 9, 22));
    assert_text_says_the_same(mask);
}

static void eagle3_text_is_its_native_form(void **state) {
    (void)state;
    saccade_block_mask *mask;
    must(saccade_block_mask_eagle3(ctx, &mask, &shape, NULL));
    assert_text_says_the_same(mask);
    must(saccade_block_mask_eagle3(ctx, &mask, &shape, (int32_t[]){33, 12}));
    assert_text_says_the_same(mask);
}

/* The dense tensor's mask_mod has a row form of its own: absent, FULL and PARTIAL blocks, two heads that differ. */
static void stored_blocks_text_is_its_native_form(void **state) {
    (void)state;
    static uint8_t visible[2][2][40][101];
    uint32_t seed = 3;
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 40; i++)
            for (int j = 0; j < 101; j++) {
                seed = seed * 1664525u + 1013904223u;
                visible[n / 2][n % 2][i][j] =
                    (i / 16 + j / 12 + n) % 3 == 0 || (j / 12 % 2 == n % 2 && seed >> 31);
            }
    saccade_block_mask *mask;
    must(saccade_block_mask_from_dense(ctx, &mask, SACCADE_TENSOR(visible, SACCADE_U8, 2, 2, 40, 101), 16,
                                       12));
    assert_true(mask->count[SACCADE_FULL] > 0 && mask->count[SACCADE_PARTIAL] > 0);
    assert_text_says_the_same(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(band_text_is_its_native_form),
        cmocka_unit_test(interval_text_is_its_native_form),
        cmocka_unit_test(prefix_text_is_its_native_form),
        cmocka_unit_test(dilated_text_is_its_native_form),
        cmocka_unit_test(block_diagonal_text_is_its_native_form),
        cmocka_unit_test(eagle3_text_is_its_native_form),
        cmocka_unit_test(stored_blocks_text_is_its_native_form),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
