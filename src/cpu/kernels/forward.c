/* forward.c - query tiles: for every key tile of the walk, scores, softmax, accumulate; then normalise and store.
 *
 * Invariant: out_t and row_sum are the true sums divided by 2^row_max; whoever raises row_max rescales both. To do so
 * seldom, row_max stays as long as no exponent exceeds it by more than HEADROOM: fp32 and bf16 hold 2^8 as precisely
 * as 1. A row that has seen nothing has row_max -inf, and subtracts 0 instead: otherwise NaN.
 */
#include "cpu/kernels/forward.h"

#include <math.h>

#include "cpu/kernels/product.h"

#define HEADROOM 8.f

static float *row_max(const q_tile *t) { return t->scratch.state; }
static float *row_sum(const q_tile *t) { return t->scratch.state + Q_TILE; }
static float *out_t(const q_tile *t) { return t->scratch.state + 2 * Q_TILE; }

static void clear_state(const q_tile *t) {
    for (int lane = 0; lane < Q_TILE; lane++) row_max(t)[lane] = -INFINITY;
    memset(row_sum(t), 0, sizeof(float) * Q_TILE * (size_t)(1 + round_up(t->args->head_dim_v, LANES)));
}

/* Four maxima at a time: one would wait for the last. */
static vec column_max(const float *scores, int n) {
    vec max[4] = {vset(-INFINITY), vset(-INFINITY), vset(-INFINITY), vset(-INFINITY)};
    int j = 0;
    for (; j + 4 <= n; j += 4)
        UNROLL for (int i = 0; i < 4; i++) max[i] = vmax(max[i], vload(scores + (j + i) * Q_TILE));
    for (; j < n; j++) max[0] = vmax(max[0], vload(scores + j * Q_TILE));
    return vmax(vmax(max[0], max[1]), vmax(max[2], max[3]));
}

/* Scores of LANES lanes become 2^(score * exponent - base), in place or in pairs; returns their sums. */
static vec exponentiate(float *scores, float *paired, int n, vec exponent, vec base) {
    vec sum = vset(0.f);
    if (!paired) {
        for (int j = 0; j < n; j++) {
            vec p = vexp2(vmultiply_subtract(vload(scores + j * Q_TILE), exponent, base));
            vstore(scores + j * Q_TILE, p);
            sum += p;
        }
        return sum;
    }
    for (int j = 0; j < n; j += 2) {
        vec low = vexp2_coarse(vmultiply_subtract(vload(scores + j * Q_TILE), exponent, base)),
            high = vset(0.f);
        if (j + 1 < n)
            high = vexp2_coarse(vmultiply_subtract(vload(scores + (j + 1) * Q_TILE), exponent, base));
        vstore(paired + j / 2 * Q_TILE, vpair(low, high));
        sum += low + high;
    }
    return sum;
}

/* The online softmax over n more keys. */
static void softmax(const q_tile *t, float *scores, float *paired, int n) {
    const vec exponent = vset(t->exponent);
    const int dim_v = t->args->head_dim_v;
    for (int lane = 0; lane < t->lanes; lane += LANES) {
        const vec before = vload(row_max(t) + lane);
        const vec highest = column_max(scores + lane, n) * exponent;
        const vec now = vselect(highest > before + vset(HEADROOM), highest, before);
        const vec base = vselect(now == vset(-INFINITY), vset(0.f), now);
        const vec sum = exponentiate(scores + lane, paired ? paired + lane : NULL, n, exponent, base);
        if (memcmp(&before, &now, sizeof now) == 0) {
            vstore(row_sum(t) + lane, vload(row_sum(t) + lane) + sum);
            continue;
        }
        const vec rescale = vexp2(before - base);
        vstore(row_max(t) + lane, now);
        vstore(row_sum(t) + lane, vload(row_sum(t) + lane) * rescale + sum);
        float *out = out_t(t) + lane;
        for (int d = 0; d < dim_v; d++) vstore(out + d * Q_TILE, vload(out + d * Q_TILE) * rescale);
    }
}

