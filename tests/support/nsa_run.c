/* nsa_run.c - tensors for every operand, the calls, and what must not have changed. */
#include "support/nsa_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cmocka_all.h"
#include "support/nsa_suite.h"

enum { WORKSPACE_GUARD = 4096, NO_BLOCK_YET = 12345 };

static DLTensor *tensor_of(nsa_session *s, nsa_operand operand) {
    return test_tensor_or_null(&s->tensor[operand]);
}

/* Weights, lists and lse lie row by row; what has rows of tokens may lie in any way. */
static test_layout layout_of(const nsa_case *c, nsa_operand operand) {
    if (operand == NSA_DOUT && c->dout_unaligned) return LAYOUT_ODD;
    switch (operand) {
    case NSA_Q:
    case NSA_K:
    case NSA_V:
    case NSA_GATES:
    case NSA_DOUT:
        return c->layout == LAYOUT_MIXED ? (test_layout)(operand % LAYOUT_ODD) : c->layout;
    case NSA_OUT:
    case NSA_K_CMP:
    case NSA_V_CMP:
    case NSA_OUT_CMP:
    case NSA_OUT_SLC:
    case NSA_OUT_WIN:
    case NSA_DQ:
    case NSA_DK:
    case NSA_DV:
        if (c->layout == LAYOUT_ONE_HEAD) return LAYOUT_ROW_MAJOR;
        return c->layout == LAYOUT_MIXED ? (test_layout)((operand * 3 + 1) % LAYOUT_ODD) : c->layout;
    default:
        return LAYOUT_ROW_MAJOR;
    }
}

static void make_tensors(nsa_session *s) {
    for (nsa_operand operand = 0; operand < NSA_NUM_OPERANDS; operand++) {
        test_shape shape = nsa_problem_shape(s->p, operand);
        test_tensor_make(&s->tensor[operand], nsa_here()->device, nsa_operand_dtype(operand, s->p->dtype),
                         &shape, layout_of(&s->p->c, operand));
        if (operand < NSA_NUM_INPUTS) test_tensor_write(&s->tensor[operand], s->p->values[operand]);
    }
    /* The usual poison is -1 in an int32, which means something in indices. */
    test_shape shape = nsa_problem_shape(s->p, NSA_INDICES);
    double *poison = calloc((size_t)test_shape_size(&shape) + 1, sizeof *poison);
    assert_non_null(poison);
    for (int64_t e = 0; e < test_shape_size(&shape); e++) poison[e] = NO_BLOCK_YET;
    test_tensor_write(&s->tensor[NSA_INDICES], poison);
    free(poison);
}

static int32_t longest_of(const nsa_problem *p) {
    int32_t longest = 0;
    for (int32_t b = 0; b < p->c.batch; b++)
        if (p->len[b] > longest) longest = p->len[b];
    return longest;
}

nsa_session *nsa_session_create(const nsa_problem *p, int32_t num_threads) {
    const nsa_case *c = &p->c;
    nsa_session *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->p = p;
    assert_int_equal(saccade_context_create(&s->ctx, &(saccade_context_params){.num_threads = num_threads}),
                     SACCADE_OK);
    make_tensors(s);
    s->t = (saccade_nsa_tensors){.q = tensor_of(s, NSA_Q),
                                 .k = tensor_of(s, NSA_K),
                                 .v = tensor_of(s, NSA_V),
                                 .w_k = tensor_of(s, NSA_W_K),
                                 .w_v = tensor_of(s, NSA_W_V),
                                 .w_gate = tensor_of(s, NSA_W_GATE),
                                 .gates = tensor_of(s, NSA_GATES),
                                 .k_cmp = tensor_of(s, NSA_K_CMP),
                                 .v_cmp = tensor_of(s, NSA_V_CMP),
                                 .indices = tensor_of(s, NSA_INDICES),
                                 .lse_cmp = tensor_of(s, NSA_LSE_CMP),
                                 .lse_slc = tensor_of(s, NSA_LSE_SLC),
                                 .lse_win = tensor_of(s, NSA_LSE_WIN),
                                 .out_cmp = tensor_of(s, NSA_OUT_CMP),
                                 .out_slc = tensor_of(s, NSA_OUT_SLC),
                                 .out_win = tensor_of(s, NSA_OUT_WIN)};
    s->grads = (saccade_nsa_grads){.dout = tensor_of(s, NSA_DOUT),
                                   .dq = tensor_of(s, NSA_DQ),
                                   .dk = tensor_of(s, NSA_DK),
                                   .dv = tensor_of(s, NSA_DV),
                                   .dw_k = tensor_of(s, NSA_DW_K),
                                   .dw_v = tensor_of(s, NSA_DW_V),
                                   .dw_gate = tensor_of(s, NSA_DW_GATE),
                                   .dgates = tensor_of(s, NSA_DGATES)};
    s->params = (saccade_nsa_params){.has_scale = true,
                                     .scale = c->scale,
                                     .block = c->block,
                                     .top_k = c->top_k,
                                     .window = c->window,
                                     .query_tile = c->query_tile,
                                     .score = c->score,
                                     .select_per = c->select_per,
                                     .visibility = c->visibility,
                                     .initial_blocks = c->initial_blocks,
                                     .local_blocks = c->local_blocks,
                                     .compressed_top_k = c->compressed_top_k,
                                     .cu_seqlens = tensor_of(s, NSA_CU_SEQLENS),
                                     .backend = nsa_here()->backend};
    if (c->packed && nsa_here()->device != &test_host) s->params.max_seqlen = longest_of(p);
    return s;
}

