/* test_modifier_text.c - texts compiled for the CPU, by every compiler that this machine has. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <saccade/native_modifier.h>

#include "mod/compile.h"
#include "support/cmocka_all.h"
#include "support/test_context.h"

/* Each test runs once with each compiler: its state is the compiler's name. */
static int make_context_of(void **state) {
    return saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = "", .compiler = *state});
}

/* A modifier that must compile. */
static saccade_modifier *compiled(const saccade_modifier_params *params) {
    saccade_modifier *m = made(params);
    if (saccade_modifier_compile(ctx, m) != SACCADE_OK) fail_msg("%s", saccade_last_error());
    return m;
}

static saccade_modifier *score_mod(const char *text, const char *grad_text) {
    return compiled(
        &(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .text = text, .grad_text = grad_text});
}

static const saccade_aux no_aux;

static float apply(const saccade_modifier *m, float score) {
    sac_score_row(m, &score, 1, 0, 0, 0, 0, &no_aux);
    return score;
}

static void compiler_is_reported(void **state) {
    saccade_modifier *m = made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "1"});
    assert_string_equal(saccade_modifier_compiler(m), "");
    assert_int_equal(saccade_modifier_compile(ctx, m), SACCADE_OK);
    const char *name = strrchr(saccade_modifier_compiler(m), '/');
    assert_string_equal(name ? name + 1 : saccade_modifier_compiler(m), *state);
    saccade_modifier_destroy(m);
}

static void expression_and_body_are_the_same_function(void **state) {
    (void)state;
    static const char *const texts[] = {
        "30.f * tanhf(score / 30.f)",
        "  /* softcap */ 30.f * tanhf(score / 30.f) // to the end",
        "{ float t = score / 30.f; return 30.f * tanhf(t); }",
        " // softcap\n /* by hand */ {\n float t = score / 30.f;\n return 30.f * tanhf(t);\n} ",
    };
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
        saccade_modifier *m = score_mod(texts[k], NULL);
        for (float x = -100; x < 100; x += 0.7f) {
            float expected = 30.f * tanhf(x / 30.f), found = apply(m, x);
            if (!(fabsf(found - expected) <= 1e-5f))
                fail_msg("text %zu, %g: %g, not %g", k, x, found, expected);
        }
        saccade_modifier_destroy(m);
    }
}

static void rows_see_their_coordinates(void **state) {
    (void)state;
    saccade_modifier *score = score_mod("score + 1000000 * b + 10000 * h + 100 * q_idx + kv_idx", NULL);
    saccade_modifier *mask = compiled(&(saccade_modifier_params){
        .kind = SACCADE_MASK_KIND, .text = "(q_idx + kv_idx * 3 + h * 5 + b * 7) % 4 & 2"});
    for (int n = 0; n <= 37; n++) {
        float row[40];
        uint8_t visible[40];
        for (int i = 0; i < 40; i++) row[i] = 0.5f, visible[i] = 9;
        sac_score_row(score, row, n, 2, 3, 4, 5, &no_aux);
        sac_mask_row(mask, visible, n, 2, 3, 4, 5, &no_aux);
        for (int i = 0; i < 40; i++) {
            float expected = i < n ? 2030405.5f + (float)i : 0.5f;
            int seen = i < n ? ((4 + (5 + i) * 3 + 3 * 5 + 2 * 7) % 4 & 2) != 0 : 9;
            if (row[i] != expected || visible[i] != seen)
                fail_msg("n %d, i %d: %g, not %g; %d, not %d", n, i, row[i], expected, visible[i], seen);
        }
    }
    saccade_modifier_destroy(score);
    saccade_modifier_destroy(mask);
}

