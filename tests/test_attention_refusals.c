/* test_attention_refusals.c - calls that cannot be served: the status, the words, and that nothing was written. What is
 * wrong with single arguments is in test_attention_arguments.c; here are masks, modifiers, rules and the whole path. */
#include <stdlib.h>
#include <string.h>

#include "support/attention_suite.h"

enum { BATCH = 2, QUERIES = 4, KEYS = 6, HEADS = 4, KV_HEADS = 2, DIM = 64, MAX_ELEMENTS = 4096 };

/* A call that is fine as it is; a refusal spoils one thing. */
typedef struct plan {
    const char *backend;
    saccade_context *ctx;
    float values[MAX_ELEMENTS];                  /* read as q, k, v, out, dout by whoever asks */
    float out[MAX_ELEMENTS], grad[MAX_ELEMENTS]; /* poisoned */
    int32_t cu_seqlens[3];
    DLDataType dtype;
    int64_t head_dim, heads, kv_heads;
    bool packed, backward;
    saccade_attention_params params;
    saccade_block_mask *mask;
    saccade_modifier *score_mod, *mask_mod;
} plan;

static void fill_poison(plan *p) {
    memset(p->out, 0xff, sizeof p->out);
    memset(p->grad, 0xff, sizeof p->grad);
}

static bool untouched(const plan *p) {
    for (size_t i = 0; i < sizeof p->out; i++)
        if (((const uint8_t *)p->out)[i] != 0xff || ((const uint8_t *)p->grad)[i] != 0xff) return false;
    return true;
}

static saccade_status attempt(plan *p) {
    int64_t tokens = (int64_t)BATCH * QUERIES, d = p->head_dim;
#define SHAPED(pointer, rows, heads_)                                                                        \
    (p->packed ? SACCADE_TENSOR(pointer, p->dtype, tokens, heads_, d)                                        \
               : SACCADE_TENSOR(pointer, p->dtype, BATCH, rows, heads_, d))
    const DLTensor *q = SHAPED(p->values, QUERIES, p->heads), *k = SHAPED(p->values, KEYS, p->kv_heads);
    DLTensor *out = SHAPED(p->out, QUERIES, p->heads);
    if (!p->backward) return saccade_attention_forward(p->ctx, q, k, k, out, NULL, &p->params);
    saccade_attention_grads grads = {.dout = SHAPED(p->values, QUERIES, p->heads),
                                     .dq = SHAPED(p->grad, QUERIES, p->heads),
                                     .dk = SHAPED(p->out, KEYS, p->kv_heads)};
    const DLTensor *lse = SACCADE_TENSOR(p->values, SACCADE_F32, BATCH, p->heads, QUERIES);
    return saccade_attention_backward(p->ctx, q, k, k, SHAPED(p->values, QUERIES, p->heads), lse, &grads,
                                      &p->params);
}

/* ---- what is spoiled ---- */

static void pack(plan *p, int32_t first, int32_t second, int32_t third) {
    p->packed = true;
    p->cu_seqlens[0] = first;
    p->cu_seqlens[1] = second;
    p->cu_seqlens[2] = third;
}
static void packed_beyond_the_tokens(plan *p) { pack(p, 0, 4, 12); }
static void packed_from_above_zero(plan *p) { pack(p, 2, 4, 8); }
static void packed_decreasing(plan *p) { pack(p, 0, 6, 4); }

static void mask_of(plan *p, int32_t batch, int32_t heads, int32_t q_len, int32_t kv_len) {
    saccade_mask_shape shape = {batch, heads, q_len, kv_len, 2, 2};
    assert_int_equal(saccade_block_mask_causal(p->ctx, &p->mask, &shape, false), SACCADE_OK);
    p->params.block_mask = p->mask;
}
static void mask_for_more_queries(plan *p) { mask_of(p, 1, 1, QUERIES + 1, KEYS); }
static void mask_for_fewer_keys(plan *p) { mask_of(p, 1, 1, QUERIES, KEYS - 1); }
static void mask_for_other_batch(plan *p) { mask_of(p, BATCH + 1, 1, QUERIES, KEYS); }
static void mask_for_other_heads(plan *p) { mask_of(p, 1, KV_HEADS, QUERIES, KEYS); }

