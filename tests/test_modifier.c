/* test_modifier.c - making, checking, sharing, combining and binding modifiers, without compiling any text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <saccade/native_modifier.h>

#include "mod/modifier.h"
#include "support/cmocka_all.h"
#include "support/test_context.h"

enum { prefix };
SACCADE_MASK_MOD(prefix_lm, { return kv_idx < aux_i32(prefix, b) || q_idx >= kv_idx; })
SACCADE_MASK_MOD(near, { return q_idx - kv_idx <= (int32_t)scalar(0); })
SACCADE_SCORE_MOD(biased, { return score + scalar(0) * aux_f32(0, h * aux_size(0, 1) + kv_idx); })
SACCADE_SCORE_GRAD(biased, {
    aux_grad(0, h * aux_size(0, 1) + kv_idx, grad * scalar(0));
    return grad;
})

/* Parameters that must be refused, with words that name the fault. */
static void refused(const saccade_modifier_params *params, const char *words) {
    saccade_modifier *m = NULL;
    assert_int_equal(saccade_modifier_create(ctx, &m, params), SACCADE_INVALID_ARGUMENT);
    assert_null(m);
    if (!strstr(saccade_last_error(), words))
        fail_msg("\"%s\" was expected in the message\n%s", words, saccade_last_error());
}

static saccade_modifier *made_prefix_lm(void) {
    return made(
        &(saccade_modifier_params){.native = &prefix_lm,
                                   .num_aux = 1,
                                   .aux = (saccade_aux_decl[]){{.name = "prefix", .dtype = SACCADE_I32}}});
}

static saccade_modifier *made_near(void) {
    return made(
        &(saccade_modifier_params){.native = &near, .num_scalars = 1, .scalars = (const char *[]){"reach"}});
}

static void native_mask_is_evaluated_a_row_at_a_time(void **state) {
    (void)state;
    saccade_modifier *m = made_prefix_lm();
    assert_int_equal(sac_modifier_ready(ctx, m, false), SACCADE_OK);
    assert_string_equal(saccade_modifier_compiler(m), "native");
    int32_t lengths[2] = {3, 7};
    saccade_aux aux;
    saccade_bound_modifier bound = {.modifier = m,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(lengths, SACCADE_I32, 2)}};
    assert_int_equal(sac_modifier_bind(&aux, &bound, (DLDevice){kDLCPU, 0}, "mask_mod"), SACCADE_OK);
    uint8_t visible[10];
    for (int b = 0; b < 2; b++)
        for (int q = 0; q < 12; q++) {
            sac_mask_row(m, visible, 10, b, 0, q, 2, &aux);
            for (int i = 0; i < 10; i++)
                if (visible[i] != (2 + i < lengths[b] || q >= 2 + i))
                    fail_msg("b %d q %d kv %d: %d", b, q, 2 + i, visible[i]);
        }
    saccade_modifier_destroy(m);
}

static void native_score_and_its_gradient_read_and_add_to_slots(void **state) {
    (void)state;
    saccade_modifier *m =
        made(&(saccade_modifier_params){.native = &biased,
                                        .native_grad = &biased_grad,
                                        .num_aux = 1,
                                        .aux = (saccade_aux_decl[]){{.name = "bias", .dtype = SACCADE_F32}},
                                        .num_scalars = 1,
                                        .scalars = (const char *[]){"weight"}});
    assert_int_equal(sac_modifier_ready(ctx, m, true), SACCADE_OK);
    float bias[2][3] = {{1, 2, 3}, {4, 5, 6}}, dbias[2][3] = {{0}}, weight = 0.5f;
    saccade_aux aux;
    saccade_bound_modifier bound = {.modifier = m,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(bias, SACCADE_F32, 2, 3)},
                                    .scalars = &weight};
    assert_int_equal(sac_modifier_bind(&aux, &bound, (DLDevice){kDLCPU, 0}, "score_mod"), SACCADE_OK);
    float score[2] = {10, 20}, grad[2] = {1, 8};
    sac_score_row(m, score, 2, 0, 1, 0, 1, &aux);
    assert_true(score[0] == 12.5f && score[1] == 23.0f);
    sac_score_grad_row(m, grad, score, 2, 0, 1, 0, 1, &aux); /* no gradient asked for: nothing but grad */
    assert_true(grad[0] == 1 && grad[1] == 8);
    aux.tensor[0].grad = &dbias[0][0];
    sac_score_grad_row(m, grad, score, 2, 0, 1, 0, 1, &aux);
    sac_score_grad_row(m, grad, score, 1, 0, 1, 0, 1, &aux);
    assert_true(dbias[1][0] == 0 && dbias[1][1] == 1.0f && dbias[1][2] == 4.0f && dbias[0][1] == 0);
    saccade_modifier_destroy(m);
}