/* The keys and values of a run of key tiles, ready for products: rows of one tile behind those of the other. */
typedef struct key_panels {
    int32_t begin;
    panel k, v;
    bool v_turned;
    bool plain; /* every product may be the plain one */
} key_panels;

/* Vectors read copied pairs faster, strip after strip; tiles read rows that lie apart as fast. */
static bool reads_in_place(const q_tile *t, const sac_cpu_key_run *run) {
    return run->num_tiles == 1 && (t->args->dtype == SAC_F32 || (t->pairs && HAVE_TILES));
}

static key_panels prepare_keys(const q_tile *t, const sac_cpu_key_run *run) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    const int step = t->pairs ? 2 : 1, v_rows = (run->num_keys + step - 1) / step;
    key_panels p = {.begin = run->tile[0].begin, .v_turned = HAVE_TILES && t->pairs};
    const bool in_place = reads_in_place(t, run);
    for (int i = 0, at = 0; i < run->num_tiles; i++) {
        const int32_t begin = run->tile[i].begin, n = run->tile[i].end - begin;
        const panel k = (in_place ? sac_panel_rows : sac_panel_copy)(
            sac_key_row(t, &args->k, begin), args->k.row_stride, args->dtype, t->pairs, n, args->head_dim,
            s->k_room + at * t->words);
        const panel v =
            sac_panel_pairs(sac_key_row(t, &args->v, begin), args->v.row_stride, args->dtype, t->pairs, n,
                            args->head_dim_v, s->v_room + at / step * args->head_dim_v);
        if (i == 0) p.k = k, p.v = v;
        at += n;
    }
    p.plain = !sac_hides_pairs(t, run->tile) || sac_panel_finite(&p.v, t->pairs, v_rows, args->head_dim_v);
    if (p.v_turned) p.v = sac_panel_turn(&p.v, v_rows, args->head_dim_v, s->v_turned);
    return p;
}

/* scores[key][lane] = k q^T, out_t[d][lane] += v^T p. */
static void attend(const q_tile *t, const sac_tile *tile, const key_panels *keys) {
    const tile_scratch *s = &t->scratch;
    const int n = tile->end - tile->begin, skipped = tile->begin - keys->begin;
    const int v_words = t->pairs ? skipped / 2 : skipped;
    sac_gemm(&(gemm){.c = s->scores,
                     .ldc = Q_TILE,
                     .a = (const char *)keys->k.data + skipped * keys->k.stride,
                     .lda = keys->k.stride,
                     .b = s->q_t,
                     .ldb = Q_TILE,
                     .m = n,
                     .n = t->lanes,
                     .k = t->words,
                     .pairs = t->pairs});
    sac_scores_finish(t, tile, s->scores, NULL);
    softmax(t, s->scores, t->pairs ? s->paired : NULL, n);
    const gemm values = {.c = out_t(t),
                         .ldc = Q_TILE,
                         .a = (const char *)keys->v.data + v_words * (keys->v_turned ? 4 : keys->v.stride),
                         .lda = keys->v.stride,
                         .m = t->args->head_dim_v,
                         .b = t->pairs ? s->paired : s->scores,
                         .ldb = Q_TILE,
                         .n = t->lanes,
                         .k = t->pairs ? (n + 1) / 2 : n,
                         .a_transposed = !keys->v_turned,
                         .pairs = t->pairs,
                         .accumulate = true};
    if (keys->plain)
        sac_gemm(&values);
    else
        sac_product(t, tile, SAC_ZEROS_IN_B, &values);
}

/* One key a row: a dot product a lane, and as much for the values. */
static void attend_diagonal(const q_tile *t, const sac_tile *tile) {
    const sac_attention_args *args = t->args;
    const tile_scratch *s = &t->scratch;
    float *scores = s->scores, *keys = s->scores + Q_TILE;
    sac_diagonal_products(t, tile, s->q_t, &args->k, args->head_dim, scores, keys);
    sac_scores_finish_diagonal(t, tile, scores, NULL);
    softmax(t, scores, NULL, 1);
    for (int lane = 0; lane < t->lanes; lane++) s->visible[lane] = scores[lane] != 0;
    for (int first = 0; first < t->lanes; first += LANES) {
        sac_tile_gather_keys(t, keys, &args->v, args->head_dim_v, first, tile->delta, s->visible, true);
        float *out = out_t(t) + first;
        for (int d = 0; d < args->head_dim_v; d++)
            vstore(out + d * Q_TILE,
                   vload(out + d * Q_TILE) + vload(scores + first) * vload(keys + d * LANES));
    }
}

