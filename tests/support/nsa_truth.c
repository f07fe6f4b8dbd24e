/* nsa_truth.c - compress, score, select, three branches, gate; and back. */
#include "support/nsa_truth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/cmocka_all.h"

enum { CMP, SLC, WIN, NUM_BRANCHES };

static double stored(const nsa_problem *p, nsa_precision precision, double x) {
    return precision == NSA_EXACT ? x : sac_number_round(x, p->dtype);
}

static double summed(nsa_precision precision, double x) {
    return precision == NSA_EXACT ? x : (double)(float)x;
}

static double dot(nsa_precision precision, const double *a, const double *b, int32_t n) {
    double sum = 0;
    for (int32_t d = 0; d < n; d++) sum = summed(precision, sum + a[d] * b[d]);
    return sum;
}

static double *zeros(int64_t count) {
    double *memory = calloc((size_t)count + 1, sizeof *memory);
    assert_non_null(memory);
    return memory;
}

/* ---- compress ---- */

/* Keys, or values: tokens (rows, Hkv, dim), means (cmp_rows, Hkv, dim). */
typedef struct side {
    const double *tokens, *w;
    int32_t dim;
} side;

static side keys_of(const nsa_problem *p) {
    return (side){p->values[NSA_K], p->values[NSA_W_K], p->c.head_dim};
}
static side values_of(const nsa_problem *p) {
    return (side){p->values[NSA_V], p->values[NSA_W_V], p->c.head_dim_v};
}

static void block_mean(const nsa_problem *p, nsa_precision precision, const side *s, int32_t b, int32_t j,
                       int32_t head, double *mean) {
    for (int32_t d = 0; d < s->dim; d++) {
        double sum = 0;
        for (int32_t t = j * p->c.block; t < (j + 1) * p->c.block; t++)
            sum = summed(precision,
                         sum + s->tokens[((p->first[b] + t) * p->c.num_kv_heads + head) * s->dim + d]);
        mean[d] = stored(p, precision, sum / p->c.block);
    }
}

static void compress_side(const nsa_problem *p, nsa_precision precision, const side *s, double *means) {
    double *mean = zeros(s->dim);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t j = 0; j < p->len_cmp[b]; j++)
            for (int32_t h = 0; h < p->c.num_kv_heads; h++) {
                double *to = means + ((p->first_cmp[b] + j) * p->c.num_kv_heads + h) * s->dim;
                block_mean(p, precision, s, b, j, h, mean);
                for (int32_t d = 0; d < s->dim; d++) {
                    double product = s->w ? 0 : mean[d];
                    for (int32_t e = 0; s->w && e < s->dim; e++)
                        product = summed(precision, product + mean[e] * s->w[(h * s->dim + e) * s->dim + d]);
                    to[d] = stored(p, precision, product);
                }
            }
    free(mean);
}

void nsa_truth_compress(const nsa_problem *p, nsa_precision precision, nsa_results *r) {
    side keys = keys_of(p), values = values_of(p);
    compress_side(p, precision, &keys, r->values[NSA_K_CMP]);
    compress_side(p, precision, &values, r->values[NSA_V_CMP]);
}

/* The way back: the gradient of a mean is shared by its tokens. */
static void compress_side_backward(const nsa_problem *p, nsa_precision precision, const side *s,
                                   const double *dmeans, double *dtokens, double *dw) {
    double *mean = zeros(s->dim);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t j = 0; j < p->len_cmp[b]; j++)
            for (int32_t h = 0; h < p->c.num_kv_heads; h++) {
                const double *from = dmeans + ((p->first_cmp[b] + j) * p->c.num_kv_heads + h) * s->dim;
                block_mean(p, precision, s, b, j, h, mean);
                for (int32_t e = 0; e < s->dim; e++) {
                    const double *w = s->w ? s->w + (h * s->dim + e) * s->dim : NULL;
                    double dmean = stored(p, precision, w ? dot(precision, from, w, s->dim) : from[e]);
                    for (int32_t d = 0; w && d < s->dim; d++) {
                        double *at = dw + (h * s->dim + e) * s->dim + d;
                        *at = summed(precision, *at + mean[e] * from[d]);
                    }
                    for (int32_t t = j * p->c.block; t < (j + 1) * p->c.block; t++) {
                        double *at = dtokens + ((p->first[b] + t) * p->c.num_kv_heads + h) * s->dim + e;
                        *at = stored(p, precision, *at + dmean / p->c.block);
                    }
                }
            }
    free(mean);
}

/* ---- score and select ---- */

