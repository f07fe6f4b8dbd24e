/* attention_run.c - tensors for every operand, the two calls, and what must not have changed. */
#include "support/attention_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/blocks.h"
#include "support/cmocka_all.h"
#include "support/cuda_graph.h"

enum { WORKSPACE_GUARD = 4096 };

/* Everything one run owns. */
typedef struct session {
    const problem *p;
    const test_device *device;
    const run_options *options;
    saccade_context *ctx;
    test_tensor tensors[NUM_OPERANDS];
    test_tensor score_aux[TEST_MAX_SLOTS], mask_aux[TEST_MAX_SLOTS], block_aux[TEST_MAX_SLOTS];
    const DLTensor *score_aux_list[TEST_MAX_SLOTS], *mask_aux_list[TEST_MAX_SLOTS],
        *block_aux_list[TEST_MAX_SLOTS];
    saccade_modifier *score_mod, *mask_mod, *block_mod;
    saccade_block_mask *blocks;
    saccade_attention_params params;
    saccade_attention_grads grads;
    DLTensor *daux[TEST_MAX_SLOTS];
} session;

static DLTensor *tensor_of(session *s, test_operand operand) {
    return test_tensor_or_null(&s->tensors[operand]);
}

/* Strided views of q-like operands; in a mixed run each its own, and outputs never share memory. */
static test_layout layout_of(const run_options *options, test_operand operand) {
    bool result = operand >= NUM_INPUTS;
    if (operand == LSE || operand == DLSE) return LAYOUT_ROW_MAJOR;
    if (options->layout == LAYOUT_ONE_HEAD) return operand <= V ? LAYOUT_ONE_HEAD : LAYOUT_ROW_MAJOR;
    if (options->layout == LAYOUT_MIXED) return (test_layout)((operand * 5 + result) % LAYOUT_ODD);
    return options->layout;
}

static DLDataType dtype_of(test_operand operand, sac_dtype dtype) {
    if (test_operand_in_dtype(operand)) return test_dtype(dtype);
    return operand >= CU_SEQLENS_Q && operand <= SEQUSED_K ? SACCADE_I32 : SACCADE_F32;
}

static void make_tensors(session *s, sac_dtype dtype, const run_options *options) {
    for (test_operand operand = 0; operand < NUM_OPERANDS; operand++) {
        test_shape shape = problem_shape(s->p, operand);
        if (options->without >> operand & 1) shape.ndim = 0;
        test_tensor_make(&s->tensors[operand], s->device, dtype_of(operand, dtype), &shape,
                         layout_of(options, operand));
        if (operand < NUM_INPUTS) test_tensor_write(&s->tensors[operand], s->p->values[operand]);
    }
}

/* The modifier with its aux tensors on that device. */
static saccade_bound_modifier bind(session *s, const test_device *device, const test_modifier *modifier,
                                   const saccade_aux *values, saccade_modifier **made, test_tensor *tensors,
                                   const DLTensor **list) {
    if (!modifier) return (saccade_bound_modifier){0};
    *made = test_modifier_create(s->ctx, modifier, s->p->c.as_text);
    for (int32_t i = 0; i < modifier->num_aux; i++) {
        test_shape shape = modifier->aux[i].shape(&s->p->c);
        test_tensor_make(&tensors[i], device, modifier->aux[i].decl.dtype, &shape, LAYOUT_ROW_MAJOR);
        double *doubles = malloc((size_t)test_shape_size(&shape) * sizeof(double) + 1);
        assert_non_null(doubles);
        for (int64_t e = 0; e < test_shape_size(&shape); e++)
            doubles[e] = modifier->aux[i].decl.dtype.code == kDLInt
                             ? ((const int32_t *)values->tensor[i].data)[e]
                             : (double)((const float *)values->tensor[i].data)[e];
        test_tensor_write(&tensors[i], doubles);
        free(doubles);
        list[i] = &tensors[i].tensor;
    }
    return (saccade_bound_modifier){.modifier = *made, .aux = list, .scalars = modifier->scalars};
}

