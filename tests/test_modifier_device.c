/* test_modifier_device.c - the device text of modifiers, compiled by NVRTC, which needs no GPU for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <saccade/native_modifier.h>

#include "cuda/nvrtc.h"
#include "mod/modifier.h"
#include "shared/embedded.h"
#include "support/cmocka_all.h"
#include "support/test_context.h"

static const sac_nvrtc *nvrtc; /* NULL: not on this machine */
static const char *no_nvrtc;

static int set_up(void **state) {
    nvrtc = sac_nvrtc_get(&no_nvrtc);
    return make_context_without_cache(state);
}

static char *device_text(const saccade_modifier *m) {
    char *text;
    if (sac_modifier_device_text(m, &text) != SACCADE_OK) fail_msg("%s", saccade_last_error());
    return text;
}

/* Compiles the texts of a score_mod and a mask_mod (either may be NULL) with a kernel that calls them. */
static saccade_status compile(const saccade_modifier *score, const saccade_modifier *mask) {
    char *score_text = score ? device_text(score) : NULL, *mask_text = mask ? device_text(mask) : NULL;
    char *source = NULL;
    size_t size;
    FILE *out = open_memstream(&source, &size);
    fprintf(out,
            "%s%s extern \"C\" __global__ void probe(float *x, const saccade_aux *aux) {\n"
            "    int i = threadIdx.x;\n",
            score ? score_text : "", mask ? mask_text : "");
    if (score) fputs("    x[i] = sac_score_mod(x[i], 0, 1, 2, i, aux);\n", out);
    if (score) /* which kernels name in parts that they may not run */
        fputs("    x[i] = sac_score_mod_grad(1.f, x[i], 0, 1, 2, i, aux);\n", out);
    if (mask) fputs("    x[i] = sac_mask_mod(0, 1, 2, i, aux) ? x[i] : 0.f;\n", out);
    fputs("}\n", out);
    fclose(out);

    const char *names[] = {"shared/types.h", "saccade/aux.h", "saccade/modifier_text.h"}, *texts[3];
    for (int i = 0; i < 3; i++) texts[i] = sac_embedded_text(names[i], NULL);
    const char *options[] = {"-arch=sm_80"};
    sac_nvrtc_source program = {.name = "probe.cu",
                                .text = source,
                                .num_headers = 3,
                                .header_names = names,
                                .header_texts = texts,
                                .num_options = 1,
                                .options = options};
    void *cubin = NULL;
    saccade_status status = sac_nvrtc_compile(nvrtc, &program, &cubin, &size, NULL);
    free(cubin);
    free(source);
    free(score_text);
    free(mask_text);
    return status;
}

static void must_compile(const saccade_modifier *score, const saccade_modifier *mask) {
    if (compile(score, mask) != SACCADE_OK) fail_msg("%s", saccade_last_error());
}

#define NEEDS_NVRTC                                                                                          \
    (void)state;                                                                                             \
    if (!nvrtc) skip_because("%s", no_nvrtc)

enum { prefix };
SACCADE_MASK_MOD(prefix_lm, { return kv_idx < aux_i32(prefix, b) || q_idx >= kv_idx; })

static saccade_modifier *made_prefix_lm(void) {
    return made(&(saccade_modifier_params){
        .native = &prefix_lm, .num_aux = 1, .aux = (saccade_aux_decl[]){{"prefix", SACCADE_I32}}});
}

static void native_text_compiles_for_the_device(void **state) {
    NEEDS_NVRTC;
    saccade_modifier *m = made_prefix_lm();
    must_compile(NULL, m);
    saccade_modifier_destroy(m);
}

static void all_accessors_and_functions_compile_for_the_device(void **state) {
    NEEDS_NVRTC;
    saccade_modifier *score = made(&(saccade_modifier_params){
        .kind = SACCADE_SCORE_KIND,
        .name = "every \"word\"",
        .text =
            "{\n"
            "    float t = aux_f32(f, q_idx * aux_size(f, 1) + kv_idx) + aux_f16(half, h) + aux_bf16(bf, "
            "b);\n"
            "    t += aux_i32(i, kv_idx) + aux_i64(wide, 0) + aux_u8(u, 3) + scalar(x);\n"
            "    t += aux_f64(d, 0) + aux_i16(s, 1) + aux_i8(c, 2);\n"
            "    t += expf(t) + exp2f(t) + expm1f(t) + logf(t) + log2f(t) + log1pf(t) + powf(t, 3.f) + "
            "sqrtf(t);\n"
            "    t += fabsf(t) + fmodf(t, 2.f) + floorf(t) + ceilf(t) + truncf(t) + rintf(t) + tanf(t) + "
            "asinf(t);\n"
            "    t += acosf(t) + atanf(t) + atan2f(t, 2.f) + sinhf(t) + coshf(t) + tanhf(t) + asinhf(t);\n"
            "    t += acoshf(t) + atanhf(t) + erff(t) + erfcf(t);\n"
            "    return score + fminf(t, 1.f) * fmaxf(sinf(t), cosf(t)); // done\n"
            "}",
        .grad_text = "{ aux_grad(f, kv_idx, grad); aux_grad(bf, 0, score); return grad * scalar(0); }",
        .num_aux = 9,
        .aux = (saccade_aux_decl[]){{"f", SACCADE_F32},
                                    {"half", SACCADE_F16},
                                    {"bf", SACCADE_BF16},
                                    {"i", SACCADE_I32},
                                    {"wide", SACCADE_I64},
                                    {"u", SACCADE_U8},
                                    {"d", SACCADE_F64},
                                    {"s", SACCADE_I16},
                                    {"c", SACCADE_I8}},
        .num_scalars = 1,
        .scalars = (const char *[]){"x"}});
    saccade_modifier *mask =
        made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "q_idx >= kv_idx && true"});
    must_compile(score, NULL);
    must_compile(score, mask);
    saccade_modifier_destroy(score);
    saccade_modifier_destroy(mask);
}