static void halves_are_read_as_floats(void **state) {
    (void)state;
    const struct {
        uint16_t bits;
        float value;
    } f16[] = {{0, 0},
               {0x8000, -0.0f},
               {0x3c00, 1},
               {0xc500, -5},
               {0x7bff, 65504},
               {0x0001, 5.9604645e-8f},
               {0x83ff, -6.0975552e-5f},
               {0x7c00, INFINITY},
               {0xfc00, -INFINITY}};
    for (size_t i = 0; i < sizeof f16 / sizeof *f16; i++) {
        float found = saccade_from_f16(f16[i].bits);
        if (memcmp(&found, &f16[i].value, sizeof found) != 0)
            fail_msg("%04x: %.9g instead of %.9g", f16[i].bits, found, f16[i].value);
    }
    float nan = saccade_from_f16(0x7e01);
    assert_true(nan != nan);
    assert_true(saccade_from_bf16(0xc0a0) == -5.0f);
}

static const char *row_of(const saccade_modifier *m, int q, const saccade_aux *aux) {
    static char text[13];
    uint8_t visible[12];
    memset(visible, 7, sizeof visible);
    sac_mask_row(m, visible, 12, 0, 0, q, 0, aux);
    for (int i = 0; i < 12; i++) text[i] = visible[i] < 2 ? (char)('0' + visible[i]) : '?';
    return text;
}

static void combinations_ask_each_operand_with_its_own_slots(void **state) {
    (void)state;
    saccade_modifier *first = made_prefix_lm(), *second = made_near(), *both, *either, *not_both, *deep;
    assert_int_equal(sac_modifier_combine(&both, SAC_MOD_AND, first, second), SACCADE_OK);
    assert_int_equal(sac_modifier_combine(&either, SAC_MOD_OR, first, second), SACCADE_OK);
    assert_int_equal(sac_modifier_combine(&not_both, SAC_MOD_NOT, both, NULL), SACCADE_OK);
    assert_int_equal(sac_modifier_combine(&deep, SAC_MOD_AND, either, not_both), SACCADE_OK);
    assert_int_equal(deep->num_aux, 2);
    assert_int_equal(deep->num_scalars, 2);
    saccade_modifier_destroy(first); /* the combinations keep theirs */
    saccade_modifier_destroy(second);

    int32_t lengths[2] = {3, 9};
    float reach[2] = {2, 1};
    saccade_aux aux;
    saccade_bound_modifier bound = {.modifier = deep,
                                    .aux = (const DLTensor *[]){SACCADE_TENSOR(&lengths[0], SACCADE_I32, 1),
                                                                SACCADE_TENSOR(&lengths[1], SACCADE_I32, 1)},
                                    .scalars = reach};
    assert_int_equal(sac_modifier_bind(&aux, &bound, (DLDevice){kDLCPU, 0}, "mask_mod"), SACCADE_OK);
    assert_int_equal(sac_modifier_ready(ctx, deep, false), SACCADE_OK);
    assert_string_equal(row_of(both, 6, &aux), "000011100000");     /* prefix 3, causal 6, reach 2 */
    assert_string_equal(row_of(either, 6, &aux), "111111111111");   /* (anything ahead is near) */
    assert_string_equal(row_of(not_both, 6, &aux), "111100011111"); /* !both */
    /* either with slots (3, 2) and not_both with slots (9, 1): prefix 9, causal 6, reach 1 */
    assert_string_equal(row_of(deep, 6, &aux), "111110000111");

    uint8_t visible[1000]; /* wider than the buffer inside */
    sac_mask_row(both, visible, 1000, 0, 0, 600, 0, &aux);
    for (int i = 0; i < 1000; i++)
        if (visible[i] != (i >= 598 && i <= 600)) fail_msg("kv %d: %d", i, visible[i]);
    saccade_modifier_destroy(both);
    saccade_modifier_destroy(either);
    saccade_modifier_destroy(not_both);
    saccade_modifier_destroy(deep);
}

