/* problem.c - from a declared case to numbers. */
#include "support/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/blocks.h"
#include "support/cmocka_all.h"
#include "support/random.h"
#include "support/sample.h"

enum { PADDING = 5 }; /* unused rows after each sequence, LENGTHS_PACKED_PADDED */

const char *test_operand_name(test_operand operand) {
    static const char *const names[NUM_OPERANDS] = {"q",
                                                    "k",
                                                    "v",
                                                    "dout",
                                                    "dlse",
                                                    "sink",
                                                    "alibi_slopes",
                                                    "cu_seqlens_q",
                                                    "cu_seqlens_k",
                                                    "seqused_q",
                                                    "seqused_k",
                                                    "out",
                                                    "lse",
                                                    "dq",
                                                    "dk",
                                                    "dv",
                                                    "dsink",
                                                    "daux[0]",
                                                    "daux[1]"};
    return names[operand];
}

bool test_operand_in_dtype(test_operand operand) {
    return operand <= DOUT || operand == OUT || (operand >= DQ && operand <= DV);
}

static int32_t resolved(int32_t value, int32_t otherwise) {
    return value == TEST_NONE ? 0 : value ? value : otherwise;
}

static int32_t longest(const int32_t *lens, int32_t count) {
    int32_t most = 0;
    for (int32_t b = 0; b < count && b < TEST_MAX_SEQUENCES; b++) most = lens[b] > most ? lens[b] : most;
    return most;
}

/* FNV-1a of the name: each case has its own numbers. */
static uint64_t hash_of(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash;
}

attention_case attention_case_resolved(const attention_case *declared) {
    attention_case c = *declared;
    c.batch = resolved(c.batch, 1);
    c.num_heads = resolved(c.num_heads, 1);
    c.num_kv_heads = resolved(c.num_kv_heads, c.num_heads);
    c.head_dim = resolved(c.head_dim, 64);
    c.head_dim_v = resolved(c.head_dim_v, c.head_dim);
    if (c.lengths >= LENGTHS_PACKED) {
        int32_t padding = c.lengths == LENGTHS_PACKED_PADDED ? PADDING : 0;
        c.seqlen_q = longest(c.lens_q, c.batch) + padding;
        c.seqlen_k = longest(c.lens_k, c.batch) + padding;
    } else {
        c.seqlen_q = resolved(c.seqlen_q, 0);
        c.seqlen_k = resolved(c.seqlen_k, c.seqlen_q);
    }
    c.seed += hash_of(c.name);
    return c;
}

float attention_case_scale(const attention_case *c) {
    return c->scale != 0 || c->zero_scale ? c->scale : 1 / sqrtf((float)c->head_dim);
}

/* ---- lengths ---- */

/* Rows of one side's tensor; fills where each sequence starts, and its used length. */
static int64_t lay_out_rows(const attention_case *c, const int32_t *lens, int32_t seqlen, int64_t *first,
                            int32_t *len) {
    int64_t row = 0;
    for (int32_t b = 0; b < c->batch; b++) {
        int32_t used = lens[b % TEST_MAX_SEQUENCES];
        first[b] = row;
        len[b] = c->lengths == LENGTHS_FULL ? seqlen : used;
        row += c->lengths < LENGTHS_PACKED ? seqlen : c->lengths == LENGTHS_PACKED ? used : used + PADDING;
    }
    return c->lengths == LENGTHS_PACKED_PADDED ? row + PADDING : row;
}

static void fill_lengths(const problem *p, double *cu_seqlens, double *seqused, const int64_t *first,
                         const int32_t *len, int64_t rows) {
    int32_t batch = p->c.batch;
    for (int32_t b = 0; b < batch; b++) {
        if (cu_seqlens) cu_seqlens[b] = (double)first[b];
        if (seqused) seqused[b] = len[b];
    }
    if (cu_seqlens)
        cu_seqlens[batch] = (double)(rows - (p->c.lengths == LENGTHS_PACKED_PADDED ? PADDING : 0));
}

/* ---- values ---- */

