/* nsa_select.cu - scores of compressed keys for tiles of queries, and the best of them; no score leaves the CTA unless
 * somebody asks for them. One CTA, some neighbouring tiles of one list.
 *
 *   for each tile of keys (PROBABILITIES):          each row's maximum and sum of exponentials
 *   for each tile of keys:
 *     for each turn of rows:  s = rows keys^T;  values = s, or 2^(s - lse)
 *                             each query tile: score += its rows' values, in their order
 *     offer the scores to each query tile's best blocks, and their mean to its best blocks of compressed keys
 *   write what was chosen, ascending
 *
 * Needs, from nsa_select.c: DTYPE HEAD_DIM Q_TILE KV_TILE NUM_THREADS ALIGNED WARPGROUP (see nsa_select_operands.h)
 * PLACES (see nsa_best.h) PROBABILITIES MEANS; HAS_LSE: the denominators are known, from the compressed branch of
 * these queries; OWNED: the 16 rows of a warp are those of one query tile.
 *
 * A warp multiplies 16 rows, whole, so that row statistics never leave a quad of lanes; it sums and chooses for every
 * n-th query tile. Keys are loaded while values are summed. A mean query (MEANS) in 16 bits would lose what
 * distinguishes scores: it is the sum of TERMS operands, which hold its 24 bits.
 *
 * A tile's sums run over its own rows and, key by key, over its own candidates: nothing depends on later tokens.
 */
#include "cuda/kernels/nsa_best.h"
#include "cuda/kernels/nsa_select.h"
#include "cuda/kernels/nsa_select_operands.h"
#include "shared/tile_walk.h"

enum {
    WARPS = NUM_THREADS / 32,
    VALUE_PITCH = KV_TILE + 8,
    COLUMNS = KV_TILE / LANES, /* of a tile's scores, a lane */
    /* Choosing is a chain of exchanges between lanes: as many CTAs hide it as shared memory has room for. */
    MIN_CTAS = WARPGROUP && OWNED && HEAD_DIM <= 128 ? 5 : 0, /* 0: not said */
};
static_assert(Q_TILE == 16 * WARPS, "16 rows a warp");
static_assert(SAC_NSA_COMPRESSED_BLOCK % KV_TILE == 0, "a tile of keys lies in one block of compressed keys");

/* A tile of queries: what it may choose. Candidates outside [free_begin, free_end) are chosen whatever their score. */
typedef struct chooser {
    int32_t last, candidates; /* its last query; how many blocks have a score */
    int32_t free_begin, free_end, room;
    float factor;      /* from the sum of its rows' values to the score */
    float block_sum;   /* scores of the block of compressed keys at hand */
    best_place *best;  /* (top_k) */
    best_place *block; /* (top_k of compressed_indices) */
} chooser;
static_assert(sizeof(chooser) == SAC_NSA_CHOOSER_BYTES, "the host lays out shared memory");

typedef struct cta_work {
    const sac_nsa_select_args *args;
    ptx_smem rows, keys;
    float *values;  /* (Q_TILE, VALUE_PITCH) */
    chooser *tiles; /* (num_tiles) */
    int32_t b, list, kv_head;
    int32_t first_tile, num_tiles;
    int32_t seqlen, candidates; /* of the last tile, which has most */
    int64_t first_query, first_key;
} cta_work;

/* ---- rows ---- */

/* Row `row` of the CTA's in this turn, its tile counted from the CTA's first; tile -1: there is none. */
typedef struct select_row {
    int32_t tile, head, query;
} select_row;

SAC_FN select_row row_at(const cta_work *w, int32_t turn, int32_t row) {
    const sac_nsa_args *nsa = &w->args->nsa;
    const int32_t each = OWNED ? 16 : w->args->plan.rows_a_tile, index = turn * Q_TILE + row;
    const int32_t rest = index % each;
    select_row r = {index / each, 0, 0};
    if (r.tile >= w->num_tiles) r.tile = -1;
    if (MEANS) return r;
    r.head = w->list * nsa->heads_per_list + rest / nsa->query_tile;
    r.query = (w->first_tile + r.tile) * nsa->query_tile + rest % nsa->query_tile;
    if (r.query >= w->seqlen) r.tile = -1;
    return r;
}

