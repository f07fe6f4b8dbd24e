/* backward.c - one query tile: for every key tile of the walk, five products.
 *
 *     scores = k q^T        p = exp(scores - lse)       dp = v dout^T      delta = sum(dout out) - dlse
 *     dscore = p (dp - delta), through the score_mod and the softcap
 *     dv += p dout          dk += dscore q              dq^T += k^T dscore
 *
 * dq stays with the tile; dk and dv are sums over tiles, which belong to whoever runs the tiles of a key head one
 * after the other: no atomics, and the same order every time. Hidden pairs have p = 0 and take no part.
 */
#include "cpu/kernels/backward.h"

#include <math.h>

#include "cpu/kernels/product.h"
#include "mod/modifier.h"

static float dot(const float *a, const float *b, int n) {
    vec sum = vset(0.f);
    float total = 0;
    int d = 0;
    for (; d + LANES <= n; d += LANES) sum += vload(a + d) * vload(b + d);
    for (int i = 0; i < LANES; i++) total += sum[i];
    for (; d < n; d++) total += a[d] * b[d];
    return total;
}

/* Per lane: lse in base 2 (blind rows: +inf, so that p = 0) and delta. */
static void load_row_values(const q_tile *t) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    const int dim_v = args->head_dim_v;
    for (int lane = 0; lane < t->lanes; lane++) {
        s->lse[lane] = INFINITY;
        s->delta[lane] = s->dlse[lane] = s->p_dp[lane] = 0;
        if (lane >= t->rows) continue;
        const float lse = *sac_lane_value(t, &args->lse, lane);
        if (lse == -INFINITY) continue;
        sac_widen(s->rows, sac_lane_row(t, &args->out, lane), args->dtype, dim_v);
        sac_widen(s->more_rows, sac_lane_row(t, &args->dout, lane), args->dtype, dim_v);
        if (args->dlse.data) s->dlse[lane] = *sac_lane_value(t, &args->dlse, lane);
        s->lse[lane] = lse * LOG2E;
        s->delta[lane] = dot(s->rows, s->more_rows, dim_v) - s->dlse[lane];
    }
}

/* scores become p, grad becomes dscore = p (dp - delta), for n keys. Hidden pairs get zeros by force: a lse, dp or
 * delta that is NaN belongs to what is visible. */
static void softmax_grad(const q_tile *t, int n) {
    const tile_scratch *s = &t->scratch;
    const vec exponent = vset(t->exponent);
    for (int lane = 0; lane < t->lanes; lane += LANES) {
        const vec lse = vload(s->lse + lane), delta = vload(s->delta + lane);
        float *score = s->scores + lane, *grad = s->grad + lane;
        vec sum = vload(s->p_dp + lane);
        for (int j = 0; j < n; j++, score += Q_TILE, grad += Q_TILE) {
            const ivec hidden = vload(score) == vset(-INFINITY);
            const vec p = vzero_where(hidden, vexp2(vmultiply_subtract(vload(score), exponent, lse)));
            const vec dp = vzero_where(hidden, vload(grad));
            sum += p * dp;
            vstore(score, p);
            vstore(grad, vzero_where(hidden, p * (dp - delta)));
        }
        vstore(s->p_dp + lane, sum);
    }
}

/* d/dx c tanh(x / c) = 1 - tanh^2: taken from the capped score, before ALiBi. `keys`: 1 where lanes differ in key. */
static void softcap_grad(const q_tile *t, const sac_tile *tile, int n) {
    const tile_scratch *s = &t->scratch;
    const vec hidden = vset(-INFINITY), inverse = vset(1 / t->args->softcap);
    for (int lane = 0; lane < t->lanes; lane += LANES) {
        const ivec query = iload(s->query + lane);
        for (int j = 0; j < n; j++) {
            const ivec key = tile->kind == SAC_DIAGONAL ? query + tile->delta : iset(tile->begin + j);
            const ivec distance = query + (t->seq.k_len - t->seq.q_len) - key;
            const vec score = vload(s->unmodified + j * Q_TILE + lane);
            const vec tanh = (score + vload(s->slope + lane) * vabs(vfrom_int(distance))) * inverse;
            float *grad = s->grad + j * Q_TILE + lane;
            vstore(grad, vselect(score == hidden, vset(0.f), vload(grad) * (vset(1.f) - tanh * tanh)));
        }
    }
}

/* One row of n keys; the score_mod's gradient is asked for runs of visible keys only, so that nothing hidden adds to
 * an aux gradient. */
