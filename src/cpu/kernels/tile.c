/* tile.c - scratch, lanes, and the way of whole rows into and out of them. */
#include "cpu/kernels/tile.h"

#include <math.h>

#include "base/arena.h"

static float *take_floats(sac_arena *a, int rows, int row) {
    return sac_take(a, (size_t)rows * (size_t)row, sizeof(float));
}

static bool uses_pairs(const sac_attention_args *args) { return HAVE_PAIRS && args->dtype == SAC_BF16; }

/* With tiles the sums of a strip are loaded and stored once for each key tile, at the price of two products. */
int32_t sac_kv_tile(const sac_attention_args *args, bool backward) {
    return HAVE_TILES && uses_pairs(args) && !backward ? 2 * TURNED_ROW : 128;
}

static void lay_out_backward(sac_arena *a, const sac_attention_args *args, int dim, tile_scratch *s) {
    const int keys = sac_kv_tile(args, true);
    s->more_rows = take_floats(a, 2 * LANES, s->row_words);
    s->grad = take_floats(a, keys, Q_TILE);
    s->unmodified = take_floats(a, args->has_score_mod || args->softcap > 0 ? keys : 1, Q_TILE);
    s->coefficients = take_floats(a, uses_pairs(args) ? keys / 2 : 0, Q_TILE);
    s->k_pairs = take_floats(a, uses_pairs(args) ? keys / 2 : 0, dim);
}

/* What each tile has of its own. */
static void lay_out_lanes(sac_arena *a, const sac_attention_args *args, bool backward, int dim, int dim_v,
                          tile_scratch *s) {
    s->q_t = take_floats(a, dim, Q_TILE);
    s->slope = take_floats(a, 1, Q_TILE);
    s->head = sac_take(a, Q_TILE, sizeof(int32_t));
    s->query = sac_take(a, Q_TILE, sizeof(int32_t));
    s->lo = sac_take(a, Q_TILE, sizeof(int32_t));
    s->hi = sac_take(a, Q_TILE, sizeof(int32_t));
    s->list_bit = sac_take(a, Q_TILE, sizeof(int32_t));
    if (!backward) {
        s->state = take_floats(a, 1, (int)sac_cpu_state_size(args));
        return;
    }
    s->dout_t = take_floats(a, dim_v, Q_TILE);
    s->dq_t = take_floats(a, dim, Q_TILE);
    s->q_rows = take_floats(a, Q_TILE, dim);
    s->dout_rows = take_floats(a, Q_TILE, dim_v);
    s->lse = take_floats(a, 1, Q_TILE);
    s->dlse = take_floats(a, 1, Q_TILE);
    s->delta = take_floats(a, 1, Q_TILE);
    s->p_dp = take_floats(a, 1, Q_TILE);
}

size_t sac_tile_scratch(const sac_attention_args *args, bool backward, int num_tiles, void *base,
                        tile_scratch scratch[]) {
    sac_arena a = {base, 0};
    const int keys = sac_kv_tile(args, backward);
    tile_scratch *s = &scratch[0];
    *s = (tile_scratch){0};
    const int dim = round_up(args->head_dim, LANES), dim_v = round_up(args->head_dim_v, LANES);
    s->row_words = dim > dim_v ? dim : dim_v;
    if (s->row_words < keys) s->row_words = keys;
    s->row_words += LANES; /* an odd number of vectors, or columns of rows would share one cache set */
    s->rows = take_floats(&a, LANES, s->row_words);
    s->scores = take_floats(&a, keys, Q_TILE);
    s->paired = take_floats(&a, uses_pairs(args) ? keys / 2 : 0, Q_TILE);
    s->k_room = take_floats(&a, args->dtype == SAC_F32 ? 0 : keys, args->head_dim);
    s->v_room = take_floats(&a, args->dtype == SAC_F32 ? 0 : keys, args->head_dim_v);
    s->v_turned = take_floats(&a, HAVE_TILES && !backward && uses_pairs(args) ? dim_v : 0, TURNED_ROW);
    s->visible = sac_take(&a, keys, 1);
    if (backward) lay_out_backward(&a, args, dim, s);
    for (int i = 0; i < num_tiles; i++) {
        scratch[i] = *s;
        lay_out_lanes(&a, args, backward, dim, dim_v, &scratch[i]);
    }
    return a.used;
}