/* One element of q, k, v or dout; `row` counts inside the sequence. */
static double draw(const problem *p, test_operand operand, int32_t row, int32_t len, int32_t d,
                   test_random *random) {
    double x = random_normal(random);
    switch (p->c.inputs) {
    case INPUTS_LARGE:
        return operand <= K ? 4 * x : x;
    case INPUTS_EQUAL:
        return operand == Q ? 0 : x;
    case INPUTS_TINY:
        return operand <= V ? 1e-5 * x : x;
    case INPUTS_FAR_NEGATIVE: /* -512 x 512 and multiples of 1/4: fp32 sums of these are exact in any order */
        if (operand >= V) return x;
        return d ? 0.5 * nearbyint(2 * x) : operand == Q ? 512 : -512;
    case INPUTS_NEGATIVE:
        return operand == Q ? 0.25 + fabs(x) : operand == K ? -0.25 - fabs(x) : x;
    case INPUTS_ORTHOGONAL: /* a running maximum must not start at 0 or above */
        if (operand == Q) return d % 2 == 0 ? 0.5 + fabs(x) : 0;
        if (operand == K) return d % 2 == (row < len / 2) ? -0.5 - fabs(x) : 0;
        return x;
    case INPUTS_RISING:
        return operand == Q ? 1 : operand == K ? row / 32.0 + 0.1 * x : x;
    case INPUTS_JUMPING:
        return operand == Q ? 1 : operand == K && row % 150 == 149 ? 20 * (row / 150 + 1) : x;
    default:
        return x;
    }
}

static void fill_rows(problem *p, test_operand operand, const int64_t *first, const int32_t *len,
                      int32_t heads, int32_t dim) {
    test_random random = {p->c.seed * 31 + operand};
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t row = 0; row < len[b]; row++)
            for (int32_t h = 0; h < heads; h++)
                for (int32_t d = 0; d < dim; d++) {
                    double *at = &p->values[operand][((first[b] + row) * heads + h) * dim + d];
                    *at = sac_number_round(draw(p, operand, row, len[b], d, &random), p->dtype);
                    if (p->c.layout == LAYOUT_ONE_HEAD && operand <= V && h > 0) *at = at[-h * dim];
                }
}

static void fill_small(problem *p) {
    test_random random = {p->c.seed * 31 + NUM_INPUTS};
    static const test_operand small[] = {DLSE, SINK, ALIBI};
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        test_shape shape = problem_shape(p, small[i]);
        for (int64_t e = 0; e < test_shape_size(&shape); e++) {
            double x = random_normal(&random);
            p->values[small[i]][e] = (float)(small[i] == ALIBI ? 0.01 * fabs(x) : x);
        }
    }
}

static void *allocated(int64_t count, size_t size) {
    void *memory = malloc((size_t)count * size + 1);
    assert_non_null(memory);
    return memory;
}

problem *problem_create(const attention_case *declared, sac_dtype dtype) {
    problem *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->c = attention_case_resolved(declared);
    p->dtype = dtype;
    attention_case *c = &p->c;
    p->packed = c->lengths >= LENGTHS_PACKED;
    p->first_q = allocated(c->batch, sizeof *p->first_q);
    p->first_k = allocated(c->batch, sizeof *p->first_k);
    p->len_q = allocated(c->batch, sizeof *p->len_q);
    p->len_k = allocated(c->batch, sizeof *p->len_k);
    p->rows_q = lay_out_rows(c, c->lens_q, c->seqlen_q, p->first_q, p->len_q);
    p->rows_k = lay_out_rows(c, c->lens_k, c->seqlen_k, p->first_k, p->len_k);
    for (test_operand operand = 0; operand < NUM_INPUTS; operand++) {
        test_shape shape = problem_shape(p, operand);
        if (shape.ndim == 0) continue;
        p->values[operand] = allocated(test_shape_size(&shape), sizeof(double));
        for (int64_t e = 0; e < test_shape_size(&shape); e++) p->values[operand][e] = NAN;
    }
    if (c->inputs == INPUTS_REAL)
        sample_fill(p);
    else {
        fill_rows(p, Q, p->first_q, p->len_q, c->num_heads, c->head_dim);
        fill_rows(p, K, p->first_k, p->len_k, c->num_kv_heads, c->head_dim);
        fill_rows(p, V, p->first_k, p->len_k, c->num_kv_heads, c->head_dim_v);
    }
    fill_rows(p, DOUT, p->first_q, p->len_q, c->num_heads, c->head_dim_v);
    fill_small(p);
    fill_lengths(p, p->values[CU_SEQLENS_Q], p->values[SEQUSED_Q], p->first_q, p->len_q, p->rows_q);
    fill_lengths(p, p->values[CU_SEQLENS_K], p->values[SEQUSED_K], p->first_k, p->len_k, p->rows_k);
    if (c->score_mod) test_modifier_values(c->score_mod, c, &p->score_aux);
    if (c->mask_mod) test_modifier_values(c->mask_mod, c, &p->mask_aux);
    return p;
}