static void combination_refuses_score_mods_too_many_slots_and_endless_nesting(void **state) {
    (void)state;
    saccade_modifier *score = made(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .text = "score"});
    saccade_modifier *m = made_prefix_lm(), *next = NULL;
    assert_int_equal(sac_modifier_combine(&next, SAC_MOD_AND, m, score), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "score_mod"));
    for (int slots = 2; slots <= SACCADE_MAX_AUX; slots *= 2) {
        assert_int_equal(sac_modifier_combine(&next, SAC_MOD_OR, m, m), SACCADE_OK);
        saccade_modifier_destroy(m);
        m = next;
        assert_int_equal(m->num_aux, slots);
    }
    assert_int_equal(sac_modifier_combine(&next, SAC_MOD_OR, m, m), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "32 aux tensors"));
    saccade_status status;
    int depth = 0;
    while ((status = sac_modifier_combine(&next, SAC_MOD_NOT, m, NULL)) == SACCADE_OK && depth++ < 1000) {
        saccade_modifier_destroy(m);
        m = next;
    }
    assert_int_equal(status, SACCADE_INVALID_ARGUMENT);
    assert_in_range(depth, 32, 999);
    saccade_modifier_destroy(m);
    saccade_modifier_destroy(score);
}

static void forms_that_do_not_go_together_are_refused(void **state) {
    (void)state;
    refused(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND}, "neither text nor native");
    refused(&(saccade_modifier_params){.text = "1"}, "kind: 0");
    refused(&(saccade_modifier_params){.kind = 3, .text = "1"}, "kind: 3");
    refused(&(saccade_modifier_params){.text = "1", .native = &near}, "both given");
    refused(&(saccade_modifier_params){.kind = SACCADE_SCORE_KIND, .native = &near}, "native 'near'");
    refused(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "1", .grad_text = "grad"},
            "grad_text: a mask_mod has no gradient");
    refused(&(saccade_modifier_params){.native = &biased, .native_grad = &biased_grad, .grad_text = "grad"},
            "grad_text and native_grad");
    refused(&(saccade_modifier_params){.native = &(saccade_native_modifier){.kind = SACCADE_MASK_KIND}},
            "mask_row");
    refused(&(saccade_modifier_params){.native = &biased, .native_grad = &(saccade_native_grad){0}}, "row");
    refused(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = " \n /* nothing */ "}, "is empty");
}

static void slots_with_bad_names_dtypes_or_counts_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",      "2nd",   "a b",      "a-b",  "int",      "class",
                                      "score", "q_idx", "expf",     "__x",  "aux_f32",  "scalar",
                                      "h",     "sac_x", "\xc3\xa9", "a\nb", "a;}int c", NULL};
    for (int i = 0; i == 0 || bad[i - 1]; i++) {
        saccade_aux_decl decl = {.name = bad[i], .dtype = SACCADE_F32};
        refused(
            &(saccade_modifier_params){
                .kind = SACCADE_SCORE_KIND, .text = "score", .num_aux = 1, .aux = &decl},
            "aux[0]");
        refused(
            &(saccade_modifier_params){
                .kind = SACCADE_SCORE_KIND, .text = "score", .num_scalars = 1, .scalars = &bad[i]},
            "scalars[0]");
    }
    DLDataType dtypes[] = {{kDLFloat, 8, 1}, {kDLUInt, 16, 1}, {kDLFloat, 32, 4}, {kDLUInt, 32, 1}};
    for (int i = 0; i < 4; i++) {
        saccade_aux_decl decl = {.name = "x", .dtype = dtypes[i]};
        refused(
            &(saccade_modifier_params){
                .kind = SACCADE_SCORE_KIND, .text = "score", .num_aux = 1, .aux = &decl},
            "aux[0] 'x': dtype");
    }
    saccade_aux_decl twice[] = {{"x", SACCADE_F32}, {"x", SACCADE_I32}};
    saccade_modifier_params p = {.kind = SACCADE_SCORE_KIND, .text = "score", .num_aux = 2, .aux = twice};
    refused(&p, "aux[1]: 'x' is the name of aux[0]");
    p.num_aux = 1, p.num_scalars = 1, p.scalars = (const char *[]){"x"};
    refused(&p, "scalars[0]: 'x' is the name of aux[0]");
    p.num_scalars = SACCADE_MAX_AUX + 1;
    refused(&p, "num_scalars: 17");
    p.num_scalars = -1;
    refused(&p, "num_scalars: -1");
    p.num_scalars = 1, p.scalars = NULL;
    refused(&p, "scalars: is NULL");
}