static void make_modifier(plan *p, saccade_modifier **made, saccade_modifier_kind kind, const char *text) {
    saccade_modifier_params params = {.kind = kind, .text = text};
    assert_int_equal(saccade_modifier_create(p->ctx, made, &params), SACCADE_OK);
}
static void two_mask_mods(plan *p) {
    mask_of(p, 1, 1, QUERIES, KEYS);
    make_modifier(p, &p->mask_mod, SACCADE_MASK_KIND, "q_idx != 1");
    p->params.mask_mod.modifier = p->mask_mod;
}
static void score_mod_as_mask_mod(plan *p) {
    make_modifier(p, &p->score_mod, SACCADE_SCORE_KIND, "score + 1.f");
    p->params.mask_mod.modifier = p->score_mod;
}
static void backward_without_its_text(plan *p) {
    make_modifier(p, &p->score_mod, SACCADE_SCORE_KIND, "score * 2.f");
    p->params.score_mod.modifier = p->score_mod;
    p->backward = true;
}
static void text_that_does_not_compile(plan *p) {
    make_modifier(p, &p->mask_mod, SACCADE_MASK_KIND, "{\n    return q_idx >= nonsense;\n}");
    p->params.mask_mod.modifier = p->mask_mod;
}

static void dropout(plan *p) { p->params.dropout = 0.1f; }
static void odd_head_dim(plan *p) { p->head_dim = 59; }
static void huge_head_dim(plan *p) { p->head_dim = 264; }
static void double_precision(plan *p) { p->dtype = SACCADE_F64; }
static void heads_no_multiple(plan *p) { p->heads = 3; }
static void unknown_backend(plan *p) { p->params.backend = "abacus"; }
static void small_workspace(plan *p) {
    p->params.workspace = p->values;
    p->params.workspace_bytes = 64;
}

typedef struct refusal {
    const char *name;
    void (*spoil)(plan *p);
    saccade_status status;
    const char *words[3];
} refusal;

static const refusal refusals[] = {
    {"cu_seqlens_beyond_the_tokens",
     packed_beyond_the_tokens,
     SACCADE_INVALID_ARGUMENT,
     {"cu_seqlens_q", "12", "8"}},
    {"cu_seqlens_from_above_zero",
     packed_from_above_zero,
     SACCADE_INVALID_ARGUMENT,
     {"cu_seqlens_q", "2", "0"}},
    {"cu_seqlens_decreasing", packed_decreasing, SACCADE_INVALID_ARGUMENT, {"cu_seqlens_q", "6", "4"}},
    {"block_mask_for_more_queries",
     mask_for_more_queries,
     SACCADE_INVALID_ARGUMENT,
     {"block_mask", "5", "4"}},
    {"block_mask_for_fewer_keys", mask_for_fewer_keys, SACCADE_INVALID_ARGUMENT, {"block_mask", "5", "6"}},
    {"block_mask_for_other_batch", mask_for_other_batch, SACCADE_INVALID_ARGUMENT, {"block_mask", "3", "2"}},
    {"block_mask_for_other_heads", mask_for_other_heads, SACCADE_INVALID_ARGUMENT, {"block_mask", "2", "4"}},
    {"two_mask_mods", two_mask_mods, SACCADE_INVALID_ARGUMENT, {"mask_mod", "saccade_block_mask_and"}},
    {"score_mod_as_mask_mod", score_mod_as_mask_mod, SACCADE_INVALID_ARGUMENT, {"mask_mod", "score_mod"}},
    {"score_mod_without_backward_text",
     backward_without_its_text,
     SACCADE_UNSUPPORTED,
     {"score_mod", "backward"}},
    {"text_that_does_not_compile", text_that_does_not_compile, SACCADE_COMPILE_FAILED, {"nonsense", "2"}},
    {"dropout", dropout, SACCADE_UNSUPPORTED, {"dropout"}},
    {"head_dim_59", odd_head_dim, SACCADE_UNSUPPORTED, {"head_dim", "59"}},
    {"head_dim_264", huge_head_dim, SACCADE_UNSUPPORTED, {"head_dim", "264", "256"}},
    {"double_precision", double_precision, SACCADE_UNSUPPORTED, {"dtype", "64"}},
    {"heads_no_multiple_of_key_heads", heads_no_multiple, SACCADE_INVALID_ARGUMENT, {"3", "2"}},
    {"unknown_backend", unknown_backend, SACCADE_INVALID_ARGUMENT, {"abacus", "cpu", "reference"}},
    {"workspace_too_small", small_workspace, SACCADE_INVALID_ARGUMENT, {"workspace", "64"}},
};