/* Lanes at a time: scores, probabilities and sums of a strip stay in the first cache, from which a tile is loaded two
 * and a half times as fast as from the second. Products of tiles take two tiles of columns, those of vectors three
 * vectors. */
static int strip_width(const q_tile *t) { return HAVE_TILES && t->pairs ? 32 : 48; }

/* What goes through the keys together: tiles, and the strips that they are worked on in. */
typedef struct walkers {
    const sac_cpu_tile *rows; /* of all of them */
    q_tile tile[SAC_CPU_MAX_TOGETHER], strip[SAC_CPU_MAX_TOGETHER * MAX_STRIPS];
    int num_tiles, num_strips;
} walkers;

/* Of a run of several tiles a single one of as many keys stands for all. */
static void attend_all(const walkers *w, const sac_cpu_key_run *run) {
    sac_tile tile = run->tile[0];
    if (tile.kind == SAC_DIAGONAL) {
        for (int i = 0; i < w->num_tiles; i++) attend_diagonal(&w->tile[i], &tile);
        return;
    }
    const key_panels panels = prepare_keys(w->tile, run);
    tile.end = tile.begin + run->num_keys;
    for (int i = 0; i < w->num_strips; i++) {
        sac_tile trimmed = tile;
        if (sac_tile_trim(&w->strip[i], &trimmed)) attend(&w->strip[i], &trimmed, &panels);
    }
}

/* The next key tiles. Their rows are asked for ahead of their use where products read them in place; copies keep more
 * loads under way than can be asked for. */
static bool next_run(const q_tile *t, sac_cpu_key_walk *walk, sac_cpu_key_run *run) {
    const sac_attention_args *args = t->args;
    if (!sac_cpu_next_run(walk, run)) return false;
    if (reads_in_place(t, run)) {
        sac_prefetch_keys(t, &args->k, args->head_dim, run->tile[0].begin, run->tile[0].end);
        sac_prefetch_keys(t, &args->v, args->head_dim_v, run->tile[0].begin, run->tile[0].end);
    }
    return true;
}

/* row_sum becomes what out_t is multiplied by; lse is stored. The sink joins the sum of rows that saw something. */
static void finish_rows(const q_tile *t) {
    const sac_attention_args *args = t->args;
    for (int lane = 0; lane < t->rows; lane++) {
        float max = row_max(t)[lane], sum = row_sum(t)[lane], factor = 1;
        const bool blind = sum == 0;
        if (args->sink && !blind) {
            const float sink = args->sink[t->scratch.head[lane]] * LOG2E, higher = sink > max ? sink : max;
            factor = exp2f(max - higher);
            sum = sum * factor + exp2f(sink - higher);
            max = higher;
        }
        row_sum(t)[lane] = blind ? 0 : factor / sum;
        if (args->lse.data)
            *sac_lane_value(t, &args->lse, lane) = blind ? -INFINITY : (max + log2f(sum)) * LN2;
    }
}

/* out_t, normalised, times the weight of its row, to the mix. */
static void add_to_mix(const q_tile *t, const sac_cpu_mix *mix) {
    const int dim = round_up(t->args->head_dim_v, LANES);
    for (int first = 0; first < t->rows; first += LANES) {
        float *rows[LANES], factor[LANES] = {0};
        const int end = sac_min(LANES, t->rows - first);
        for (int i = 0; i < end; i++) {
            const int64_t row = sac_cpu_mix_row(mix, t->scratch.head[first + i], t->scratch.query[first + i]);
            rows[i] = mix->sums + row * sac_cpu_padded(t->args->head_dim_v);
            factor[i] = mix->weight[row * mix->weight_stride] * row_sum(t)[first + i];
        }
        for (int d = 0; d < dim; d += LANES) {
            vec r[LANES];
            UNROLL for (int i = 0; i < LANES; i++) r[i] =
                vload(out_t(t) + (d + i) * Q_TILE + first) * vload(factor);
            vtranspose(r);
            for (int i = 0; i < end; i++) vstore(rows[i] + d, mix->adds ? vload(rows[i] + d) + r[i] : r[i]);
        }
    }
}