/* Declares f (fp32), i (int32), w (bf16) and the scalar s. */
static saccade_modifier_params with_slots(const char *text, const char *grad_text) {
    static const char *const scalars[] = {"s"};
    static saccade_aux_decl aux[3];
    aux[0] = (saccade_aux_decl){"f", SACCADE_F32};
    aux[1] = (saccade_aux_decl){"i", SACCADE_I32};
    aux[2] = (saccade_aux_decl){"w", SACCADE_BF16};
    return (saccade_modifier_params){.kind = SACCADE_SCORE_KIND,
                                     .name = "demo",
                                     .text = text,
                                     .grad_text = grad_text,
                                     .num_aux = 3,
                                     .aux = aux,
                                     .num_scalars = 1,
                                     .scalars = scalars};
}

static void accessor_at_odds_with_its_slot_is_refused_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *text, *grad_text, *words;
    } cases[] = {
        {"aux_i32(f, b)", NULL,
         "text of 'demo', line 1: aux_i32(f, ...): f is declared fp32, to be read with aux_f32"},
        {"{\n\n return aux_f32 ( 1 , b);}", NULL, "line 3: aux_f32(1, ...): i is declared int32"},
        {"aux_f16(w, 0)", NULL, "w is declared bf16"},
        {"score + aux_f32(3, b)", NULL, "aux_f32(3, ...): there are 3 aux tensors"},
        {"score + aux_f32(0xff, b)", NULL, "there are 3 aux tensors"},
        {"scalar(1)", NULL, "scalar(1, ...): there are 1 scalars"},
        {"scalar(f)", NULL, "f is an aux tensor"},
        {"score * s", NULL, "s by itself is a slot's number; its value is scalar(s)"},
        {"aux_f32(s, 0)", NULL, "s is a scalar"},
        {"aux_size(3, 0)", NULL, "there are 3 aux tensors"},
        {"aux_size(f, 4)", NULL, "dimensions are 0 to 3"},
        {"aux_f32(f, aux_f32(i, 0))", NULL, "i is declared int32"},
        {"aux_f32(/* i */ f, \"aux_i32(f\"[0] + ')' + aux_i32(f, 0))", NULL, "aux_i32(f"},
        {"{ aux_grad(f, 0, 1.f); return score; }", NULL, "aux_grad belongs into grad_text"},
        {"score", "{ aux_grad(i, 0, 1.f); return grad; }",
         "grad_text of 'demo', line 1: aux_grad(i, ...): i is int32"},
        {"score", "aux_i32(f, 0)", "grad_text of 'demo'"},
        {"{ return\n#include </etc/passwd>\n0; }", NULL, "line 2: a preprocessor line"},
        {"/* */ %:define x\n1", NULL, "line 1: a preprocessor line"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        saccade_modifier_params p = with_slots(cases[k].text, cases[k].grad_text);
        refused(&p, cases[k].words);
    }
}

static void what_only_a_compiler_can_judge_is_left_to_it(void **state) {
    (void)state;
    static const char *const texts[] = {
        "aux_f32(f, aux_i32(i, b))",
        "aux_bf16(w, 0) + scalar(s)",
        "aux_f32(aux_i32(i, 0), 0)",
        "aux_f32",
        "{ int own = 0; return aux_f32(own, 0); }",
        "aux_f32(i + 1 - 1, 0)",
        "score // aux_i32(f, 0)",
        "score /* aux_i32(f, 0) */",
        "\"aux_i32(f, 0)\"[0]",
        "my_aux_i32(f, 0)",
        "(",
        "}",
        "'",
        "\"",
        "1 /* never closed",
        "\xff\xfe",
        "#",
    };
    for (size_t k = 0; k + 1 < sizeof texts / sizeof *texts; k++) {
        saccade_modifier_params p = with_slots(texts[k], NULL);
        saccade_modifier_destroy(made(&p));
    }
    saccade_modifier_params hash = with_slots("#", NULL);
    refused(&hash, "preprocessor");
}