static plan *plan_create(const char *backend) {
    plan *p = calloc(1, sizeof *p);
    assert_non_null(p);
    assert_int_equal(saccade_context_create(&p->ctx, NULL), SACCADE_OK);
    fill_poison(p);
    p->backend = backend;
    p->dtype = SACCADE_F32;
    p->head_dim = DIM;
    p->heads = HEADS;
    p->kv_heads = KV_HEADS;
    p->params.backend = backend;
    return p;
}

static void plan_free(plan *p) {
    saccade_block_mask_destroy(p->mask);
    saccade_modifier_destroy(p->score_mod);
    saccade_modifier_destroy(p->mask_mod);
    saccade_context_destroy(p->ctx);
    free(p);
}

static void check_refusal(const refusal *r, const char *backend) {
    plan *p = plan_create(backend);
    r->spoil(p);
    int32_t cu_k[3] = {0, 3, 8};
    DLTensor *cu_seqlens_q = SACCADE_TENSOR(p->cu_seqlens, SACCADE_I32, 3);
    DLTensor *cu_seqlens_k = SACCADE_TENSOR(cu_k, SACCADE_I32, 3);
    p->params.cu_seqlens_q = p->packed ? cu_seqlens_q : NULL;
    p->params.cu_seqlens_k = p->packed ? cu_seqlens_k : NULL;
    saccade_status status = attempt(p);
    if (status != r->status)
        fail_msg("%s: %s (%s), expected: %s", r->name, saccade_status_text(status), saccade_last_error(),
                 saccade_status_text(r->status));
    for (int i = 0; i < 3 && r->words[i]; i++)
        if (!strstr(saccade_last_error(), r->words[i]))
            fail_msg("%s: \"%s\" does not name \"%s\"", r->name, saccade_last_error(), r->words[i]);
    if (!untouched(p)) fail_msg("%s: refused, but something was written", r->name);
    plan_free(p);
}

static void what_cannot_be_served_is_refused_with_reasons_and_nothing_is_written(void **state) {
    const char *backend = usable_host_backend(state); /* the arguments are in its memory */
    for (size_t i = 0; i < COUNT_OF(refusals); i++) check_refusal(&refusals[i], backend);
}

static void the_call_is_served_when_nothing_is_spoiled(void **state) {
    const char *backend = usable_host_backend(state);
    for (int backward = 0; backward < 2; backward++) {
        plan *p = plan_create(backend);
        p->backward = backward;
        if (attempt(p) != SACCADE_OK) fail_msg("%s", saccade_last_error());
        assert_false(untouched(p));
        plan_free(p);
    }
}

/* fp64 is the reference's own: chosen without being asked for, since nothing else serves. */
static void double_precision_goes_to_the_reference_unless_pinned(void **state) {
    (void)state;
    plan *p = plan_create(NULL);
    double q[2 * 8] = {1}, out[2 * 8];
    DLTensor *rows = SACCADE_TENSOR(q, SACCADE_F64, 1, 2, 1, 8);
    assert_int_equal(saccade_attention_forward(p->ctx, rows, rows, rows,
                                               SACCADE_TENSOR(out, SACCADE_F64, 1, 2, 1, 8), NULL, NULL),
                     SACCADE_OK);
    plan_free(p);
}

int main(void) {
    static const suite_extra extras[] = {
        {"the_call_is_served_when_nothing_is_spoiled", the_call_is_served_when_nothing_is_spoiled},
        {"what_cannot_be_served_is_refused_with_reasons_and_nothing_is_written",
         what_cannot_be_served_is_refused_with_reasons_and_nothing_is_written},
        {"double_precision_goes_to_the_reference_unless_pinned",
         double_precision_goes_to_the_reference_unless_pinned},
    };
    return attention_suite("attention_refusals", NULL, 0, extras, COUNT_OF(extras), false);
}