static int32_t candidates_of(const nsa_problem *p, int32_t b, int32_t tile) {
    int32_t last = nsa_tile_last(p, b, tile), count = 0;
    for (int32_t j = 0; j < p->len_cmp[b]; j++)
        count += p->c.visibility == SACCADE_NSA_STARTED ? j * p->c.block <= last
                                                        : (j + 1) * p->c.block - 1 <= last;
    return count;
}

static const double *query(const nsa_problem *p, int32_t b, int32_t h, int32_t i) {
    return p->values[NSA_Q] + ((p->first[b] + i) * p->c.num_heads + h) * p->c.head_dim;
}

static void score_query(const nsa_problem *p, const double *k_cmp, int32_t b, int32_t h, int32_t i,
                        int32_t count, double *score) {
    double sum = 0, top = -INFINITY;
    for (int32_t j = 0; j < count; j++) {
        int64_t row = (p->first_cmp[b] + j) * p->c.num_kv_heads + h / p->group;
        score[j] = p->c.scale * dot(NSA_EXACT, query(p, b, h, i), k_cmp + row * p->c.head_dim, p->c.head_dim);
        top = fmax(top, score[j]);
    }
    if (p->c.score == SACCADE_NSA_LOGITS) return;
    for (int32_t j = 0; j < count; j++) sum += exp(score[j] - top);
    for (int32_t j = 0; j < count; j++) score[j] = exp(score[j] - top) / sum;
}

static void score_tile(const nsa_problem *p, const double *k_cmp, int32_t b, int32_t list, int32_t tile,
                       double *scores) {
    const int32_t begin = tile * p->c.query_tile, end = nsa_tile_last(p, b, tile) + 1;
    const int32_t count = candidates_of(p, b, tile);
    double *one = zeros(count);
    for (int32_t j = 0; j < p->longest_cmp; j++) scores[j] = j < count ? 0 : -INFINITY;
    for (int32_t h = list * p->list_heads; h < (list + 1) * p->list_heads; h++)
        for (int32_t i = begin; i < end; i++) {
            score_query(p, k_cmp, b, h, i, count, one);
            for (int32_t j = 0; j < count; j++) scores[j] += one[j] / (end - begin);
        }
    free(one);
}

/* Calls visit for every tile of every list. */
typedef void visit_tile(const nsa_problem *p, int32_t b, int32_t list, int32_t tile, const double *from,
                        double *to);
static void for_each_tile(const nsa_problem *p, visit_tile *visit, const double *from, double *to) {
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; tile < p->len_tiles[b]; tile++) visit(p, b, list, tile, from, to);
}

static void visit_scores(const nsa_problem *p, int32_t b, int32_t list, int32_t tile, const double *k_cmp,
                         double *scores) {
    score_tile(p, k_cmp, b, list, tile, scores + nsa_tile_index(p, b, list, tile) * p->longest_cmp);
}

void nsa_truth_scores(const nsa_problem *p, const double *k_cmp, double *scores) {
    for_each_tile(p, visit_scores, k_cmp, scores);
}

/* Marks the best of what is left, the first where several are; false when nothing above -inf is. */
static bool take_best(const double *score, int32_t count, bool *taken) {
    int32_t best = -1;
    for (int32_t j = 0; j < count; j++)
        if (!taken[j] && score[j] > -INFINITY && (best < 0 || score[j] > score[best])) best = j;
    if (best >= 0) taken[best] = true;
    return best >= 0;
}

static void list_taken(const bool *taken, int32_t count, int32_t top_k, double *slots) {
    int32_t used = 0;
    for (int32_t j = 0; j < count; j++)
        if (taken[j]) slots[used++] = j;
    while (used < top_k) slots[used++] = -1;
}

static void visit_choice(const nsa_problem *p, int32_t b, int32_t list, int32_t tile, const double *scores,
                         double *indices) {
    const nsa_case *c = &p->c;
    const int64_t at = nsa_tile_index(p, b, list, tile);
    const int32_t own = nsa_tile_last(p, b, tile) / c->block, count = candidates_of(p, b, tile);
    bool *taken = calloc((size_t)own + 2, sizeof *taken);
    int32_t left = c->top_k;
    assert_non_null(taken);
    for (int32_t j = 0; j <= own; j++) {
        taken[j] = j >= count || j < c->initial_blocks || own - j < c->local_blocks;
        left -= taken[j];
    }
    while (left > 0 && take_best(scores + at * p->longest_cmp, count, taken)) left--;
    list_taken(taken, own + 1, c->top_k, indices + at * c->top_k);
    free(taken);
}

void nsa_truth_select(const nsa_problem *p, const double *scores, double *indices) {
    for_each_tile(p, visit_choice, scores, indices);
}