static void mathematical_functions_are_right_everywhere(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double (*exact)(double);
    } functions[] = {{"expf(score)", exp},     {"exp2f(score)", exp2},   {"expm1f(score)", expm1},
                     {"logf(score)", log},     {"log2f(score)", log2},   {"log1pf(score)", log1p},
                     {"sqrtf(score)", sqrt},   {"fabsf(score)", fabs},   {"floorf(score)", floor},
                     {"ceilf(score)", ceil},   {"truncf(score)", trunc}, {"rintf(score)", rint},
                     {"sinf(score)", sin},     {"cosf(score)", cos},     {"tanf(score)", tan},
                     {"asinf(score)", asin},   {"acosf(score)", acos},   {"atanf(score)", atan},
                     {"sinhf(score)", sinh},   {"coshf(score)", cosh},   {"tanhf(score)", tanh},
                     {"asinhf(score)", asinh}, {"acoshf(score)", acosh}, {"atanhf(score)", atanh},
                     {"erff(score)", erf},     {"erfcf(score)", erfc}};
    static const float points[] = {0.f,   -0.f,   1.f,      -1.f,      0.3f,   -0.3f,   2.5f,   -2.5f,
                                   17.f,  -17.f,  88.f,     -88.f,     1e-20f, -1e-20f, 1e-42f, 1e20f,
                                   3e38f, -3e38f, INFINITY, -INFINITY, NAN,    1e5f};
    enum { NUM_POINTS = sizeof points / sizeof *points };
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        saccade_modifier *function = score_mod(functions[f].text, NULL);
        float row[NUM_POINTS];
        memcpy(row, points, sizeof row);
        sac_score_row(function, row, NUM_POINTS, 0, 0, 0, 0, &no_aux);
        for (int i = 0; i < NUM_POINTS; i++) {
            float exact = (float)functions[f].exact(points[i]);
            bool right = isnan(exact)   ? isnan(row[i])
                         : isinf(exact) ? row[i] == exact
                                        : fabsf(row[i] - exact) <= 4e-7f * fabsf(exact) + 3e-45f;
            if (!right) fail_msg("%s at %g: %.9g, not %.9g", functions[f].text, points[i], row[i], exact);
        }
        saccade_modifier_destroy(function);
    }
    saccade_modifier *m = score_mod("fminf(fmaxf(score, -1.f), 1.f)", NULL);
    assert_true(apply(m, 5) == 1 && apply(m, -5) == -1 && apply(m, 0.5f) == 0.5f && apply(m, NAN) == -1);
    saccade_modifier_destroy(m);
    m = score_mod("powf(score, 3.f) + fmodf(score, 2.f) + (atan2f(score, -1.f) < -1.7f ? 100 : 0)", NULL);
    assert_true(apply(m, -5) == -125 - 1 + 100);
    saccade_modifier_destroy(m);
}

/* Unsigned 64-bit conversions and arrays: what libtcc leaves to functions that it calls. */
static void plain_c_needs_no_support_library(void **state) {
    (void)state;
    saccade_modifier *m =
        score_mod("{\n"
                  "    uint64_t whole = (uint64_t)score + (uint64_t)(double)score;\n"
                  "    float table[8] = {0.5f, 0.25f}, copy[8];\n"
                  "    for (int i = 0; i < 8; i++) copy[i] = table[i];\n"
                  "    return (float)whole + (float)(double)(whole << 1) + copy[1] + copy[7];\n"
                  "}",
                  NULL);
    assert_true(apply(m, 10.75f) == 60.25f);
    saccade_modifier_destroy(m);
}