void nsa_session_free(nsa_session *s) {
    for (int i = 0; i < NSA_NUM_OPERANDS; i++) test_tensor_free(&s->tensor[i]);
    saccade_context_destroy(s->ctx);
    free(s);
}

static void read(nsa_session *s, nsa_operand operand, nsa_results *r) {
    test_tensor_read(&s->tensor[operand], nsa_operand_name(operand), r->values[operand]);
}

void nsa_session_read(nsa_session *s, nsa_results *r) {
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++)
        if (operand != NSA_SCORES) read(s, operand, r);
}

/* The host refuses nothing that is declared here; a backend on a GPU may. */
static void assert_ok(const nsa_session *s, const char *what, saccade_status status) {
    if (status == SACCADE_UNSUPPORTED && nsa_here()->device != &test_host) {
        skip_because("%s: %s", what, saccade_last_error());
    }
    if (status != SACCADE_OK)
        fail_msg("%s: %s: %s: %s", s->p->c.name, what, saccade_status_text(status), saccade_last_error());
}

void *nsa_workspace_create(size_t bytes) {
    const test_device *device = nsa_here()->device;
    const size_t all = bytes + 2 * WORKSPACE_GUARD;
    char *memory = device->alloc(all), *poison = malloc(all);
    assert_non_null(memory);
    assert_non_null(poison);
    memset(poison, 0xff, all);
    device->upload(memory, poison, all);
    free(poison);
    return memory + WORKSPACE_GUARD;
}

void nsa_workspace_free(const char *name, void *workspace, size_t bytes) {
    const test_device *device = nsa_here()->device;
    uint8_t guard[WORKSPACE_GUARD];
    char *memory = (char *)workspace - WORKSPACE_GUARD;
    for (int behind = 0; behind < 2; behind++) {
        device->download(guard, behind ? (char *)workspace + bytes : memory, WORKSPACE_GUARD);
        for (int i = 0; i < WORKSPACE_GUARD; i++)
            if (guard[i] != 0xff)
                fail_msg("%s: byte %d %s a workspace of %zu bytes was written", name,
                         behind ? i : WORKSPACE_GUARD - i, behind ? "behind" : "before", bytes);
    }
    device->free(memory);
}

/* Who asks for a workspace before there are tensors gets no less than the call needs. */
static void ask_without_data(nsa_session *s, const saccade_nsa_grads *grads, size_t needed) {
    void *data[NSA_NUM_OPERANDS];
    size_t bytes = 0;
    test_tensors_take_data(s->tensor, NSA_NUM_OPERANDS, data);
    const saccade_status status = saccade_nsa_workspace(s->ctx, &s->t, grads, &s->params, &bytes);
    test_tensors_give_data(s->tensor, NSA_NUM_OPERANDS, data);
    assert_ok(s, "workspace without data", status);
    if (bytes < needed)
        fail_msg("%s: %zu bytes of workspace asked for without data, %zu taken", s->p->c.name, bytes, needed);
}