static void visit_compressed_choice(const nsa_problem *p, int32_t b, int32_t list, int32_t tile,
                                    const double *scores, double *indices) {
    const int64_t at = nsa_tile_index(p, b, list, tile);
    const int32_t count = candidates_of(p, b, tile), blocks = (count + 127) / NSA_COMPRESSED_BLOCK;
    double *mean = zeros(blocks);
    bool *taken = calloc((size_t)blocks + 1, sizeof *taken);
    assert_non_null(taken);
    for (int32_t j = 0; j < count; j++) {
        int32_t block = j / NSA_COMPRESSED_BLOCK, rest = count - block * NSA_COMPRESSED_BLOCK;
        mean[block] +=
            scores[at * p->longest_cmp + j] / (rest < NSA_COMPRESSED_BLOCK ? rest : NSA_COMPRESSED_BLOCK);
    }
    for (int32_t n = 0; n < p->c.compressed_top_k && take_best(mean, blocks, taken); n++) continue;
    list_taken(taken, blocks, p->c.compressed_top_k, indices + at * p->c.compressed_top_k);
    free(mean);
    free(taken);
}

double *nsa_truth_select_compressed(const nsa_problem *p, const double *scores) {
    if (!p->c.compressed_top_k) return NULL;
    double *indices = zeros(p->num_lists * p->tiles * p->c.compressed_top_k);
    for_each_tile(p, visit_compressed_choice, scores, indices);
    return indices;
}

/* ---- the three branches ---- */

/* Attention over one branch's keys; gradients are NULL on the way forward. */
typedef struct branch {
    const nsa_problem *p;
    nsa_precision precision;
    const nsa_choice *choice;
    int kind;
    const double *k, *v;  /* (key rows, Hkv, D or Dv) */
    const int64_t *first; /* key rows of each sequence */
    const int32_t *len;
    double *out; /* (rows, H, Dv) */
    double *lse;
    const double *dout;
    double *dq, *dk, *dv;
    double *steepest;
} branch;

static bool listed(const double *slots, int32_t top_k, int32_t block) {
    for (int32_t n = 0; n < top_k; n++)
        if (slots[n] == block) return true;
    return false;
}

static bool sees(const branch *s, int32_t b, int32_t h, int32_t i, int32_t j) {
    const nsa_case *c = &s->p->c;
    const int64_t at = nsa_tile_index(s->p, b, h / s->p->list_heads, i / c->query_tile);
    if (s->kind == WIN) return j <= i && i - j < c->window;
    if (s->kind == SLC) return j <= i && listed(s->choice->indices + at * c->top_k, c->top_k, j / c->block);
    bool there = c->visibility == SACCADE_NSA_STARTED ? j * c->block <= i : (j + 1) * c->block - 1 <= i;
    return there && (!s->choice->compressed || listed(s->choice->compressed + at * c->compressed_top_k,
                                                      c->compressed_top_k, j / NSA_COMPRESSED_BLOCK));
}

static const double *key_side(const branch *s, const double *values, int32_t b, int32_t h, int32_t j,
                              int32_t dim) {
    return values + ((s->first[b] + j) * s->p->c.num_kv_heads + h / s->p->group) * dim;
}

/* Scores of the visible keys, -inf elsewhere; their lse. */
static double score_row(const branch *s, int32_t b, int32_t h, int32_t i, double *score) {
    const nsa_problem *p = s->p;
    double top = -INFINITY, sum = 0;
    for (int32_t j = 0; j < s->len[b]; j++) {
        score[j] = -INFINITY;
        if (!sees(s, b, h, i, j)) continue;
        const double *key = key_side(s, s->k, b, h, j, p->c.head_dim);
        score[j] =
            stored(p, s->precision, p->c.scale * dot(s->precision, query(p, b, h, i), key, p->c.head_dim));
        top = fmax(top, score[j]);
    }
    if (top == -INFINITY) return top;
    for (int32_t j = 0; j < s->len[b]; j++) sum = summed(s->precision, sum + exp(score[j] - top));
    return summed(s->precision, top + log(sum));
}

static void forward_row(const branch *s, int32_t b, int32_t h, int32_t i, double *score) {
    const nsa_problem *p = s->p;
    const int32_t dim = p->c.head_dim_v;
    const double lse = s->lse[nsa_lse_index(p, b, h, i)] = score_row(s, b, h, i, score);
    double *out = s->out + ((p->first[b] + i) * p->c.num_heads + h) * dim;
    for (int32_t d = 0; d < dim; d++) {
        double sum = 0;
        for (int32_t j = 0; j < s->len[b]; j++)
            if (score[j] > -INFINITY || isnan(score[j]))
                sum = summed(s->precision, sum + stored(p, s->precision, exp(score[j] - lse)) *
                                                     key_side(s, s->v, b, h, j, dim)[d]);
        out[d] = stored(p, s->precision, sum);
    }
}