static void every_dtype_is_read_by_name_and_by_number(void **state) {
    (void)state;
    float f[] = {1, 2, 3};
    uint16_t half[] = {0, 0x3c00, 0x4000}, bf[] = {0, 0xbf80, 0x4040};
    int32_t i32[] = {7, -8, 9};
    double f64[] = {0, 0x1p-40};
    int64_t i64[] = {1, -((int64_t)1 << 40), 3};
    int16_t i16[] = {0, -30000};
    int8_t i8[] = {0, -128};
    uint8_t u8[] = {0, 255, 1};
    saccade_modifier_params params = {
        .kind = SACCADE_SCORE_KIND,
        .text =
            "aux_f32(f, 1) + 10 * aux_f16(1, kv_idx) + 100 * aux_bf16(bf, 1) + 1000 * aux_i32(i, 1)"
            " + (aux_i64(4, 1) == -1099511627776ll ? 0.25f : 0) + (aux_u8(u, 1) == 255 ? 0.125f : 0)"
            " + (aux_f64(d, 1) == 0x1p-40f && aux_i16(s, 1) == -30000 && aux_i8(c, 1) == -128 ? 0.03125f : 0)"
            " + (aux_size(0, 0) == 3 && aux_size(f, 1) == 0 ? 0.0625f : 0) + scalar(second) - scalar(0)",
        .num_aux = 9,
        .aux = (saccade_aux_decl[]){{"f", SACCADE_F32},
                                    {"half", SACCADE_F16},
                                    {"bf", SACCADE_BF16},
                                    {"i", SACCADE_I32},
                                    {"i64", SACCADE_I64},
                                    {"u", SACCADE_U8},
                                    {"d", SACCADE_F64},
                                    {"s", SACCADE_I16},
                                    {"c", SACCADE_I8}},
        .num_scalars = 2,
        .scalars = (const char *[]){"first", "second"}};
    saccade_modifier *m = compiled(&params);
    saccade_aux aux;
    saccade_bound_modifier bound = {
        .modifier = m,
        .aux = (const DLTensor *[]){SACCADE_TENSOR(f, SACCADE_F32, 3), SACCADE_TENSOR(half, SACCADE_F16, 3),
                                    SACCADE_TENSOR(bf, SACCADE_BF16, 3), SACCADE_TENSOR(i32, SACCADE_I32, 3),
                                    SACCADE_TENSOR(i64, SACCADE_I64, 3), SACCADE_TENSOR(u8, SACCADE_U8, 3),
                                    SACCADE_TENSOR(f64, SACCADE_F64, 2), SACCADE_TENSOR(i16, SACCADE_I16, 2),
                                    SACCADE_TENSOR(i8, SACCADE_I8, 2)},
        .scalars = (float[]){1, 0.5f}};
    assert_int_equal(sac_modifier_bind(&aux, &bound, (DLDevice){kDLCPU, 0}, "score_mod"), SACCADE_OK);
    float score = 0;
    sac_score_row(m, &score, 1, 0, 0, 0, 2, &aux);
    assert_true(score == 2 + 20 - 100 - 8000 + 0.25f + 0.125f + 0.0625f + 0.03125f - 0.5f);
    saccade_modifier_destroy(m);
}

static void gradient_text_gets_grad_and_score_and_adds_to_aux(void **state) {
    (void)state;
    saccade_modifier *m = compiled(&(saccade_modifier_params){
        .kind = SACCADE_SCORE_KIND,
        .text = "score * aux_f32(slope, h)",
        .grad_text = "{ aux_grad(slope, h, grad * score); return grad * aux_f32(slope, h); }",
        .num_aux = 1,
        .aux = (saccade_aux_decl[]){{"slope", SACCADE_F32}}});
    assert_int_equal(sac_modifier_ready(ctx, m, true), SACCADE_OK);
    float slope[2] = {5, 3}, dslope[2] = {0, 1}, grad[3] = {1, 2, 3}, score[3] = {10, 20, 30};
    saccade_aux aux = {.tensor = {{.data = slope, .extent = {2}}}};
    sac_score_grad_row(m, grad, score, 3, 0, 1, 0, 0, &aux);
    assert_true(grad[0] == 3 && grad[1] == 6 && grad[2] == 9);
    aux.tensor[0].grad = dslope;
    sac_score_grad_row(m, grad, score, 3, 0, 1, 0, 0, &aux);
    assert_true(dslope[0] == 0 && dslope[1] == 1 + 30 + 120 + 270);
    saccade_modifier_destroy(m);
}