static void modifier_grad_row(const q_tile *t, const sac_cpu_sums *sums, int lane, int32_t key, int n,
                              float *grad, const float *score) {
    for (int j = 0; j < n;) {
        const int first = j;
        while (j < n && score[j] != -INFINITY) j++;
        if (j > first)
            sac_score_grad_row(t->call->score_mod, grad + first, score + first, j - first, t->at.b,
                               t->scratch.head[lane], t->scratch.query[lane], key + first, sums->aux);
        while (j < n && score[j] == -INFINITY) j++;
    }
}

static void modifier_grad(const q_tile *t, const sac_tile *tile, const sac_cpu_sums *sums) {
    const tile_scratch *s = &t->scratch;
    const int n = tile->end - tile->begin, padded = round_up(n, LANES);
    for (int first = 0; first < t->rows; first += LANES) {
        sac_transpose_out(s->rows, s->row_words, s->grad + first, Q_TILE, padded);
        sac_transpose_out(s->more_rows, s->row_words, s->unmodified + first, Q_TILE, padded);
        for (int lane = first; lane < first + LANES && lane < t->rows; lane++)
            modifier_grad_row(t, sums, lane, tile->begin, n, s->rows + (lane - first) * s->row_words,
                              s->more_rows + (lane - first) * s->row_words);
        sac_transpose_in(s->grad + first, Q_TILE, s->rows, s->row_words, padded);
    }
}

/* (n, lanes) fp32 to bf16, row by row: the left side of a product over lanes. */
static const float *narrow_rows(const q_tile *t, const float *values, int n) {
    float *narrow = t->scratch.coefficients;
    for (int j = 0; j < n; j++)
        for (int lane = 0; lane < t->lanes; lane += 2 * LANES) {
            const float *at = values + j * Q_TILE + lane;
            const vec second = lane + LANES < t->lanes ? vload(at + LANES) : vset(0.f);
            vstore(narrow + (j * Q_TILE + lane) / 2, vnarrow(vload(at), second));
        }
    return narrow;
}

/* (n, lanes) fp32 to pairs of keys: the right side of a product over keys. */
static const float *pair_keys(const q_tile *t, const float *values, int n) {
    for (int j = 0; j < n; j += 2)
        for (int lane = 0; lane < t->lanes; lane += LANES) {
            const float *at = values + j * Q_TILE + lane;
            const vec high = j + 1 < n ? vload(at + Q_TILE) : vset(0.f);
            vstore(t->scratch.paired + j / 2 * Q_TILE + lane, vpair(vload(at), high));
        }
    return t->scratch.paired;
}

/* sum[key][d] += coefficients[key][lane] rows[lane][d] */
static void add_to_keys(const q_tile *t, const sac_tile *tile, float *sum, const float *coefficients,
                        const float *rows, int dim) {
    const int n = tile->end - tile->begin, step = t->pairs ? 2 : 1, padded = round_up(dim, LANES);
    const ptrdiff_t stride = sac_cpu_padded(dim);
    sac_product(t, tile, SAC_ZEROS_IN_A,
                &(gemm){.c = sum + tile->begin * stride,
                        .ldc = stride,
                        .a = t->pairs ? narrow_rows(t, coefficients, n) : coefficients,
                        .lda = Q_TILE / step * (ptrdiff_t)sizeof(float),
                        .b = rows,
                        .ldb = padded,
                        .m = n,
                        .n = padded,
                        .k = t->lanes / step,
                        .pairs = t->pairs,
                        .accumulate = true});
}

/* dq^T[d][lane] += k^T dscore */
static void add_to_queries(const q_tile *t, const sac_tile *tile) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    const int n = tile->end - tile->begin, dim = args->head_dim;
    const panel k = sac_panel_pairs(sac_key_row(t, &args->k, tile->begin), args->k.row_stride, args->dtype,
                                    t->pairs, n, dim, t->pairs ? s->k_pairs : s->k_room);
    sac_product(t, tile, SAC_ZEROS_IN_B,
                &(gemm){.c = s->dq_t,
                        .ldc = Q_TILE,
                        .a = k.data,
                        .lda = k.stride,
                        .b = t->pairs ? pair_keys(t, s->grad, n) : s->grad,
                        .ldb = Q_TILE,
                        .m = dim,
                        .n = t->lanes,
                        .k = t->pairs ? (n + 1) / 2 : n,
                        .a_transposed = true,
                        .pairs = t->pairs,
                        .accumulate = true});
}

static float *unmodified_or_null(const q_tile *t) {
    return t->call->score_mod || t->args->softcap > 0 ? t->scratch.unmodified : NULL;
}