static void description_is_copied(void **state) {
    (void)state;
    char name[] = "mine", text[] = "kv_idx < aux_i32(first, 0)", slot[] = "first";
    saccade_aux_decl decl = {slot, SACCADE_I32};
    saccade_modifier *m = made(&(saccade_modifier_params){
        .kind = SACCADE_MASK_KIND, .name = name, .text = text, .num_aux = 1, .aux = &decl});
    memset(name, '#', 4), memset(text, '#', 8), memset(slot, '#', 5);
    assert_string_equal(m->name, "mine");
    assert_string_equal(m->text, "kv_idx < aux_i32(first, 0)");
    assert_string_equal(m->aux[0].name, "first");
    saccade_modifier_destroy(m);
    saccade_modifier_destroy(NULL);
}

static void native_form_keeps_its_text_word_for_word(void **state) {
    (void)state;
    assert_string_equal(prefix_lm.text, "{ return kv_idx < aux_i32(prefix, b) || q_idx >= kv_idx; }");
    saccade_modifier *m = made_prefix_lm();
    assert_string_equal(m->name, "prefix_lm");
    saccade_modifier_destroy(m);
}

static void values_at_odds_with_the_declaration_are_refused_by_name(void **state) {
    (void)state;
    saccade_modifier *m = made_prefix_lm();
    int32_t values[8] = {0};
    DLTensor good = *SACCADE_TENSOR(values, SACCADE_I32, 2, 3), bad[9];
    for (int i = 0; i < 9; i++) bad[i] = good;
    bad[0].dtype = SACCADE_F32;
    bad[1].device = (DLDevice){kDLCUDA, 1};
    bad[2].strides = (int64_t[]){1, 2};
    bad[3].data = NULL;
    bad[4].shape = (int64_t[]){2, -3};
    bad[5].ndim = 5, bad[5].shape = (int64_t[]){1, 1, 1, 1, 1};
    bad[6].byte_offset = 2;
    bad[7].dtype.lanes = 2;
    bad[8].shape = (int64_t[]){INT64_MAX, INT64_MAX};
    const char *words[] = {"dtype fp32",   "device cuda:1", "contiguous", "data is NULL", "shape[1] is -3",
                           "5 dimensions", "aligned",       "lanes",      "contiguous"};
    saccade_aux aux;
    for (int i = 0; i < 9; i++) {
        saccade_bound_modifier bound = {.modifier = m, .aux = (const DLTensor *[]){&bad[i]}};
        assert_int_equal(sac_modifier_bind(&aux, &bound, (DLDevice){kDLCPU, 0}, "mask_mod"),
                         SACCADE_INVALID_ARGUMENT);
        if (!strstr(saccade_last_error(), words[i]) ||
            !strstr(saccade_last_error(), "mask_mod.aux[0] 'prefix'"))
            fail_msg("\"%s\" was expected in: %s", words[i], saccade_last_error());
    }
    saccade_bound_modifier none = {.modifier = m}, null = {.modifier = m, .aux = (const DLTensor *[]){NULL}};
    assert_int_equal(sac_modifier_bind(&aux, &none, good.device, "mask_mod"), SACCADE_INVALID_ARGUMENT);
    assert_int_equal(sac_modifier_bind(&aux, &null, good.device, "mask_mod"), SACCADE_INVALID_ARGUMENT);
    saccade_modifier_destroy(m);
}