static void additions_to_alternating_elements_and_slots_all_arrive(void **state) {
    (void)state;
    saccade_modifier *m = compiled(&(saccade_modifier_params){
        .kind = SACCADE_SCORE_KIND,
        .text = "score",
        .grad_text =
            "{ aux_grad(f, kv_idx % 3, grad); aux_grad(f, 0, 1.f); aux_grad(g, h, score); return grad; }",
        .num_aux = 2,
        .aux = (saccade_aux_decl[]){{"f", SACCADE_F32}, {"g", SACCADE_BF16}}});
    float f[3] = {0}, g[1] = {0}, expected[3] = {0}, grad[7], score[7];
    saccade_aux aux = {.tensor = {{.grad = f}, {.grad = g}}};
    for (int i = 0; i < 7; i++) {
        grad[i] = (float)(1 << i), score[i] = 1;
        expected[(4 + i) % 3] += grad[i];
        expected[0] += 1;
    }
    sac_score_grad_row(m, grad, score, 7, 0, 0, 0, 4, &aux);
    assert_true(f[0] == expected[0] && f[1] == expected[1] && f[2] == expected[2] && g[0] == 7);
    saccade_modifier_destroy(m);
}

SACCADE_SCORE_MOD(doubled, { return 2 * score; })

static void gradient_as_text_goes_with_a_native_form(void **state) {
    (void)state;
    saccade_modifier *m = made(&(saccade_modifier_params){.native = &doubled, .grad_text = "2 * grad"});
    assert_int_equal(sac_modifier_ready(ctx, m, true), SACCADE_OK);
    float grad = 3, score = 1;
    sac_score_grad_row(m, &grad, &score, 1, 0, 0, 0, 0, &no_aux);
    assert_true(grad == 6 && apply(m, 4) == 8);
    saccade_modifier_destroy(m);
}

/* The message must hold each of these words. */
static void fails_with(const saccade_modifier_params *params, const char *first, const char *second) {
    saccade_modifier *m = made(params);
    assert_int_equal(saccade_modifier_compile(ctx, m), SACCADE_COMPILE_FAILED);
    const char *text = saccade_last_error();
    if (!strstr(text, first) || !strstr(text, second))
        fail_msg("\"%s\" and \"%s\" were expected in:\n%s", first, second, text);
    assert_string_equal(saccade_modifier_compiler(m), "");
    saccade_modifier_destroy(m);
}

static void mistake_is_reported_with_name_and_line(void **state) {
    (void)state;
    saccade_modifier_params p = {
        .kind = SACCADE_SCORE_KIND, .name = "my softcap", .text = "score * undeclared"};
    fails_with(&p, "score_mod 'my softcap' does not compile", "my softcap:1:");
    p.text = "{\n  float t = score;\n  return t +* 2;\n}";
    fails_with(&p, "my softcap:3:", "error");
    p.text = "{\n\n\n return no_such_function(score); }";
    fails_with(&p, "my softcap:4:", "no_such_function");
    p.text = "score", p.grad_text = "grad *\n unheard_of";
    fails_with(&p, "my softcap (grad_text):2:", "unheard_of");
    p = (saccade_modifier_params){.kind = SACCADE_MASK_KIND, .name = "a\"\\\n$(b)", .text = "nothing"};
    fails_with(&p, "mask_mod", "a___$(b):1:");
}

static void slot_that_was_never_declared_is_named_unless_the_text_may_compute_it(void **state) {
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"score - scalar(slope)", "line 1: scalar(slope): there is no scalar 'slope'"},
        {"score +\n aux_f32(bias, h)", "line 2: aux_f32(bias, ...): there is no aux tensor 'bias'"},
        {"aux_f32 ( bias , aux_size(bias, 0) - 1)", "there is no aux tensor 'bias'"},
        {"{ int slot = 0; return score * scalar(slot); }", NULL},
    };
    const char *cap = "cap";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        saccade_modifier_params p = {.kind = SACCADE_SCORE_KIND,
                                     .name = "typo",
                                     .text = cases[i].text,
                                     .num_scalars = 1,
                                     .scalars = &cap};
        saccade_modifier *m = NULL;
        saccade_status status = saccade_modifier_create(ctx, &m, &p);
        const char *found = status == SACCADE_OK ? "" : saccade_last_error();
        if ((status == SACCADE_OK) != !cases[i].words || (cases[i].words && !strstr(found, cases[i].words)))
            fail_msg("%s\nwas expected of\n%s\nfound: %s", cases[i].words ? cases[i].words : "no error",
                     cases[i].text, found);
        saccade_modifier_destroy(m);
    }
}