SAC_FN void load_rows(const cta_work *w, int32_t turn) {
    const sac_view *q = &w->args->nsa.q;
    for (int32_t row = threadIdx.x / LANES_A_ROW; row < Q_TILE; row += ROWS_AT_ONCE) {
        const select_row r = row_at(w, turn, row);
        const element *from = (const element *)q->data;
        if (r.tile >= 0) from = view_row(q, w->b, r.head, w->first_query + r.query);
        load_row<Q_TILE>(w->rows, row, from, r.tile >= 0);
    }
}

/* x = its terms, each the rounding of what those before it leave. */
SAC_FN void store_terms(const cta_work *w, int32_t row, int32_t column, float x, float y) {
#pragma unroll
    for (int term = 0; term < TERMS; term++) {
        const pair p = pair_make(x, y);
        const float2 stored = pair_floats(p);
        pair_store_shared(w->rows + term * operand_bytes(Q_TILE) + operand_at(Q_TILE, row, column), p);
        x -= stored.x;
        y -= stored.y;
    }
}

SAC_FN void load_means(const cta_work *w) {
    const float *means =
        w->args->means + sac_nsa_tile_row(&w->args->nsa, w->b, w->list, w->first_tile) * HEAD_DIM;
    for (int32_t i = threadIdx.x; i < Q_TILE * D_PADDED / 2; i += NUM_THREADS) {
        const int32_t row = i / (D_PADDED / 2), column = i % (D_PADDED / 2) * 2;
        float2 x = make_float2(0, 0);
        if (row < w->num_tiles && column < HEAD_DIM)
            x = *(const float2 *)(means + (int64_t)row * HEAD_DIM + column);
        store_terms(w, row, column, x.x, x.y);
    }
}

SAC_FN void load_keys(const cta_work *w, int32_t key) {
    const sac_view *k = &w->args->nsa.k_cmp;
    load_operand<KV_TILE>(w->keys, view_row(k, w->b, w->kv_head, w->first_key + key), k->row_stride,
                          w->candidates - key);
    ptx_cp_async_commit();
}

/* ---- what a lane holds: two rows of its warp's, and of each eight keys two ---- */

SAC_FN int lane_row(int half) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * half; }
SAC_FN int lane_column(void) { return threadIdx.x % 4 * 2; }

typedef struct lane_rows {
    int32_t candidates[2]; /* 0 where there is no row */
    float lse[2];          /* PROBABILITIES: log of the softmax's denominator, base 2 */
} lane_rows;

SAC_FN lane_rows lane_rows_of(const cta_work *w, int32_t turn) {
    lane_rows rows = {};
    for (int half = 0; half < 2; half++) {
        const select_row r = row_at(w, turn, lane_row(half));
        rows.candidates[half] = r.tile < 0 ? 0 : w->tiles[r.tile].candidates;
        if (HAS_LSE && r.tile >= 0)
            rows.lse[half] =
                LOG2_E * *row_value(&w->args->nsa.lse_cmp, w->b, r.head, w->first_query + r.query);
    }
    return rows;
}

/* Where the lse of a row waits when rows come in turns. */
SAC_FN float *saved_lse(const cta_work *w, int32_t turn, int half) {
    return w->args->lse +
           sac_nsa_tile_row(&w->args->nsa, w->b, w->list, w->first_tile) * w->args->plan.rows_a_tile +
           turn * Q_TILE + lane_row(half);
}

/* ---- pass 1: the denominators ---- */

/* Of one row, as far as this lane's columns go. Invariant: sum is the true one divided by 2^max. */
typedef struct row_sum {
    float max, sum;
} row_sum;