/* all: the rows that walk the keys with these. */
static void set_lanes(q_tile *t, const sac_cpu_tile *all) {
    const sac_attention_args *args = t->args;
    int32_t i = t->at.q.begin, h = t->at.h;
    for (int lane = 0; lane < t->lanes; lane++) {
        const bool used = lane < t->rows;
        t->scratch.head[lane] = h;
        t->scratch.query[lane] = i;
        t->scratch.lo[lane] = sac_band_lo(&t->band, i);
        t->scratch.hi[lane] = used ? sac_band_hi(&t->band, i) : 0;
        t->scratch.list_bit[lane] = (int32_t)sac_cpu_list_bit(args, all, i);
        t->scratch.slope[lane] = 0;
        if (used && args->alibi_slopes)
            t->scratch.slope[lane] = args->alibi_slopes[t->at.b * args->alibi_batch_stride + h];
        if (++h < t->at.h + t->at.num_heads) continue;
        h = t->at.h;
        if (++i == t->at.q.end) i = t->at.q.begin; /* lanes that no row is left for */
    }
}

static void begin(q_tile *t, const sac_attention_call *call, const sac_cpu_tile *at, const sac_cpu_tile *all,
                  const tile_scratch *scratch) {
    const sac_attention_args *args = &call->args;
    *t = (q_tile){.call = call, .args = args, .at = *at, .pairs = uses_pairs(args), .scratch = *scratch};
    t->q = at->q;
    t->seq = sac_sequence_of(args, at->b);
    t->band = sac_band_make(&args->band, t->seq.q_len, t->seq.k_len);
    t->rows = at->num_heads * (at->q.end - at->q.begin);
    t->lanes = round_up(t->rows, LANES);
    t->words = t->pairs ? args->head_dim / 2 : args->head_dim;
    t->words_v = t->pairs ? args->head_dim_v / 2 : args->head_dim_v;
    /* A scale of 0 would make NaN of a hidden -inf, and a negative one turns the maximum round. */
    t->modified = args->softcap > 0 || args->alibi_slopes || call->score_mod || !(args->scale > 0);
    t->exponent = t->modified ? LOG2E : args->scale * LOG2E;
    set_lanes(t, all);
}

/* Where the index-th tile of a bundle's queries begins: they are shared out evenly, so that tiles are whole vectors, or
 * whole pairs of tiles of the instruction set, where that comes out even among their heads. */
static int32_t cut_at(const sac_cpu_bundle *rows, bool pairs, int index) {
    const sac_range q = rows->all.q;
    const int share = (q.end - q.begin) * index / rows->row_tiles;
    const int heads = rows->all.num_heads / rows->head_tiles, lanes = HAVE_TILES && pairs ? 32 : LANES;
    return sac_min(q.begin + round_up(share, lanes % heads == 0 ? lanes / heads : 1), q.end);
}

int sac_tiles_begin(q_tile t[], const sac_attention_call *call, const sac_cpu_bundle *rows, bool backward,
                    void *scratch) {
    const int num_tiles = rows->head_tiles * rows->row_tiles;
    const bool pairs = uses_pairs(&call->args);
    tile_scratch rooms[SAC_CPU_MAX_TOGETHER];
    sac_tile_scratch(&call->args, backward, num_tiles, scratch, rooms);
    for (int i = 0; i < num_tiles; i++) {
        const int head_tile = i / rows->row_tiles, row_tile = i % rows->row_tiles;
        sac_cpu_tile at = rows->all;
        at.num_heads /= rows->head_tiles;
        at.h += head_tile * at.num_heads;
        at.q = (sac_range){cut_at(rows, pairs, row_tile), cut_at(rows, pairs, row_tile + 1)};
        begin(&t[i], call, &at, &rows->all, &rooms[i]);
    }
    return num_tiles;
}

/* `width` lanes of the tile from `first` on, as a tile of their own. What is computed anew for each key tile lies in
 * the first columns whichever lanes it is of: the next strip finds those in the cache. */
static q_tile strip_of(const q_tile *t, int first, int width) {
    q_tile strip = *t;
    strip.rows = sac_min(t->rows - first, width);
    strip.lanes = sac_min(t->lanes - first, width);
    const int heads = t->at.num_heads;
    strip.q = (sac_range){t->q.begin + first / heads, t->q.begin + (first + strip.rows + heads - 1) / heads};
    tile_scratch *s = &strip.scratch;
    float **const columns[] = {&s->q_t, &s->state, &s->slope, &s->dout_t, &s->dq_t,
                               &s->lse, &s->dlse,  &s->delta, &s->p_dp};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        if (*columns[i]) *columns[i] += first;
    s->head += first;
    s->query += first;
    s->lo += first;
    s->hi += first;
    s->list_bit += first;
    if (s->q_rows) {
        const int step = t->pairs ? 2 : 1;
        s->q_rows += first / step * round_up(t->args->head_dim, LANES);
        s->dout_rows += first / step * round_up(t->args->head_dim_v, LANES);
    }
    return strip;
}