static void store(const q_tile *t, const sac_cpu_mix *mix) {
    finish_rows(t);
    if (mix) add_to_mix(t, mix);
    if (t->args->out.data) sac_tile_store(t, &t->args->out, out_t(t), row_sum(t), t->args->head_dim_v);
}

static void load(walkers *w) {
    w->num_strips = 0;
    for (int i = 0; i < w->num_tiles; i++) {
        const q_tile *t = &w->tile[i];
        sac_tile_load(t, t->scratch.q_t, &t->args->q, t->args->head_dim);
        clear_state(t);
        w->num_strips += sac_tile_strips(t, strip_width(t), w->strip + w->num_strips);
    }
}

/* Keys are asked for while the ones before are worked on, the first while queries are loaded. Tiles can be joined where
 * scores need no position, and rows that lie apart are copied anyway, into rooms where they adjoin. */
static void attend_to(walkers *w, sac_range keys) {
    const q_tile *t = w->tile;
    sac_cpu_key_walk walk = sac_cpu_walk_keys(t->args, w->rows, keys);
    sac_cpu_key_run run, next;
    sac_cpu_begin_runs(&walk, t->args, w->rows, !t->modified && t->args->dtype != SAC_F32);
    bool more = next_run(t, &walk, &run);
    load(w);
    sac_gemm_begin();
    for (; more; run = next) {
        more = next_run(t, &walk, &next);
        attend_all(w, &run);
    }
    sac_gemm_end();
}

void sac_forward(const sac_attention_call *call, const sac_cpu_bundle *rows, const sac_cpu_mix *mix,
                 void *scratch) {
    walkers w;
    w.rows = &rows->all;
    w.num_tiles = sac_tiles_begin(w.tile, call, rows, false, scratch);
    attend_to(&w, (sac_range){0, SAC_FAR});
    for (int i = 0; i < w.num_tiles; i++) store(&w.tile[i], mix);
}

static void begin_one(q_tile *t, const sac_attention_call *call, const sac_cpu_tile *tile, void *scratch) {
    sac_tiles_begin(t, call, &(sac_cpu_bundle){*tile, 1, 1}, false, scratch);
}

void sac_forward_part(const sac_attention_call *call, const sac_cpu_tile *tile, sac_range keys, float *state,
                      void *scratch) {
    walkers w;
    w.rows = tile;
    w.num_tiles = 1;
    begin_one(w.tile, call, tile, scratch);
    w.tile[0].scratch.state = state;
    attend_to(&w, keys);
}

/* Adds a part to the tile's state: both are brought to the higher of the two maxima. */
static void merge(const q_tile *t, const float *part) {
    const int dim_v = t->args->head_dim_v;
    for (int lane = 0; lane < t->lanes; lane += LANES) {
        const vec ours = vload(row_max(t) + lane), theirs = vload(part + lane), now = vmax(ours, theirs);
        const vec base = vselect(now == vset(-INFINITY), vset(0.f), now);
        const vec our_scale = vexp2(ours - base), their_scale = vexp2(theirs - base);
        vstore(row_max(t) + lane, now);
        for (int d = -1; d < dim_v; d++) { /* row_sum lies before the rows of out_t */
            float *at = out_t(t) + d * Q_TILE + lane;
            vstore(at, vload(at) * our_scale + vload(part + (d + 2) * Q_TILE + lane) * their_scale);
        }
    }
}

void sac_forward_combine(const sac_attention_call *call, const sac_cpu_tile *tile, const float *states,
                         int num_states, void *scratch) {
    q_tile t;
    begin_one(&t, call, tile, scratch);
    clear_state(&t);
    for (int i = 0; i < num_states; i++) merge(&t, states + (size_t)i * sac_cpu_state_size(&call->args));
    store(&t, NULL);
}