/* One call with a workspace of the size asked for. */
static void call(nsa_session *s, bool backward) {
    const saccade_nsa_grads *grads = backward ? &s->grads : NULL;
    size_t bytes = 0;
    assert_ok(s, "workspace", saccade_nsa_workspace(s->ctx, &s->t, grads, &s->params, &bytes));
    ask_without_data(s, grads, bytes);
    s->params.workspace = nsa_workspace_create(bytes);
    s->params.workspace_bytes = bytes;
    assert_ok(s, backward ? "backward" : "forward",
              backward ? saccade_nsa_backward(s->ctx, &s->t, grads, &s->params)
                       : saccade_nsa_forward(s->ctx, &s->t, tensor_of(s, NSA_OUT), &s->params));
    nsa_workspace_free(s->p->c.name, s->params.workspace, bytes);
    s->params.workspace = NULL;
    s->params.workspace_bytes = 0;
}

void nsa_run(const nsa_problem *p, const nsa_run_options *options, nsa_results *r) {
    nsa_session *s = nsa_session_create(p, options->num_threads);
    if (options->out_only)
        s->t.k_cmp = s->t.v_cmp = s->t.indices = s->t.lse_cmp = s->t.lse_slc = s->t.lse_win = NULL;
    const nsa_operand saved_end = options->out_only ? NSA_K_CMP : NSA_SCORES;
    call(s, false);
    if (!options->forward_only) call(s, true);
    for (nsa_operand operand = 0; operand < NSA_NUM_OPERANDS; operand++) {
        bool forward = operand >= NSA_OUT && operand < saved_end;
        if (forward || (operand >= NSA_DQ && !options->forward_only))
            read(s, operand, r);
        else if (operand != NSA_INDICES)
            test_tensor_unchanged(&s->tensor[operand], nsa_operand_name(operand));
    }
    nsa_session_free(s);
}

static void run_gate(nsa_session *s, double *const branch_out[3], nsa_results *r) {
    test_tensor branch[3];
    test_shape shape = nsa_problem_shape(s->p, NSA_OUT);
    for (int i = 0; i < 3; i++) {
        test_tensor_make(&branch[i], nsa_here()->device, test_dtype(s->p->dtype), &shape,
                         (test_layout)(i + 1));
        test_tensor_write(&branch[i], branch_out[i]);
    }
    assert_ok(s, "gate",
              saccade_nsa_gate(s->ctx, &s->t, &branch[0].tensor, &branch[1].tensor, &branch[2].tensor,
                               tensor_of(s, NSA_OUT), &s->params));
    read(s, NSA_OUT, r);
    for (int i = 0; i < 3; i++) {
        test_tensor_unchanged(&branch[i], "a branch's output");
        test_tensor_free(&branch[i]);
    }
}

void nsa_run_stage(const nsa_problem *p, nsa_stage stage, double *const branch_out[3], nsa_results *r) {
    nsa_session *s = nsa_session_create(p, 0);
    if (stage != NSA_COMPRESS) test_tensor_write(&s->tensor[NSA_K_CMP], r->values[NSA_K_CMP]);
    switch (stage) {
    case NSA_COMPRESS:
        assert_ok(s, "compress", saccade_nsa_compress(s->ctx, &s->t, &s->params));
        read(s, NSA_K_CMP, r);
        read(s, NSA_V_CMP, r);
        break;
    case NSA_SCORE_BLOCKS:
        assert_ok(s, "score", saccade_nsa_score_blocks(s->ctx, &s->t, tensor_of(s, NSA_SCORES), &s->params));
        read(s, NSA_SCORES, r);
        break;
    case NSA_SELECT:
        assert_ok(s, "select", saccade_nsa_select(s->ctx, &s->t, &s->params));
        read(s, NSA_INDICES, r);
        break;
    case NSA_GATE:
        run_gate(s, branch_out, r);
        break;
    }
    for (nsa_operand operand = 0; operand < NSA_NUM_INPUTS; operand++)
        test_tensor_unchanged(&s->tensor[operand], nsa_operand_name(operand));
    nsa_session_free(s);
}