/* target[key][lane] = rows of k or v times the queries' columns. */
static void multiply_keys(const q_tile *t, const sac_tile *tile, const sac_view *view, const float *columns,
                          int dim, float *room, float *target) {
    const int n = tile->end - tile->begin;
    const panel rows = sac_panel_rows(sac_key_row(t, view, tile->begin), view->row_stride, t->args->dtype,
                                      t->pairs, n, dim, room);
    sac_gemm(&(gemm){.c = target,
                     .ldc = Q_TILE,
                     .a = rows.data,
                     .lda = rows.stride,
                     .b = columns,
                     .ldb = Q_TILE,
                     .m = n,
                     .n = t->lanes,
                     .k = t->pairs ? dim / 2 : dim,
                     .pairs = t->pairs});
}

/* Leaves p in scores, dscore (before the score_mod) in grad. */
static void probabilities(const q_tile *t, const sac_tile *tile) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    if (tile->kind == SAC_DIAGONAL) {
        sac_diagonal_products(t, tile, s->q_t, &args->k, args->head_dim, s->scores, s->scores + Q_TILE);
        sac_scores_finish_diagonal(t, tile, s->scores, unmodified_or_null(t));
        sac_diagonal_products(t, tile, s->dout_t, &args->v, args->head_dim_v, s->grad, s->scores + Q_TILE);
        softmax_grad(t, 1);
        return;
    }
    sac_prefetch_keys(t, &args->v, args->head_dim_v, tile->begin, tile->end);
    multiply_keys(t, tile, &args->k, s->q_t, args->head_dim, s->k_room, s->scores);
    sac_scores_finish(t, tile, s->scores, unmodified_or_null(t));
    multiply_keys(t, tile, &args->v, s->dout_t, args->head_dim_v, s->v_room, s->grad);
    softmax_grad(t, tile->end - tile->begin);
}

static void differentiate(const q_tile *t, const sac_tile *tile, const sac_cpu_sums *sums) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    probabilities(t, tile);
    sac_prefetch_keys(t, &args->k, args->head_dim, tile->end, 2 * tile->end - tile->begin);
    if (args->dv.data) add_to_keys(t, tile, sums->dv, s->scores, s->dout_rows, args->head_dim_v);
    if (t->call->score_mod) modifier_grad(t, tile, sums);
    if (args->softcap > 0) softcap_grad(t, tile, tile->end - tile->begin);
    if (args->dk.data) add_to_keys(t, tile, sums->dk, s->grad, s->q_rows, args->head_dim);
    if (args->dq.data) add_to_queries(t, tile);
}

/* sum[d] += factor * row[d] */
static void add_row(float *sum, float factor, const float *row, int dim) {
    for (int d = 0; d < dim; d++) sum[d] += factor * row[d];
}

/* dk and dv of a DIAGONAL tile: each lane has its own row of the sums. */
static void add_to_diagonal_keys(const q_tile *t, const sac_tile *tile, const sac_cpu_sums *sums) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    for (int lane = 0; lane < t->rows; lane++) {
        const int64_t j = s->query[lane] + tile->delta;
        if (s->scores[lane] == 0) continue;
        if (args->dv.data) {
            sac_widen(s->rows, sac_lane_row(t, &args->dout, lane), args->dtype, args->head_dim_v);
            add_row(sums->dv + j * sac_cpu_padded(args->head_dim_v), s->scores[lane], s->rows,
                    args->head_dim_v);
        }
        if (args->dk.data) {
            sac_widen(s->rows, sac_lane_row(t, &args->q, lane), args->dtype, args->head_dim);
            add_row(sums->dk + j * sac_cpu_padded(args->head_dim), s->grad[lane], s->rows, args->head_dim);
        }
    }
}

static void differentiate_diagonal(const q_tile *t, const sac_tile *tile, const sac_cpu_sums *sums) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    float *keys = s->scores + Q_TILE;
    probabilities(t, tile);
    for (int lane = 0; t->call->score_mod && lane < t->rows; lane++)
        modifier_grad_row(t, sums, lane, s->query[lane] + tile->delta, 1, s->grad + lane,
                          s->unmodified + lane);
    if (args->softcap > 0) softcap_grad(t, tile, 1);
    add_to_diagonal_keys(t, tile, sums);
    if (!args->dq.data) return;
    for (int lane = 0; lane < t->lanes; lane++) s->visible[lane] = s->scores[lane] != 0;
    for (int first = 0; first < t->lanes; first += LANES) {
        sac_tile_gather_keys(t, keys, &args->k, args->head_dim, first, tile->delta, s->visible, true);
        float *dq = s->dq_t + first;
        for (int d = 0; d < args->head_dim; d++)
            vstore(dq + d * Q_TILE,
                   vload(dq + d * Q_TILE) + vload(s->grad + first) * vload(keys + d * LANES));
    }
}