/* Strips begin and end where panels of the whole key tile may be cut: pairs of keys stay whole, and tiles on cache
 * lines. */
enum { BEGIN_STEP = HAVE_TILES ? 32 : 2, END_STEP = 2 };

bool sac_tile_trim(const q_tile *t, sac_tile *tile) {
    if (!tile->banded) return true;
    const sac_range any = sac_band_keys_any(&t->band, t->q), all = sac_band_keys_all(&t->band, t->q);
    const int32_t begin = tile->begin;
    if (any.end <= begin || any.begin >= tile->end) return false;
    if (any.begin > begin) tile->begin += (any.begin - begin) / BEGIN_STEP * BEGIN_STEP;
    tile->end = sac_min(tile->end, begin + round_up(any.end - begin, END_STEP));
    tile->banded = tile->begin < all.begin || tile->end > all.end;
    return true;
}

int sac_tile_strips(const q_tile *t, int width, q_tile strips[MAX_STRIPS]) {
    int n = 0;
    for (int first = 0; first < t->rows; first += width) strips[n++] = strip_of(t, first, width);
    return n;
}

void sac_tile_load(const q_tile *t, float *target, const sac_view *view, int dim) {
    const tile_scratch *s = &t->scratch;
    const int words = t->pairs ? dim / 2 : dim, padded = round_up(words, LANES);
    for (int first = 0; first < t->lanes; first += LANES) {
        for (int lane = first; lane < first + LANES; lane++) {
            float *row = s->rows + (lane - first) * s->row_words;
            if (lane >= t->rows || padded > words) memset(row, 0, (size_t)padded * sizeof(float));
            if (lane >= t->rows) continue;
            if (t->pairs)
                memcpy(row, sac_lane_row(t, view, lane), (size_t)words * sizeof(float));
            else
                sac_widen(row, sac_lane_row(t, view, lane), t->args->dtype, dim);
        }
        sac_transpose_in(target + first, Q_TILE, s->rows, s->row_words, padded);
    }
}

void sac_tile_load_rows(const q_tile *t, float *target, const sac_view *view, int dim) {
    const int padded = round_up(dim, LANES), step = t->pairs ? 2 : 1;
    memset(target, 0, sizeof(float) * (size_t)(t->lanes / step * padded));
    for (int lane = 0; lane < t->rows; lane += step) {
        float *row = target + lane / step * padded;
        if (t->pairs)
            sac_pair_rows(row, sac_lane_row(t, view, lane),
                          lane + 1 < t->rows ? sac_lane_row(t, view, lane + 1) : NULL, dim);
        else
            sac_widen(row, sac_lane_row(t, view, lane), t->args->dtype, dim);
    }
}

void sac_tile_gather_keys(const q_tile *t, float *target, const sac_view *view, int dim, int first,
                          int32_t delta, const uint8_t *wanted, bool widened) {
    const tile_scratch *s = &t->scratch;
    const bool as_words = t->pairs && !widened;
    const int words = as_words ? dim / 2 : dim, padded = round_up(words, LANES);
    for (int lane = first; lane < first + LANES; lane++) {
        float *row = s->rows + (lane - first) * s->row_words;
        if (!wanted[lane])
            memset(row, 0, (size_t)padded * sizeof(float));
        else if (as_words)
            memcpy(row, sac_key_row(t, view, s->query[lane] + delta), (size_t)words * sizeof(float));
        else
            sac_widen(row, sac_key_row(t, view, s->query[lane] + delta), t->args->dtype, dim);
    }
    sac_transpose_in(target, LANES, s->rows, s->row_words, padded);
}

void sac_tile_store(const q_tile *t, const sac_view *view, float *source, const float *factor, int dim) {
    const tile_scratch *s = &t->scratch;
    for (int first = 0; first < t->rows; first += LANES) {
        const vec scale = vload(factor + first);
        for (int d = 0; d < dim; d++) {
            float *at = source + d * Q_TILE + first;
            vstore(at, vload(at) * scale);
        }
        sac_transpose_out(s->rows, s->row_words, source + first, Q_TILE, round_up(dim, LANES));
        for (int lane = first; lane < first + LANES && lane < t->rows; lane++) {
            float *row = s->rows + (lane - first) * s->row_words;
            sac_narrow(sac_lane_row(t, view, lane), row, t->args->dtype, dim);
        }
    }
}