static void hostile_text_is_a_compile_error_or_just_c(void **state) {
    (void)state;
    static const char *const errors[] = {
        "{ return score;",
        "score)",
        "(score",
        "{ return score; } }",
        "\"never closed",
        "1 /* never closed",
        "\xff\xfe\x80",
        "score; return 0",
        "{ return }",
        "return score",
        "{ return 1; } float f(void) {",
        "$(touch /tmp/x)",
        "`id`",
        "score @ 1",
        "'",
    };
    for (size_t k = 0; k < sizeof errors / sizeof *errors; k++) {
        saccade_modifier_params p = {.kind = SACCADE_SCORE_KIND, .name = "hostile", .text = errors[k]};
        saccade_modifier *m = made(&p);
        if (saccade_modifier_compile(ctx, m) != SACCADE_COMPILE_FAILED) fail_msg("text %zu compiled", k);
        saccade_modifier_destroy(m);
    }
    /* Closing the function and opening another is no more than C. */
    saccade_modifier *m = score_mod("{ return score + 1; } } static float another(float x) { return x; }\n"
                                    "static inline float third(void) { return another(1); ",
                                    NULL);
    assert_true(apply(m, 1) == 2);
    saccade_modifier_destroy(m);
    m = score_mod("score + sizeof \"#include <x> aux_f32(9, 9) \\\" /* \"", NULL);
    assert_true(apply(m, 0) == 33);
    saccade_modifier_destroy(m);
}

static void body_that_may_not_return_is_a_mistake(void **state) {
    if (strcmp(*state, "libtcc") == 0) skip_because("libtcc does not look whether every path returns");
    fails_with(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND,
                                          .name = "x",
                                          .text = "{ if (h) return score; }"},
               "x:1:", "non-void");
}

static void very_long_text_compiles(void **state) {
    (void)state;
    enum { TERMS = 4000 };
    char *text = malloc(16 * TERMS + 64), *end = text;
    assert_non_null(text);
    end += sprintf(end, "{ float t = score;\n");
    for (int i = 0; i < TERMS; i++) end += sprintf(end, "t += 1;\n");
    sprintf(end, "return t; }");
    saccade_modifier *m = score_mod(text, NULL);
    assert_true(apply(m, 1) == TERMS + 1);
    saccade_modifier_destroy(m);
    free(text);
}

static void endless_nesting_ends_in_an_error(void **state) {
    (void)state;
    static const char *const openings[] = {"(", "!", "{", "1 ? 1 : ", "(int)"};
    enum { TIMES = 12000 };
    for (int k = 0; k < 5; k++) {
        size_t size = strlen(openings[k]);
        char *text = malloc(size * TIMES + 1);
        assert_non_null(text);
        for (int i = 0; i < TIMES; i++) memcpy(text + (size_t)i * size, openings[k], size);
        text[size * TIMES] = '\0';
        fails_with(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .name = "deep", .text = text},
                   "'deep'", "");
        free(text);
    }
}

static void changed_values_compile_nothing(void **state) {
    (void)state;
    saccade_modifier *m =
        compiled(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND,
                                            .text = "score * scalar(s) + aux_f32(f, 0) + aux_size(f, 0)",
                                            .num_aux = 1,
                                            .aux = (saccade_aux_decl[]){{"f", SACCADE_F32}},
                                            .num_scalars = 1,
                                            .scalars = (const char *[]){"s"}});
    int64_t before = sac_mod_state_of(ctx)->num_compiled;
    for (int i = 1; i <= 5; i++) {
        float values[8] = {100.0f * (float)i}, s = (float)i, score = 1;
        saccade_bound_modifier bound = {.modifier = m,
                                        .aux = (const DLTensor *[]){SACCADE_TENSOR(values, SACCADE_F32, i)},
                                        .scalars = &s};
        saccade_aux aux;
        assert_int_equal(sac_modifier_bind(&aux, &bound, (DLDevice){kDLCPU, 0}, "score_mod"), SACCADE_OK);
        assert_int_equal(sac_modifier_ready(ctx, m, false), SACCADE_OK);
        sac_score_row(m, &score, 1, 0, 0, 0, 0, &aux);
        assert_true(score == 102.0f * (float)i);
    }
    assert_int_equal(before, 1);
    assert_int_equal(sac_mod_state_of(ctx)->num_compiled, before);
    saccade_modifier_destroy(m);
}