/* dsink = p_sink (dlse - delta), with the delta that does not suffer from the rounding of out. */
static void add_to_sink(const q_tile *t, const sac_cpu_sums *sums) {
    const tile_scratch *s = &t->scratch;
    for (int lane = 0; sums->dsink && lane < t->rows; lane++) {
        const int32_t h = t->scratch.head[lane];
        if (s->lse[lane] == INFINITY) continue;
        sums->dsink[h % t->args->group] +=
            exp2f(t->args->sink[h] * LOG2E - s->lse[lane]) * (s->dlse[lane] - s->p_dp[lane]);
    }
}

static bool wants_aux_grad(const sac_cpu_sums *sums) {
    for (int i = 0; i < SACCADE_MAX_AUX; i++)
        if (sums->aux->tensor[i].grad) return true;
    return false;
}

/* delta from p and dp themselves: where out was rounded to 16 bits, gradients of aux tensors, which are sums over many
 * rows, would inherit the errors of all. Costs a walk of its own. */
static void refine_delta(const q_tile *t) {
    const tile_scratch *s = &t->scratch;
    sac_cpu_key_walk walk = sac_cpu_walk_keys(t->args, &t->at, (sac_range){0, SAC_FAR});
    for (sac_tile keys; sac_cpu_next_keys(&walk, &keys);) probabilities(t, &keys);
    for (int lane = 0; lane < t->lanes; lane++) {
        s->delta[lane] = s->p_dp[lane] - s->dlse[lane];
        s->p_dp[lane] = 0;
    }
}

/* Halves where the band cuts through the tile, so that at most half of what a whole one would hide is computed. */
static int strip_width(const sac_tile *tile) { return tile->banded ? Q_TILE / 2 : Q_TILE; }

static void load(const q_tile *t) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    load_row_values(t);
    sac_tile_load(t, s->q_t, &args->q, args->head_dim);
    sac_tile_load(t, s->dout_t, &args->dout, args->head_dim_v);
    sac_tile_load_rows(t, s->q_rows, &args->q, args->head_dim);
    sac_tile_load_rows(t, s->dout_rows, &args->dout, args->head_dim_v);
    memset(s->dq_t, 0, sizeof(float) * (size_t)(Q_TILE * round_up(args->head_dim, LANES)));
}

static void store(const q_tile *t) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    if (!args->dq.data) return;
    for (int lane = 0; lane < t->rows; lane++) s->delta[lane] = args->scale;
    sac_tile_store(t, &args->dq, s->dq_t, s->delta, args->head_dim);
}

static void differentiate_strips(const q_tile *t, const sac_tile *tile, const sac_cpu_sums *sums) {
    q_tile strip[MAX_STRIPS];
    const int num_strips = sac_tile_strips(t, strip_width(tile), strip);
    for (int i = 0; i < num_strips; i++) {
        sac_tile trimmed = *tile;
        if (sac_tile_trim(&strip[i], &trimmed)) differentiate(&strip[i], &trimmed, sums);
    }
}

void sac_backward(const sac_attention_call *call, const sac_cpu_bundle *rows, const sac_cpu_sums *sums,
                  void *scratch) {
    const bool refine = call->args.dtype != SAC_F32 && wants_aux_grad(sums);
    q_tile t[SAC_CPU_MAX_TOGETHER];
    const int num_tiles = sac_tiles_begin(t, call, rows, true, scratch);
    sac_gemm_begin();
    for (int i = 0; i < num_tiles; i++) {
        load(&t[i]);
        if (refine) refine_delta(&t[i]);
    }
    sac_cpu_key_walk walk = sac_cpu_walk_keys(&call->args, &rows->all, (sac_range){0, SAC_FAR});
    for (sac_tile keys; sac_cpu_next_keys(&walk, &keys);)
        for (int i = 0; i < num_tiles; i++) {
            if (keys.kind == SAC_DIAGONAL)
                differentiate_diagonal(&t[i], &keys, sums);
            else
                differentiate_strips(&t[i], &keys, sums);
        }
    sac_gemm_end();
    for (int i = 0; i < num_tiles; i++) {
        add_to_sink(&t[i], sums);
        store(&t[i]);
    }
}

void sac_reduce(void *target, const float *parts, size_t stride, int num_parts, float factor, int dtype,
                int dim) {
    float row[256];
    for (int d = 0; d < dim; d++) row[d] = parts[d];
    for (int i = 1; i < num_parts; i++) add_row(row, 1, parts + (size_t)i * stride, dim);
    for (int d = 0; d < dim; d++) row[d] *= factor;
    sac_narrow(target, row, dtype, dim);
}