static void make_params(session *s, const char *backend) {
    const attention_case *c = &s->p->c;
    saccade_bound_modifier mask_mod =
        bind(s, s->device, c->mask_mod, &s->p->mask_aux, &s->mask_mod, s->mask_aux, s->mask_aux_list);
    saccade_bound_modifier block_mod = /* masks are built on the host, wherever they serve */
        bind(s, &test_host, c->mask_mod, &s->p->mask_aux, &s->block_mod, s->block_aux, s->block_aux_list);
    s->blocks = test_blocks_create(s->ctx, c, &block_mod);
    s->params = (saccade_attention_params){
        .has_scale = c->scale != 0 || c->zero_scale,
        .scale = c->scale,
        .causal = c->causal,
        .window = c->window,
        .softcap = c->softcap,
        .sink = tensor_of(s, SINK),
        .alibi_slopes = tensor_of(s, ALIBI),
        .cu_seqlens_q = tensor_of(s, CU_SEQLENS_Q),
        .cu_seqlens_k = tensor_of(s, CU_SEQLENS_K),
        .seqused_q = tensor_of(s, SEQUSED_Q),
        .seqused_k = tensor_of(s, SEQUSED_K),
        .max_seqlen_q = s->p->packed ? c->seqlen_q : 0,
        .max_seqlen_k = s->p->packed ? c->seqlen_k : 0,
        .score_mod = bind(s, s->device, c->score_mod, &s->p->score_aux, &s->score_mod, s->score_aux,
                          s->score_aux_list),
        .block_mask = s->blocks,
        .deterministic = c->deterministic,
        .backend = backend,
    };
    if (!test_blocks_carry_mod(c)) s->params.mask_mod = mask_mod;
    s->grads = (saccade_attention_grads){.dout = tensor_of(s, DOUT),
                                         .dlse = tensor_of(s, DLSE),
                                         .dq = tensor_of(s, DQ),
                                         .dk = tensor_of(s, DK),
                                         .dv = tensor_of(s, DV),
                                         .dsink = tensor_of(s, DSINK)};
    for (int slot = 0; slot < TEST_MAX_SLOTS; slot++) s->daux[slot] = tensor_of(s, DAUX + slot);
    if (c->score_mod) s->grads.daux = s->daux;
}

static session *session_create(const problem *p, const char *backend, sac_dtype dtype,
                               const run_options *options) {
    session *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->p = p;
    s->device = test_device_of(backend);
    s->options = options;
    assert_int_equal(
        saccade_context_create(
            &s->ctx, &(saccade_context_params){.num_threads = options->num_threads, .isa = options->isa}),
        SACCADE_OK);
    make_tensors(s, dtype, options);
    make_params(s, backend);
    return s;
}

static void session_free(session *s) {
    for (int i = 0; i < NUM_OPERANDS; i++) test_tensor_free(&s->tensors[i]);
    for (int i = 0; i < TEST_MAX_SLOTS; i++) {
        test_tensor_free(&s->score_aux[i]);
        test_tensor_free(&s->mask_aux[i]);
        test_tensor_free(&s->block_aux[i]);
    }
    saccade_block_mask_destroy(s->blocks);
    saccade_modifier_destroy(s->score_mod);
    saccade_modifier_destroy(s->mask_mod);
    saccade_modifier_destroy(s->block_mod);
    saccade_context_destroy(s->ctx);
    free(s);
}

/* Who asks for a workspace before there are tensors gets no less than the call needs. */
static void ask_without_data(session *s, const saccade_attention_grads *grads, size_t needed) {
    void *data[NUM_OPERANDS];
    size_t bytes = 0;
    test_tensors_take_data(s->tensors, NUM_OPERANDS, data);
    const saccade_status status = saccade_attention_workspace(s->ctx, tensor_of(s, Q), tensor_of(s, K),
                                                              tensor_of(s, V), grads, &s->params, &bytes);
    test_tensors_give_data(s->tensors, NUM_OPERANDS, data);
    if (status != SACCADE_OK)
        fail_msg("%s: a workspace without data: %s", s->p->c.name, saccade_last_error());
    if (bytes < needed)
        fail_msg("%s: %zu bytes of workspace asked for without data, %zu taken", s->p->c.name, bytes, needed);
}