static void score_mod_without_gradient_compiles_for_the_device(void **state) {
    NEEDS_NVRTC;
    saccade_modifier *score =
        made(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .text = "score * 2"});
    must_compile(score, NULL);
    saccade_modifier_destroy(score);
}

static void combination_compiles_for_the_device(void **state) {
    NEEDS_NVRTC;
    saccade_modifier *first = made_prefix_lm(), *second = made_prefix_lm(), *either, *neither;
    assert_int_equal(sac_modifier_combine(&either, SAC_MOD_OR, first, second), SACCADE_OK);
    assert_int_equal(sac_modifier_combine(&neither, SAC_MOD_NOT, either, NULL), SACCADE_OK);
    must_compile(NULL, neither);
    saccade_modifier *all[] = {first, second, either, neither};
    for (int i = 0; i < 4; i++) saccade_modifier_destroy(all[i]);
}

static void mistake_in_a_device_text_has_name_and_line(void **state) {
    NEEDS_NVRTC;
    saccade_modifier *m = made(&(saccade_modifier_params){
        .kind = SACCADE_SCORE_KIND, .name = "mine", .text = "{\n return score +\n unheard_of; }"});
    assert_int_equal(compile(m, NULL), SACCADE_COMPILE_FAILED);
    if (!strstr(saccade_last_error(), "mine(3)") || !strstr(saccade_last_error(), "unheard_of"))
        fail_msg("mine(3) was expected in:\n%s", saccade_last_error());
    saccade_modifier_destroy(m);
}

static void slots_of_a_combination_follow_one_another(void **state) {
    (void)state;
    saccade_modifier *first = made_prefix_lm(), *second = made_prefix_lm(), *both;
    assert_int_equal(sac_modifier_combine(&both, SAC_MOD_AND, first, second), SACCADE_OK);
    char *text = device_text(both);
    assert_non_null(strstr(text, "sac_aux_base = 0"));
    assert_non_null(strstr(text, "sac_aux_base = 1"));
    assert_non_null(strstr(text, "(sac_mask_leaf_0(b, h, q_idx, kv_idx, aux) && sac_mask_leaf_1("));
    free(text);
    saccade_modifier *all[] = {first, second, both};
    for (int i = 0; i < 3; i++) saccade_modifier_destroy(all[i]);
}

static void row_of_ones(uint8_t *visible, int32_t n, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,
                        const saccade_aux *aux) {
    (void)b, (void)h, (void)q_idx, (void)kv_idx, (void)aux;
    memset(visible, 1, (size_t)n);
}

static void native_form_without_text_is_refused_for_devices(void **state) {
    (void)state;
    saccade_native_modifier native = {.kind = SACCADE_MASK_KIND, .name = "ones", .mask_row = row_of_ones};
    saccade_modifier *m = made(&(saccade_modifier_params){.native = &native}), *not_m;
    assert_int_equal(sac_modifier_combine(&not_m, SAC_MOD_NOT, m, NULL), SACCADE_OK);
    char *text;
    assert_int_equal(sac_modifier_device_text(not_m, &text), SACCADE_UNSUPPORTED);
    assert_null(text);
    assert_non_null(strstr(saccade_last_error(), "'ones'"));
    saccade_modifier_destroy(m);
    saccade_modifier_destroy(not_m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native_text_compiles_for_the_device),
        cmocka_unit_test(all_accessors_and_functions_compile_for_the_device),
        cmocka_unit_test(score_mod_without_gradient_compiles_for_the_device),
        cmocka_unit_test(combination_compiles_for_the_device),
        cmocka_unit_test(mistake_in_a_device_text_has_name_and_line),
        cmocka_unit_test(slots_of_a_combination_follow_one_another),
        cmocka_unit_test(native_form_without_text_is_refused_for_devices),
    };
    return cmocka_run_group_tests(tests, set_up, end_context);
}