/* A NaN among the scores makes the sum NaN, and then nothing of the row's tile wins. */
SAC_FN void add_exponentials(row_sum *r, const score_acc &s, int half, float to_log2, int32_t left) {
    float top = r->max;
#pragma unroll
    for (int n = 0; n < ST; n++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (8 * n + lane_column() + e < left) top = fmaxf(top, s[0][n][2 * half + e] * to_log2);
    const float subtract = top == -INFINITE ? 0 : top;
    r->sum *= ptx_exp2(r->max - subtract);
#pragma unroll
    for (int n = 0; n < ST; n++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (8 * n + lane_column() + e < left)
                r->sum += ptx_exp2(s[0][n][2 * half + e] * to_log2 - subtract);
    r->max = top;
}

/* The four lanes of a quad have each seen a quarter of the keys. */
SAC_FN float join_quad(row_sum r) {
    for (int step = 1; step < 4; step *= 2) {
        const row_sum other = {__shfl_xor_sync(ALL_LANES, r.max, step),
                               __shfl_xor_sync(ALL_LANES, r.sum, step)};
        const float top = fmaxf(r.max, other.max), subtract = top == -INFINITE ? 0 : top;
        /* Added in the order of the lanes, so that all four get the same. */
        const float mine = r.sum * ptx_exp2(r.max - subtract),
                    its = other.sum * ptx_exp2(other.max - subtract);
        r.sum = threadIdx.x & step ? its + mine : mine + its;
        r.max = top;
    }
    return r.max + log2f(r.sum);
}

/* The lse of this lane's rows in one turn. */
SAC_FN void find_lse(const cta_work *w, int32_t turn, lane_rows *rows, float to_log2) {
    row_sum sums[2] = {{-INFINITE, 0}, {-INFINITE, 0}};
    load_rows(w, turn);
    load_keys(w, 0);
    for (int32_t key = 0; key < w->candidates; key += KV_TILE) {
        score_acc s;
        operands_arrive(); /* keys, and rows the first time */
        multiply(s, w->rows, w->keys);
        __syncthreads(); /* nobody reads them any more */
        if (key + KV_TILE < w->candidates) load_keys(w, key + KV_TILE);
        for (int half = 0; half < 2; half++)
            add_exponentials(&sums[half], s, half, to_log2, rows->candidates[half] - key);
    }
    for (int half = 0; half < 2; half++) rows->lse[half] = join_quad(sums[half]);
}

/* The rows of the first turn, or of the only one; where there are several, each turn's lse is saved. */
SAC_FN lane_rows find_denominators(const cta_work *w, float to_log2) {
    lane_rows rows;
    for (int32_t turn = w->args->plan.turns - 1; turn >= 0; turn--) {
        rows = lane_rows_of(w, turn);
        find_lse(w, turn, &rows, to_log2);
        for (int half = 0; half < 2 && w->args->plan.turns > 1; half++)
            if (threadIdx.x % 4 == 0 && rows.candidates[half]) *saved_lse(w, turn, half) = rows.lse[half];
    }
    return rows;
}

/* ---- pass 2: values, scores, choices ---- */

/* What counts of a score of the lane's row `half`. */
SAC_FN float value_of(float s, const lane_rows *rows, int half, float to_log2) {
    if (rows->candidates[half] == 0) return 0;
    return PROBABILITIES ? ptx_exp2(s * to_log2 - rows->lse[half]) : s;
}

#if OWNED
/* sum[c] = the values of all rows of the warp, which are one tile's, in this lane's columns. Lanes with the same
 * columns halve what each still adds up, until each has two columns of its own; then those go where their lanes are. */
SAC_FN void sum_values(const score_acc &s, const lane_rows *rows, float to_log2, float (&sum)[COLUMNS]) {
    static_assert(COLUMNS == 2, "two columns a lane");
    float part[2 * ST];
#pragma unroll
    for (int i = 0; i < 2 * ST; i++)
        part[i] = value_of(s[0][i / 2][i % 2], rows, 0, to_log2) +
                  value_of(s[0][i / 2][2 + i % 2], rows, 1, to_log2);
#pragma unroll
    for (int halving = 0; halving < 3; halving++) {
        const int kept = ST >> halving, step = 16 >> halving; /* of the lanes */
        const bool upper = lane_index() & step;
#pragma unroll
        for (int i = 0; i < ST; i++) { /* a bound of its own: else this loop stays one, and part in memory */
            if (i >= kept) continue;
            const float low = part[i], high = part[kept + i];
            part[i] = (upper ? high : low) + __shfl_xor_sync(ALL_LANES, upper ? low : high, step);
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        const int from = (c * LANES + lane_index()) / 2;
        const float even = __shfl_sync(ALL_LANES, part[0], from), odd = __shfl_sync(ALL_LANES, part[1], from);
        sum[c] = lane_index() % 2 ? odd : even;
    }
}
#else
SAC_FN void store_values(const cta_work *w, const score_acc &s, const lane_rows *rows, float to_log2) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float *to = w->values + lane_row(half) * VALUE_PITCH + lane_column();
#pragma unroll
        for (int n = 0; n < ST; n++)
            *(float2 *)(to + 8 * n) = make_float2(value_of(s[0][n][2 * half], rows, half, to_log2),
                                                  value_of(s[0][n][2 * half + 1], rows, half, to_log2));
    }
}

/* sum[c] += the values of tile t's rows in this lane's columns. */
SAC_FN void add_values(const cta_work *w, int32_t t, float (&sum)[COLUMNS]) {
    const int32_t each = w->args->plan.rows_a_tile, begin = t * each, end = sac_min(begin + each, Q_TILE);
    for (int32_t row = begin; row < end; row++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) sum[c] += w->values[row * VALUE_PITCH + c * LANES + lane_index()];
}
#endif

SAC_FN float warp_sum(float x) {
    for (int step = 1; step < LANES; step *= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

/* The block of compressed keys goes by its mean, once its last candidate is there. */
SAC_FN void offer_block(chooser *c, int32_t room, float sum, int32_t key) {
    const int32_t block = key / SAC_NSA_COMPRESSED_BLOCK, begin = block * SAC_NSA_COMPRESSED_BLOCK;
    const int32_t end = sac_min(begin + SAC_NSA_COMPRESSED_BLOCK, c->candidates);
    if (key > begin) sum += c->block_sum;
    __syncwarp();
    c->block_sum = sum;
    __syncwarp();
    if (key + KV_TILE < end) return;
    best_lanes best = best_load(c->block, room);
    __syncwarp();
    if (best_offer(&best, room, lane_index() == 0 ? sum / (float)(end - begin) : -INFINITE, block))
        best_store(c->block, room, &best);
}

/* The scores of a tile of keys, two or one a lane, to tile t: did some of them enter its best? */
SAC_FN bool choose(const cta_work *w, int32_t t, chooser *c, best_lanes *best, const float (&sum)[COLUMNS],
                   int32_t key) {
    const sac_nsa_args *nsa = &w->args->nsa;
    float total = 0;
    bool entered = false;
    if (key >= c->candidates) return false;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
        const int32_t j = key + n * LANES + lane_index();
        const float score = sum[n] * c->factor;
        const bool candidate = j < c->candidates, is_free = j >= c->free_begin && j < c->free_end;
        if (w->args->scores && candidate)
            w->args->scores[sac_nsa_tile_row(nsa, w->b, w->list, w->first_tile + t) * nsa->max_cmp + j] =
                score;
        entered |= best_offer(best, c->room, is_free ? score : -INFINITE, key + n * LANES);
        total += candidate ? score : 0;
    }
    if (nsa->compressed_indices.top_k) offer_block(c, nsa->compressed_indices.top_k, warp_sum(total), key);
    return entered;
}

SAC_FN lane_rows next_rows(const cta_work *w, int32_t turn) {
    lane_rows rows = lane_rows_of(w, turn);
    for (int half = 0; half < 2 && PROBABILITIES && !HAS_LSE; half++)
        if (rows.candidates[half]) rows.lse[half] = *saved_lse(w, turn, half);
    return rows;
}

#if OWNED
SAC_FN void choose_from(const cta_work *w, const lane_rows *of_one_turn, float to_log2) {
    const int32_t warp = threadIdx.x / 32;
    const bool chooses = warp < w->num_tiles;
    chooser c = w->tiles[chooses ? warp : 0];
    best_lanes best = best_load(c.best, chooses ? c.room : 0);
    for (int32_t key = 0; key < w->candidates; key += KV_TILE) {
        score_acc s;
        float sum[COLUMNS];
        operands_arrive();
        multiply(s, w->rows, w->keys);
        __syncthreads(); /* nobody reads the keys any more */
        if (key + KV_TILE < w->candidates) load_keys(w, key + KV_TILE);
        sum_values(s, of_one_turn, to_log2, sum);
        if (chooses) choose(w, warp, &c, &best, sum, key);
    }
    if (chooses) best_store(c.best, c.room, &best);
}
#else
SAC_FN void choose_in_memory(const cta_work *w, int32_t t, const float (&sum)[COLUMNS], int32_t key) {
    chooser *c = &w->tiles[t];
    best_lanes best = best_load(c->best, c->room);
    __syncwarp(); /* every lane has read what it holds */
    if (choose(w, t, c, &best, sum, key)) best_store(c->best, c->room, &best);
}

SAC_FN void choose_from(const cta_work *w, const lane_rows *of_first_turn, float to_log2) {
    const int32_t turns = w->args->plan.turns;
    lane_rows rows = *of_first_turn;
    float sum[COLUMNS] = {}; /* of a tile that takes several turns */
    for (int32_t key = 0; key < w->candidates; key += KV_TILE)
        for (int32_t turn = 0; turn < turns; turn++) {
            score_acc s;
            if (turns > 1) rows = next_rows(w, turn);
            operands_arrive(); /* rows and keys; and the old values were read */
            multiply(s, w->rows, w->keys);
            store_values(w, s, &rows, to_log2);
            __syncthreads(); /* values are whole, nobody reads rows and keys any more */
            const bool last_turn = turn + 1 == turns;
            if (turns > 1) load_rows(w, last_turn ? 0 : turn + 1);
            if (last_turn && key + KV_TILE < w->candidates) load_keys(w, key + KV_TILE);
            ptx_cp_async_commit();
            for (int32_t t = threadIdx.x / 32; t < w->num_tiles; t += WARPS) {
                if (turn == 0)
                    for (int c = 0; c < COLUMNS; c++) sum[c] = 0;
                add_values(w, t, sum);
                if (last_turn) choose_in_memory(w, t, sum, key);
            }
        }
}
#endif

SAC_FN void choose_all(const cta_work *w, float to_log2) {
    const lane_rows rows = PROBABILITIES && !HAS_LSE ? find_denominators(w, to_log2) : lane_rows_of(w, 0);
    if (!PROBABILITIES || HAS_LSE) MEANS ? load_means(w) : load_rows(w, 0);
    load_keys(w, 0);
    choose_from(w, &rows, to_log2);
    ptx_cp_async_wait();
}

/* ---- beginning and end ---- */

SAC_FN void begin_tile(const cta_work *w, int32_t t, best_place *places) {
    const sac_nsa_args *nsa = &w->args->nsa;
    const int32_t begin = (w->first_tile + t) * nsa->query_tile,
                  end = sac_min(begin + nsa->query_tile, w->seqlen);
    const int32_t own = (end - 1) / nsa->block, top_k = nsa->indices.top_k;
    chooser c;
    c.last = end - 1;
    c.candidates = sac_nsa_candidates(nsa, c.last, w->seqlen);
    c.free_begin = sac_min(nsa->initial_blocks, own + 1);
    c.free_end = sac_max(c.free_begin, sac_min(c.candidates, own - nsa->local_blocks + 1));
    c.room = sac_max(0, top_k - (c.free_begin + own + 1 - c.free_end));
    c.factor = (PROBABILITIES ? 1 : nsa->scale) / (MEANS ? 1 : (float)(end - begin));
    c.block_sum = 0;
    c.best = places + t * (top_k + nsa->compressed_indices.top_k);
    c.block = c.best + top_k;
    best_clear(c.best, top_k + nsa->compressed_indices.top_k);
    if (lane_index() == 0) w->tiles[t] = c;
}

SAC_FN void end_slots(int32_t *slots, int32_t used, int32_t top_k) {
    for (int32_t i = used + lane_index(); i < top_k; i += LANES) slots[i] = -1;
}

/* Blocks [begin, end), as far as there is room, to slots from `used` on. */
SAC_FN int32_t list_range(int32_t *slots, int32_t used, int32_t top_k, int32_t begin, int32_t end) {
    const int32_t count = sac_min(end - begin, top_k - used);
    for (int32_t i = lane_index(); i < count; i += LANES) slots[used + i] = begin + i;
    return used + count;
}

/* A tile's slots as a row of a block list. Rows are one behind the other, so that of neighbours one's end is the other's
 * beginning; those of tiles that a packed sequence does not have are empty, and nobody asks for them. */
SAC_FN void list_choice(const cta_work *w, const sac_nsa_chosen_rows *rows, int32_t tile,
                        const int32_t *slots, int32_t top_k) {
    const sac_nsa_args *nsa = &w->args->nsa;
    const int32_t *cu_tiles = nsa->cu_tiles;
    const int32_t tiles = cu_tiles ? cu_tiles[w->b + 1] - cu_tiles[w->b] : nsa->max_tiles;
    const int64_t first = cu_tiles ? cu_tiles[w->b] : (int64_t)w->b * tiles;
    const int64_t row = ((int64_t)w->b * nsa->num_lists + w->list) * nsa->max_tiles + tile;
    const int64_t at = (first * nsa->num_lists + (int64_t)w->list * tiles + tile) * top_k;
    if (!rows->offsets) return;
    __syncwarp(); /* slots were written by other lanes */
    for (int32_t i = lane_index(); i < top_k; i += LANES)
        rows->entries[at + i] = slots[i] < 0 ? -1 : SAC_ENTRY(slots[i], SAC_FULL);
    if (lane_index() < 2) rows->offsets[row + lane_index()] = at + lane_index() * top_k;
}

SAC_FN void end_tile(const cta_work *w, int32_t t) {
    const sac_nsa_args *nsa = &w->args->nsa;
    const chooser *c = &w->tiles[t];
    const int32_t tile = w->first_tile + t, top_k = nsa->indices.top_k;
    if (nsa->indices.data) {
        int32_t *slots = sac_nsa_slots(nsa, &nsa->indices, w->b, w->list, tile);
        int32_t used = list_range(slots, 0, top_k, 0, c->free_begin);
        used = best_list(c->best, c->room, slots, used);
        used = list_range(slots, used, top_k, c->free_end, c->last / nsa->block + 1);
        end_slots(slots, used, top_k);
        list_choice(w, &w->args->rows, tile, slots, top_k);
    }
    if (nsa->compressed_indices.top_k) {
        int32_t *slots = sac_nsa_slots(nsa, &nsa->compressed_indices, w->b, w->list, tile);
        const int32_t room = nsa->compressed_indices.top_k;
        end_slots(slots, best_list(c->block, room, slots, 0), room);
        list_choice(w, &w->args->compressed_rows, tile, slots, room);
    }
    if (w->args->scores) {
        float *scores = w->args->scores + sac_nsa_tile_row(nsa, w->b, w->list, tile) * nsa->max_cmp;
        for (int32_t j = c->candidates + lane_index(); j < nsa->max_cmp; j += LANES) scores[j] = -INFINITE;
    }
}

/* The CTAs of the last tiles, which have most candidates, come first; those of all lists side by side. */
SAC_FN cta_work work_of(const sac_nsa_select_args *args) {
    const sac_nsa_args *nsa = &args->nsa;
    const int32_t lists = nsa->batch * nsa->num_lists, list = blockIdx.x % lists;
    const int32_t cta = args->plan.ctas_a_list - 1 - (int32_t)(blockIdx.x / lists);
    cta_work w = {};
    w.args = args;
    w.b = list / nsa->num_lists;
    w.list = list % nsa->num_lists;
    w.kv_head = w.list * nsa->heads_per_list / nsa->group;
    w.seqlen = sac_length_of(&nsa->len, w.b);
    w.first_tile = cta * args->plan.tiles_a_cta;
    w.num_tiles = sac_min(args->plan.tiles_a_cta, sac_ceil_div(w.seqlen, nsa->query_tile) - w.first_tile);
    w.first_query = nsa->len.cu_seqlens ? nsa->len.cu_seqlens[w.b] : 0;
    w.first_key = nsa->cu_cmp ? nsa->cu_cmp[w.b] : 0;
    const int32_t end = sac_min((w.first_tile + w.num_tiles) * nsa->query_tile, w.seqlen);
    w.candidates = sac_nsa_candidates(nsa, end - 1, w.seqlen);
    return w;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, MIN_CTAS)
    nsa_select(const __grid_constant__ sac_nsa_select_args args) {
    extern __shared__ __align__(OPERAND_ALIGNMENT) unsigned char memory[];
    cta_work w = work_of(&args);
    if (w.num_tiles <= 0) return;
    w.rows = ptx_smem_of(memory);
    w.keys = w.rows + TERMS * operand_bytes(Q_TILE);
    w.values = (float *)(memory + TERMS * operand_bytes(Q_TILE) + operand_bytes(KV_TILE));
    w.tiles = (chooser *)(w.values + (OWNED ? 0 : Q_TILE * VALUE_PITCH));
    best_place *places = (best_place *)(w.tiles + args.plan.tiles_a_cta);

    for (int32_t t = threadIdx.x / 32; t < w.num_tiles; t += WARPS) begin_tile(&w, t, places);
    __syncthreads();
    if (w.candidates > 0) choose_all(&w, args.nsa.scale * LOG2_E);
    for (int32_t t = threadIdx.x / 32; t < w.num_tiles; t += WARPS) end_tile(&w, t);
}