static void bound_slots_have_offset_extents_and_nothing_beyond(void **state) {
    (void)state;
    saccade_modifier *m = made_prefix_lm();
    int32_t values[8] = {0};
    DLTensor t = *SACCADE_TENSOR(values, SACCADE_I32, 1, 3);
    t.byte_offset = 8;
    t.strides = (int64_t[]){77, 1}; /* the stride of one row means nothing */
    saccade_aux aux;
    memset(&aux, 0xff, sizeof aux);
    saccade_bound_modifier bound = {.modifier = m, .aux = (const DLTensor *[]){&t}};
    assert_int_equal(sac_modifier_bind(&aux, &bound, t.device, "mask_mod"), SACCADE_OK);
    assert_ptr_equal(aux.tensor[0].data, values + 2);
    assert_null(aux.tensor[0].grad);
    assert_int_equal(aux.tensor[0].extent[0], 1);
    assert_int_equal(aux.tensor[0].extent[1], 3);
    assert_int_equal(aux.tensor[0].extent[2], 0);
    assert_null(aux.tensor[1].data);
    t.shape = (int64_t[]){0, 3}, t.data = NULL, t.byte_offset = 0; /* empty is legal */
    assert_int_equal(sac_modifier_bind(&aux, &bound, t.device, "mask_mod"), SACCADE_OK);
    assert_int_equal(sac_modifier_bind(&aux, &(saccade_bound_modifier){0}, t.device, "mask_mod"), SACCADE_OK);
    saccade_modifier_destroy(m);
}

static void backward_pass_needs_a_gradient(void **state) {
    (void)state;
    saccade_modifier_params p = with_slots("score", NULL);
    saccade_modifier *without = made(&p);
    assert_int_equal(sac_modifier_ready(ctx, without, true), SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "'demo'"));
    assert_false(sac_modifier_has_grad(without));
    p.grad_text = "grad";
    saccade_modifier *with = made(&p);
    assert_true(sac_modifier_has_grad(with));
    saccade_modifier_destroy(with);
    saccade_modifier_destroy(without);
}

static void words_are_told_from_parts_of_words_and_from_comments(void **state) {
    (void)state;
    const struct {
        const char *text;
        bool names_h;
    } cases[] = {{"q_idx >= kv_idx", false},        {"q_idx % 4 == h", true},
                 {"hh_h + h_ > 0 /* h */", false},  {"{ int x = 3; // h\n return x > kv_idx; }", false},
                 {"{ return q_idx > 7-h; }", true}, {"q_idx == 'h'", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        saccade_modifier *m =
            made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = cases[i].text});
        if (sac_modifier_names(m, "h") != cases[i].names_h)
            fail_msg("\"%s\": is h named? %d was expected", cases[i].text, cases[i].names_h);
        saccade_modifier_destroy(m);
    }
    saccade_modifier *without = made_prefix_lm(), *both, *neither;
    saccade_modifier *with =
        made(&(saccade_modifier_params){.kind = SACCADE_MASK_KIND, .text = "kv_idx % 2 == h % 2"});
    assert_int_equal(sac_modifier_combine(&both, SAC_MOD_AND, without, with), SACCADE_OK);
    assert_int_equal(sac_modifier_combine(&neither, SAC_MOD_NOT, without, NULL), SACCADE_OK);
    assert_true(sac_modifier_names(both, "h"));
    assert_false(sac_modifier_names(neither, "h"));
    saccade_modifier *all[] = {without, with, both, neither};
    for (int i = 0; i < 4; i++) saccade_modifier_destroy(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native_mask_is_evaluated_a_row_at_a_time),
        cmocka_unit_test(native_score_and_its_gradient_read_and_add_to_slots),
        cmocka_unit_test(halves_are_read_as_floats),
        cmocka_unit_test(combinations_ask_each_operand_with_its_own_slots),
        cmocka_unit_test(combination_refuses_score_mods_too_many_slots_and_endless_nesting),
        cmocka_unit_test(forms_that_do_not_go_together_are_refused),
        cmocka_unit_test(slots_with_bad_names_dtypes_or_counts_are_refused),
        cmocka_unit_test(accessor_at_odds_with_its_slot_is_refused_with_its_line),
        cmocka_unit_test(what_only_a_compiler_can_judge_is_left_to_it),
        cmocka_unit_test(words_are_told_from_parts_of_words_and_from_comments),
        cmocka_unit_test(description_is_copied),
        cmocka_unit_test(native_form_keeps_its_text_word_for_word),
        cmocka_unit_test(values_at_odds_with_the_declaration_are_refused_by_name),
        cmocka_unit_test(bound_slots_have_offset_extents_and_nothing_beyond),
        cmocka_unit_test(backward_pass_needs_a_gradient),
    };
    return cmocka_run_group_tests(tests, make_context_without_cache, end_context);
}