/* A pass that is queued, by the call or into a graph. */
typedef struct pass {
    session *s;
    bool backward;
    saccade_status status;
} pass;

static void queue(void *data) {
    pass *p = data;
    session *s = p->s;
    DLTensor *q = tensor_of(s, Q), *k = tensor_of(s, K), *v = tensor_of(s, V), *out = tensor_of(s, OUT);
    DLTensor *lse = tensor_of(s, LSE);
    p->status = p->backward ? saccade_attention_backward(s->ctx, q, k, v, out, lse, &s->grads, &s->params)
                            : saccade_attention_forward(s->ctx, q, k, v, out, lse, &s->params);
}

static saccade_status run_pass(session *s, bool backward) {
    pass p = {s, backward, SACCADE_OK};
    if (s->options->replays == 0) {
        queue(&p);
        return p.status;
    }
    test_graph *graph = test_graph_capture(s->ctx, queue, &p);
    for (int32_t replay = 0; replay < s->options->replays; replay++) test_graph_replay(graph);
    test_graph_free(graph);
    return p.status;
}

/* One call with a workspace of the size asked for, full of NaN, between guards. */
static saccade_status call(session *s, bool backward) {
    DLTensor *q = tensor_of(s, Q), *k = tensor_of(s, K), *v = tensor_of(s, V);
    const saccade_attention_grads *grads = backward ? &s->grads : NULL;
    size_t bytes = 0;
    saccade_status status = saccade_attention_workspace(s->ctx, q, k, v, grads, &s->params, &bytes);
    if (status != SACCADE_OK) return status;
    ask_without_data(s, grads, bytes);

    test_shape shape = {1, {(int64_t)bytes + 2 * WORKSPACE_GUARD}};
    test_tensor workspace;
    test_tensor_make(&workspace, s->device, SACCADE_U8, &shape, LAYOUT_ROW_MAJOR);
    s->params.workspace = workspace.memory + workspace.tensor.byte_offset + WORKSPACE_GUARD;
    s->params.workspace_bytes = bytes;
    status = run_pass(s, backward);

    /* What lies between the guards is nobody's business: it counts as unchanged. */
    size_t begin = workspace.tensor.byte_offset + WORKSPACE_GUARD;
    s->device->download(workspace.image + begin, workspace.memory + begin, bytes);
    test_tensor_unchanged(&workspace, "workspace");
    test_tensor_free(&workspace);
    return status;
}

/* Zeros where nothing computes: with NaN, tests would end before their last kernel. */
static void read_result(session *s, test_operand operand, double *values) {
    const test_shape shape = problem_shape(s->p, operand);
    if (test_device_computes(s->device))
        test_tensor_read(&s->tensors[operand], test_operand_name(operand), values);
    else if (values)
        memset(values, 0, (size_t)test_shape_size(&shape) * sizeof *values);
}

saccade_status attention_run(const problem *p, const char *backend, sac_dtype dtype,
                             const run_options *options, results *r) {
    session *s = session_create(p, backend, dtype, options);
    test_operand written = NUM_INPUTS; /* results below this are there */
    saccade_status status = call(s, false);
    if (status == SACCADE_OK) written = DQ;
    if (status == SACCADE_OK && !options->forward_only) {
        status = call(s, true);
        if (status == SACCADE_OK) written = NUM_OPERANDS;
    }
    if (status != SACCADE_OK && status != SACCADE_UNSUPPORTED)
        fail_msg("%s on %s: %s: %s", p->c.name, backend, saccade_status_text(status), saccade_last_error());
    for (test_operand operand = 0; operand < NUM_OPERANDS; operand++) {
        if (operand >= NUM_INPUTS && operand < written)
            read_result(s, operand, r->values[operand]);
        else
            test_tensor_unchanged(&s->tensors[operand], test_operand_name(operand));
    }
    session_free(s);
    return status;
}