static void add(const branch *s, double *at, double term) { *at = summed(s->precision, *at + term); }

static void backward_row(const branch *s, int32_t b, int32_t h, int32_t i, double *score) {
    const nsa_problem *p = s->p;
    const int32_t dim = p->c.head_dim, dim_v = p->c.head_dim_v;
    const int64_t row = (p->first[b] + i) * p->c.num_heads + h;
    const double *q = query(p, b, h, i), *dout = s->dout + row * dim_v;
    const double lse = score_row(s, b, h, i, score),
                 delta = dot(s->precision, dout, s->out + row * dim_v, dim_v);
    if (lse == -INFINITY) return;
    for (int32_t j = 0; j < s->len[b]; j++) {
        if (score[j] == -INFINITY) continue;
        const double *k = key_side(s, s->k, b, h, j, dim), *v = key_side(s, s->v, b, h, j, dim_v);
        double probability = stored(p, s->precision, exp(score[j] - lse));
        double dp = stored(p, s->precision, dot(s->precision, dout, v, dim_v));
        double dscore = stored(p, s->precision, probability * (dp - delta));
        *s->steepest = fmax(*s->steepest, probability * (fabs(dp) + fabs(delta)));
        for (int32_t d = 0; d < dim; d++) {
            add(s, &s->dq[row * dim + d], p->c.scale * dscore * k[d]);
            add(s, &s->dk[k - s->k + d], p->c.scale * dscore * q[d]);
        }
        for (int32_t d = 0; d < dim_v; d++) add(s, &s->dv[v - s->v + d], probability * dout[d]);
    }
}

static void for_each_row(const branch *s, void (*row)(const branch *, int32_t, int32_t, int32_t, double *)) {
    int32_t longest = 0;
    for (int32_t b = 0; b < s->p->c.batch; b++) longest = s->len[b] > longest ? s->len[b] : longest;
    double *score = zeros(longest);
    for (int32_t b = 0; b < s->p->c.batch; b++)
        for (int32_t h = 0; h < s->p->c.num_heads; h++)
            for (int32_t i = 0; i < s->p->len[b]; i++) row(s, b, h, i, score);
    free(score);
}

/* ---- gate ---- */

static double gate_of(const nsa_problem *p, nsa_precision precision, int64_t row, int32_t c) {
    const int32_t h = (int32_t)(row % p->c.num_heads), dim = p->c.head_dim;
    if (p->c.gate == NSA_GATE_UNIFORM) return 1.0 / 3;
    if (p->c.gate == NSA_GATE_TENSOR) return p->values[NSA_GATES][row * 3 + c];
    double logit =
        dot(precision, p->values[NSA_Q] + row * dim, p->values[NSA_W_GATE] + (h * 3 + c) * dim, dim);
    return stored(p, precision, 1 / (1 + exp(-stored(p, precision, logit))));
}

void nsa_truth_gate(const nsa_problem *p, nsa_precision precision, double *const branch_out[3], double *out) {
    const int32_t dim = p->c.head_dim_v;
    for (int64_t row = 0; row < p->rows * p->c.num_heads; row++)
        for (int32_t d = 0; d < dim; d++) {
            double sum = 0;
            for (int32_t c = 0; c < NUM_BRANCHES; c++)
                sum = summed(precision, sum + gate_of(p, precision, row, c) * branch_out[c][row * dim + d]);
            out[row * dim + d] = stored(p, precision, sum);
        }
}

/* What reaches a branch's output, and the gate itself. */
static void gate_backward(const nsa_problem *p, nsa_precision precision, int32_t c, const double *branch_out,
                          double *branch_dout, nsa_results *r) {
    const int32_t dim = p->c.head_dim, dim_v = p->c.head_dim_v;
    for (int64_t row = 0; row < p->rows * p->c.num_heads; row++) {
        const double *dout = p->values[NSA_DOUT] + row * dim_v;
        const double gate = gate_of(p, precision, row, c);
        const double dgate = stored(p, precision, dot(precision, dout, branch_out + row * dim_v, dim_v));
        const int64_t w_row = (row % p->c.num_heads * 3 + c) * dim;
        const double dlogit = stored(p, precision, dgate * gate * (1 - gate));
        for (int32_t d = 0; d < dim_v; d++)
            branch_dout[row * dim_v + d] = stored(p, precision, gate * dout[d]);
        if (p->c.gate == NSA_GATE_TENSOR) r->values[NSA_DGATES][row * 3 + c] = dgate;
        for (int32_t d = 0; d < dim && p->c.gate == NSA_GATE_WEIGHTS; d++) {
            double *dw = &r->values[NSA_DW_GATE][w_row + d], *dq = &r->values[NSA_DQ][row * dim + d];
            *dw = summed(precision, *dw + dlogit * p->values[NSA_Q][row * dim + d]);
            *dq = stored(p, precision, *dq + dlogit * p->values[NSA_W_GATE][w_row + d]);
        }
    }
}