static void combination_compiles_its_texts(void **state) {
    (void)state;
    saccade_modifier *first =
        made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "q_idx >= kv_idx"});
    saccade_modifier *second =
        made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "kv_idx % 2"});
    saccade_modifier *both, *bad, *worse;
    assert_int_equal(sac_modifier_combine(&both, SAC_MOD_AND, first, second), SACCADE_OK);
    assert_int_equal(sac_modifier_ready(ctx, both, false), SACCADE_OK);
    uint8_t visible[8];
    sac_mask_row(both, visible, 8, 0, 0, 4, 0, &no_aux);
    assert_memory_equal(visible, ((uint8_t[]){0, 1, 0, 1, 0, 0, 0, 0}), 8);
    assert_string_equal(saccade_modifier_compiler(both), saccade_modifier_compiler(first));
    bad = made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .name = "bad", .text = "nothing"});
    assert_int_equal(sac_modifier_combine(&worse, SAC_MOD_OR, both, bad), SACCADE_OK);
    assert_int_equal(sac_modifier_ready(ctx, worse, false), SACCADE_COMPILE_FAILED);
    assert_non_null(strstr(saccade_last_error(), "'bad'"));
    saccade_modifier *all[] = {first, second, both, bad, worse};
    for (int i = 0; i < 5; i++) saccade_modifier_destroy(all[i]);
}

/* Runs the tests above with one compiler. */
static int run_with(const char *compiler) {
#define TEST(function)                                                                                       \
    { #function, function, make_context_of, end_context, (void *)(uintptr_t)compiler }
    const struct CMUnitTest tests[] = {
        TEST(compiler_is_reported),
        TEST(expression_and_body_are_the_same_function),
        TEST(rows_see_their_coordinates),
        TEST(mathematical_functions_are_right_everywhere),
        TEST(plain_c_needs_no_support_library),
        TEST(every_dtype_is_read_by_name_and_by_number),
        TEST(gradient_text_gets_grad_and_score_and_adds_to_aux),
        TEST(additions_to_alternating_elements_and_slots_all_arrive),
        TEST(gradient_as_text_goes_with_a_native_form),
        TEST(mistake_is_reported_with_name_and_line),
        TEST(slot_that_was_never_declared_is_named_unless_the_text_may_compute_it),
        TEST(hostile_text_is_a_compile_error_or_just_c),
        TEST(body_that_may_not_return_is_a_mistake),
        TEST(very_long_text_compiles),
        TEST(endless_nesting_ends_in_an_error),
        TEST(changed_values_compile_nothing),
        TEST(combination_compiles_its_texts),
    };
    printf("with %s\n", compiler);
    return cmocka_run_group_tests_name(compiler, tests, NULL, NULL);
}

/* Is there such a program, and can this build use it? Those that are not there are announced, and counted. */
static bool usable(const char *compiler) {
    saccade_context *probe;
    if (saccade_context_create(&probe, &(saccade_context_params){.cache_dir = "", .compiler = compiler}) !=
        SACCADE_OK)
        return false;
    saccade_modifier *m = NULL;
    saccade_modifier_params p = {.kind = SACCADE_MASK_KIND, .text = "1"};
    bool found = saccade_modifier_create(probe, &m, &p) == SACCADE_OK &&
                 saccade_modifier_compile(probe, m) == SACCADE_OK;
    if (!found) printf("skipped: %s: %s\n", compiler, saccade_last_error());
    saccade_modifier_destroy(m);
    saccade_context_destroy(probe);
    return found;
}

int main(void) {
    static const char *const compilers[] = {"gcc", "clang", "libtcc"};
    int failures = 0, used = 0;
    setenv("LC_ALL", "C", 1); /* the compilers' messages in English */
    for (int i = 0; i < 3; i++)
        if (usable(compilers[i])) {
            failures += run_with(compilers[i]);
            used++;
        }
    return failures > 0 || used == 0;
}
