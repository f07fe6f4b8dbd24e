/* nsa_problem.c - from a declared case to numbers. */
#include "support/nsa_problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/cmocka_all.h"
#include "support/random.h"
#include "support/sample.h"

const char *nsa_operand_name(nsa_operand operand) {
    static const char *const names[NSA_NUM_OPERANDS] = {
        "q",       "k",      "v",     "w_k",     "w_v",     "w_gate",  "gates",   "dout",    "cu_seqlens",
        "out",     "k_cmp",  "v_cmp", "out_cmp", "out_slc", "out_win", "lse_cmp", "lse_slc", "lse_win",
        "indices", "scores", "dq",    "dk",      "dv",      "dw_k",    "dw_v",    "dw_gate", "dgates"};
    return names[operand];
}

DLDataType nsa_operand_dtype(nsa_operand operand, sac_dtype dtype) {
    bool in_fp32 = (operand >= NSA_LSE_CMP && operand <= NSA_SCORES) || operand >= NSA_DW_K;
    if (operand == NSA_CU_SEQLENS || operand == NSA_INDICES) return SACCADE_I32;
    return in_fp32 ? SACCADE_F32 : test_dtype(dtype);
}

static int32_t resolved(int32_t value, int32_t otherwise) { return value ? value : otherwise; }

static nsa_case resolve(const nsa_case *declared) {
    nsa_case c = *declared;
    c.batch = resolved(c.batch, 1);
    c.num_heads = resolved(c.num_heads, 1);
    c.num_kv_heads = resolved(c.num_kv_heads, c.num_heads);
    c.head_dim = resolved(c.head_dim, 16);
    c.head_dim_v = resolved(c.head_dim_v, c.head_dim);
    c.block = resolved(c.block, 8);
    c.top_k = resolved(c.top_k, 4);
    c.window = resolved(c.window, 24);
    c.query_tile = resolved(c.query_tile, 16);
    if (!c.score) c.score = c.query_tile == 1 ? SACCADE_NSA_PROBABILITIES : SACCADE_NSA_LOGITS;
    if (!c.select_per)
        c.select_per = c.score == SACCADE_NSA_LOGITS ? SACCADE_NSA_PER_HEAD : SACCADE_NSA_PER_GROUP;
    if (c.scale == 0) c.scale = (float)(1 / sqrt(c.head_dim));
    return c;
}

static void lay_out(nsa_problem *p) {
    const nsa_case *c = &p->c;
    p->group = c->num_heads / c->num_kv_heads;
    p->list_heads = c->select_per == SACCADE_NSA_PER_GROUP ? p->group : 1;
    p->num_lists = c->num_heads / p->list_heads;
    for (int32_t b = 0; b < c->batch; b++) {
        p->len[b] = c->packed ? c->lens[b] : c->seqlen;
        p->len_cmp[b] = p->len[b] / c->block;
        p->len_tiles[b] = (p->len[b] + c->query_tile - 1) / c->query_tile;
        p->first[b] = p->rows;
        p->first_cmp[b] = p->cmp_rows;
        p->first_tile[b] = p->tiles;
        p->rows += p->len[b];
        p->cmp_rows += p->len_cmp[b];
        p->tiles += p->len_tiles[b];
        if (p->len_cmp[b] > p->longest_cmp) p->longest_cmp = p->len_cmp[b];
    }
    if (!c->packed) return;
    p->cmp_rows = p->rows / c->block; /* the tensors have room for whatever the lengths are */
    p->tiles = p->rows / c->query_tile + c->batch;
}

static void *allocated(int64_t count, size_t size) {
    void *memory = calloc((size_t)count + 1, size);
    assert_non_null(memory);
    return memory;
}

static void fill_normal(nsa_problem *p, nsa_operand operand, double deviation) {
    test_shape shape = nsa_problem_shape(p, operand);
    test_random random = {p->c.seed * 31 + operand};
    for (int64_t e = 0; e < test_shape_size(&shape); e++)
        p->values[operand][e] = sac_number_round(deviation * random_normal(&random), p->dtype);
}

static void change_keys(nsa_problem *p) {
    const int64_t row = (int64_t)p->c.num_kv_heads * p->c.head_dim;
    double *k = p->values[NSA_K];
    for (int64_t i = 0; i < p->rows; i++)
        for (int64_t e = 0; e < row; e++) {
            if (p->c.inputs == NSA_EQUAL_KEYS) k[i * row + e] = k[e];
            if (p->c.inputs == NSA_NAN_KEYS && i % 29 == 20) k[i * row + e] = NAN;
        }
}

nsa_case nsa_case_of_sample(int32_t block, bool per_query) {
    return (nsa_case){.name = "sample",
                      .seqlen = 2048,
                      .num_heads = 8,
                      .num_kv_heads = 2,
                      .head_dim = 64,
                      .block = block,
                      .top_k = 16,
                      .query_tile = per_query ? 1 : 256,
                      .inputs = NSA_REAL,
                      .initial_blocks = per_query,
                      .local_blocks = 2 * per_query};
}