/* ---- the whole ---- */

static branch branch_of(const nsa_problem *p, nsa_precision precision, const nsa_choice *choice, int kind,
                        nsa_results *r) {
    bool compressed = kind == CMP;
    return (branch){.p = p,
                    .precision = precision,
                    .choice = choice,
                    .kind = kind,
                    .k = compressed ? r->values[NSA_K_CMP] : p->values[NSA_K],
                    .v = compressed ? r->values[NSA_V_CMP] : p->values[NSA_V],
                    .first = compressed ? p->first_cmp : p->first,
                    .len = compressed ? p->len_cmp : p->len,
                    .lse = r->values[NSA_LSE_CMP + kind],
                    .steepest = &r->steepest};
}

/* Each branch stores its gradients; then they are added, and stored again. */
static void add_all(const nsa_problem *p, nsa_precision precision, double *sum, const double *part,
                    int64_t count) {
    for (int64_t e = 0; e < count; e++) sum[e] = stored(p, precision, sum[e] + stored(p, precision, part[e]));
}

static void branch_backward(branch *s, double *branch_out, nsa_results *r) {
    const nsa_problem *p = s->p;
    const bool compressed = s->kind == CMP;
    const int64_t queries = p->rows * p->c.num_heads;
    const int64_t keys = (compressed ? p->cmp_rows : p->rows) * p->c.num_kv_heads;
    double *dout = zeros(queries * p->c.head_dim_v);
    s->out = branch_out;
    s->dq = zeros(queries * p->c.head_dim);
    s->dk = zeros(keys * p->c.head_dim);
    s->dv = zeros(keys * p->c.head_dim_v);
    gate_backward(p, s->precision, s->kind, branch_out, dout, r);
    s->dout = dout;
    for_each_row(s, backward_row);
    add_all(p, s->precision, r->values[NSA_DQ], s->dq, queries * p->c.head_dim);
    if (compressed) {
        side k = keys_of(p), v = values_of(p);
        for (int64_t e = 0; e < keys * p->c.head_dim; e++) s->dk[e] = stored(p, s->precision, s->dk[e]);
        for (int64_t e = 0; e < keys * p->c.head_dim_v; e++) s->dv[e] = stored(p, s->precision, s->dv[e]);
        compress_side_backward(p, s->precision, &k, s->dk, r->values[NSA_DK], r->values[NSA_DW_K]);
        compress_side_backward(p, s->precision, &v, s->dv, r->values[NSA_DV], r->values[NSA_DW_V]);
    } else {
        add_all(p, s->precision, r->values[NSA_DK], s->dk, keys * p->c.head_dim);
        add_all(p, s->precision, r->values[NSA_DV], s->dv, keys * p->c.head_dim_v);
    }
    free(dout);
    free(s->dq);
    free(s->dk);
    free(s->dv);
}

void nsa_truth(const nsa_problem *p, nsa_precision precision, const nsa_choice *choice, bool backward,
               nsa_results *r) {
    double *out[NUM_BRANCHES];
    nsa_truth_compress(p, precision, r);
    for (int kind = CMP; kind < NUM_BRANCHES; kind++) {
        branch s = branch_of(p, precision, choice, kind, r);
        s.out = out[kind] = zeros(p->rows * p->c.num_heads * p->c.head_dim_v);
        for_each_row(&s, forward_row);
        if (p->c.keep_outputs)
            memcpy(r->values[NSA_OUT_CMP + kind], s.out,
                   (size_t)(p->rows * p->c.num_heads * p->c.head_dim_v) * sizeof *s.out);
    }
    nsa_truth_gate(p, precision, out, r->values[NSA_OUT]);
    for (int kind = CMP; backward && kind < NUM_BRANCHES; kind++) {
        branch s = branch_of(p, precision, choice, kind, r);
        branch_backward(&s, out[kind], r);
    }
    for (int kind = CMP; kind < NUM_BRANCHES; kind++) free(out[kind]);
}