void problem_free(problem *p) {
    if (!p) return;
    for (int i = 0; i < NUM_INPUTS; i++) free(p->values[i]);
    free(p->first_q);
    free(p->first_k);
    free(p->len_q);
    free(p->len_k);
    test_modifier_values_free(&p->score_aux);
    test_modifier_values_free(&p->mask_aux);
    free(p);
}

/* ---- shapes ---- */

static test_shape rows_shape(const problem *p, bool q_side, int32_t heads, int32_t dim) {
    int32_t seqlen = q_side ? p->c.seqlen_q : p->c.seqlen_k;
    if (p->packed) return (test_shape){3, {q_side ? p->rows_q : p->rows_k, heads, dim}};
    return (test_shape){4, {p->c.batch, seqlen, heads, dim}};
}

test_shape problem_shape(const problem *p, test_operand operand) {
    const attention_case *c = &p->c;
    bool used = c->lengths == LENGTHS_USED || c->lengths == LENGTHS_PACKED_PADDED;
    switch (operand) {
    case Q:
    case DQ:
        return rows_shape(p, true, c->num_heads, c->head_dim);
    case OUT:
    case DOUT:
        return rows_shape(p, true, c->num_heads, c->head_dim_v);
    case K:
    case DK:
        return rows_shape(p, false, c->num_kv_heads, c->head_dim);
    case V:
    case DV:
        return rows_shape(p, false, c->num_kv_heads, c->head_dim_v);
    case DLSE:
        if (!c->lse_grad) return (test_shape){0};
        /* fall through */
    case LSE:
        if (p->packed) return (test_shape){2, {c->num_heads, p->rows_q}};
        return (test_shape){3, {c->batch, c->num_heads, c->seqlen_q}};
    case SINK:
    case DSINK:
        return (test_shape){c->sink, {c->num_heads}};
    case ALIBI:
        if (c->alibi == ALIBI_PER_BATCH) return (test_shape){2, {c->batch, c->num_heads}};
        return (test_shape){c->alibi == ALIBI_PER_HEAD, {c->num_heads}};
    case CU_SEQLENS_Q:
    case CU_SEQLENS_K:
        return (test_shape){p->packed, {c->batch + 1}};
    case SEQUSED_Q:
    case SEQUSED_K:
        return (test_shape){used, {c->batch}};
    default: {
        int slot = operand - DAUX;
        if (!c->score_mod || slot >= c->score_mod->num_aux) return (test_shape){0};
        return c->score_mod->aux[slot].shape(c);
    }
    }
}

int64_t problem_lse_index(const problem *p, int32_t b, int32_t h, int32_t i) {
    if (p->packed) return h * p->rows_q + p->first_q[b] + i;
    return ((int64_t)b * p->c.num_heads + h) * p->c.seqlen_q + i;
}

/* ---- visibility ---- */

static bool window_admits(const saccade_window *window, int32_t i, int32_t j, int32_t shift) {
    int64_t position = (int64_t)i + (window->align == SACCADE_BOTTOM_RIGHT ? shift : 0);
    return !window->enabled || ((window->left < 0 || position - window->left <= j) &&
                                (window->right < 0 || j <= position + window->right));
}

bool problem_visible(const problem *p, int32_t b, int32_t h, int32_t i, int32_t j) {
    const attention_case *c = &p->c;
    int32_t shift = p->len_k[b] - p->len_q[b];
    if (c->causal == SACCADE_CAUSAL_TOP_LEFT && j > i) return false;
    if (c->causal == SACCADE_CAUSAL_BOTTOM_RIGHT && j > i + shift) return false;
    if (!window_admits(&c->window, i, j, shift)) return false;
    int admitted = test_blocks_admit(c, b, h, i, j);
    if (admitted >= 0) return admitted;
    uint8_t visible = 1;
    if (c->mask_mod) c->mask_mod->native->mask_row(&visible, 1, b, h, i, j, &p->mask_aux);
    return visible;
}

/* ---- results ---- */

void results_create(const problem *p, results *r) {
    memset(r, 0, sizeof *r);
    for (test_operand operand = OUT; operand < NUM_OPERANDS; operand++) {
        test_shape shape = problem_shape(p, operand);
        int64_t size = test_shape_size(&shape);
        if (shape.ndim == 0) continue;
        r->values[operand] = allocated(size, sizeof(double));
        for (int64_t e = 0; e < size; e++) r->values[operand][e] = NAN;
    }
}

void results_free(results *r) {
    for (int i = 0; i < NUM_OPERANDS; i++) free(r->values[i]);
    memset(r, 0, sizeof *r);
}