nsa_problem *nsa_problem_create(const nsa_case *declared, sac_dtype dtype) {
    nsa_problem *p = allocated(1, sizeof *p);
    p->c = resolve(declared);
    p->dtype = dtype;
    lay_out(p);
    for (nsa_operand operand = 0; operand < NSA_NUM_INPUTS; operand++) {
        test_shape shape = nsa_problem_shape(p, operand);
        if (shape.ndim == 0) continue;
        bool weights = operand == NSA_W_K || operand == NSA_W_V || operand == NSA_W_GATE;
        p->values[operand] = allocated(test_shape_size(&shape), sizeof(double));
        fill_normal(p, operand, weights ? 1 / sqrt((double)shape.extent[2]) : 1);
    }
    for (int32_t b = 0; b <= p->c.batch && p->c.packed; b++)
        p->values[NSA_CU_SEQLENS][b] = b < p->c.batch ? (double)p->first[b] : (double)p->rows;
    change_keys(p);
    if (p->c.inputs == NSA_REAL) {
        static const nsa_operand operands[] = {NSA_Q, NSA_K, NSA_V};
        static const char *const names[] = {"q", "k", "v"};
        for (int i = 0; i < 3; i++) {
            int32_t heads = i ? p->c.num_kv_heads : p->c.num_heads;
            sample_rows(names[i], p->values[operands[i]], p->rows, heads, dtype);
        }
    }
    return p;
}

void nsa_problem_free(nsa_problem *p) {
    if (!p) return;
    for (int i = 0; i < NSA_NUM_INPUTS; i++) free(p->values[i]);
    free(p);
}

/* ---- shapes ---- */

static test_shape rows_shape(const nsa_problem *p, int64_t rows, int32_t heads, int32_t dim) {
    if (p->c.packed) return (test_shape){3, {rows, heads, dim}};
    return (test_shape){4, {p->c.batch, rows / p->c.batch, heads, dim}};
}

static test_shape lists_shape(const nsa_problem *p, int32_t width) {
    if (p->c.packed) return (test_shape){3, {p->num_lists, p->tiles, width}};
    return (test_shape){4, {p->c.batch, p->num_lists, p->tiles / p->c.batch, width}};
}

test_shape nsa_problem_shape(const nsa_problem *p, nsa_operand operand) {
    const nsa_case *c = &p->c;
    switch (operand) {
    case NSA_Q:
    case NSA_DQ:
        return rows_shape(p, p->rows, c->num_heads, c->head_dim);
    case NSA_OUT:
    case NSA_DOUT:
        return rows_shape(p, p->rows, c->num_heads, c->head_dim_v);
    case NSA_OUT_CMP:
    case NSA_OUT_SLC:
    case NSA_OUT_WIN:
        return c->keep_outputs ? rows_shape(p, p->rows, c->num_heads, c->head_dim_v) : (test_shape){0};
    case NSA_K:
    case NSA_DK:
        return rows_shape(p, p->rows, c->num_kv_heads, c->head_dim);
    case NSA_V:
    case NSA_DV:
        return rows_shape(p, p->rows, c->num_kv_heads, c->head_dim_v);
    case NSA_K_CMP:
        return rows_shape(p, p->cmp_rows, c->num_kv_heads, c->head_dim);
    case NSA_V_CMP:
        return rows_shape(p, p->cmp_rows, c->num_kv_heads, c->head_dim_v);
    case NSA_W_K:
    case NSA_DW_K:
        return (test_shape){c->weights ? 3 : 0, {c->num_kv_heads, c->head_dim, c->head_dim}};
    case NSA_W_V:
    case NSA_DW_V:
        return (test_shape){c->weights ? 3 : 0, {c->num_kv_heads, c->head_dim_v, c->head_dim_v}};
    case NSA_W_GATE:
    case NSA_DW_GATE:
        return (test_shape){c->gate == NSA_GATE_WEIGHTS ? 3 : 0, {c->num_heads, 3, c->head_dim}};
    case NSA_GATES:
    case NSA_DGATES:
        return c->gate == NSA_GATE_TENSOR ? rows_shape(p, p->rows, c->num_heads, 3) : (test_shape){0};
    case NSA_LSE_CMP:
    case NSA_LSE_SLC:
    case NSA_LSE_WIN:
        if (c->packed) return (test_shape){2, {c->num_heads, p->rows}};
        return (test_shape){3, {c->batch, c->num_heads, c->seqlen}};
    case NSA_INDICES:
        return lists_shape(p, c->top_k);
    case NSA_SCORES:
        return lists_shape(p, p->longest_cmp);
    default:
        return (test_shape){c->packed, {c->batch + 1}};
    }
}

int32_t nsa_tile_last(const nsa_problem *p, int32_t b, int32_t tile) {
    int32_t end = (tile + 1) * p->c.query_tile;
    return (end < p->len[b] ? end : p->len[b]) - 1;
}

int64_t nsa_lse_index(const nsa_problem *p, int32_t b, int32_t h, int32_t i) {
    if (p->c.packed) return h * p->rows + p->first[b] + i;
    return ((int64_t)b * p->c.num_heads + h) * p->c.seqlen + i;
}

int64_t nsa_tile_index(const nsa_problem *p, int32_t b, int32_t list, int32_t tile) {
    if (p->c.packed) return list * p->tiles + p->first_tile[b] + tile;
    return ((int64_t)b * p->num_lists + list) * p->len_tiles[b] + tile;
}

/* ---- results ---- */

void nsa_results_create(const nsa_problem *p, nsa_results *r) {
    memset(r, 0, sizeof *r);
    for (nsa_operand operand = NSA_OUT; operand < NSA_NUM_OPERANDS; operand++) {
        test_shape shape = nsa_problem_shape(p, operand);
        if (shape.ndim) r->values[operand] = allocated(test_shape_size(&shape), sizeof(double));
    }
}

void nsa_results_free(nsa_results *r) {
    for (int i = 0; i < NSA_NUM_OPERANDS; i++) free(r->values[i]);
    memset(r, 0, sizeof *r);
}
