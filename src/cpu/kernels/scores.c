/* scores.c - what happens to a tile of scores between the product and the softmax, in this order:
 * scale, softcap, ALiBi, score_mod, mask. Hidden pairs become -inf. */
#include <math.h>

#include "cpu/kernels/tile.h"
#include "mod/modifier.h"

/* One vector of raw products, of lanes first .. and the keys `key`. */
INLINE vec transformed(const q_tile *t, vec x, int first, ivec key) {
    const sac_attention_args *args = t->args;
    x *= vset(args->scale);
    if (args->softcap > 0) x = vset(args->softcap) * vtanh(x * vset(1 / args->softcap));
    if (args->alibi_slopes) {
        ivec shift = iload(t->scratch.query + first) + (t->seq.k_len - t->seq.q_len);
        x -= vload(t->scratch.slope + first) * vabs(vfrom_int(shift - key));
    }
    return x;
}

static void transform(const q_tile *t, const sac_tile *tile, float *scores) {
    for (int j = 0; j < tile->end - tile->begin; j++) {
        float *row = scores + j * Q_TILE;
        for (int lane = 0; lane < t->lanes; lane += LANES)
            vstore(row + lane, transformed(t, vload(row + lane), lane, iset(tile->begin + j)));
    }
}

static void hide_from_some(const q_tile *t, int32_t first, int32_t end, float *scores) {
    const vec hidden = vset(-INFINITY);
    for (int lane = 0; lane < t->lanes; lane += LANES) {
        const ivec lo = iload(t->scratch.lo + lane), hi = iload(t->scratch.hi + lane);
        float *at = scores + lane;
        for (int32_t key = first; key < end; key++, at += Q_TILE)
            vstore(at, vselect((iset(key) >= lo) & (iset(key) < hi), vload(at), hidden));
    }
}

/* Only the keys before and behind those that all lanes see. */
static void hide_outside_band(const q_tile *t, const sac_tile *tile, float *scores) {
    const sac_range all = sac_band_keys_all(&t->band, t->q);
    const int32_t seen = sac_max(tile->begin, sac_min(all.begin, tile->end)),
                  seen_end = sac_max(seen, sac_min(all.end, tile->end));
    hide_from_some(t, tile->begin, seen, scores);
    hide_from_some(t, seen_end, tile->end, scores + (seen_end - tile->begin) * Q_TILE);
}

/* The key tile is not on the lists of all the rows. */
static void hide_unlisted(const q_tile *t, const sac_tile *tile, float *scores) {
    for (int lane = 0; lane < t->lanes; lane += LANES) {
        const ivec listed = (iload(t->scratch.list_bit + lane) & iset((int32_t)tile->bits)) != 0;
        for (int j = 0; j < tile->end - tile->begin; j++) {
            float *at = scores + j * Q_TILE + lane;
            vstore(at, vselect(listed, vload(at), vset(-INFINITY)));
        }
    }
}

/* Modifiers see rows of keys. LANES lanes at a time turn into rows and back. */
static void ask_modifiers(const q_tile *t, const sac_tile *tile, bool masked, float *scores) {
    const tile_scratch *s = &t->scratch;
    const sac_attention_call *call = t->call;
    const int32_t n = tile->end - tile->begin, padded = round_up(n, LANES), b = t->at.b;
    for (int first = 0; first < t->rows; first += LANES) {
        sac_transpose_out(s->rows, s->row_words, scores + first, Q_TILE, padded);
        for (int lane = first; lane < first + LANES; lane++) {
            const int32_t h = s->head[lane], i = s->query[lane];
            float *row = s->rows + (lane - first) * s->row_words;
            if (lane >= t->rows) {
                for (int j = 0; j < n; j++) row[j] = -INFINITY; /* a NaN among the keys would show through */
                continue;
            }
            if (call->score_mod)
                sac_score_row(call->score_mod, row, n, b, h, i, tile->begin, &call->args.score_aux);
            if (!masked) continue;
            sac_mask_row(call->mask_mod, s->visible, n, b, h, i, tile->begin, &call->args.mask_aux);
            for (int j = 0; j < n; j++) row[j] = s->visible[j] ? row[j] : -INFINITY;
        }
        sac_transpose_in(scores + first, Q_TILE, s->rows, s->row_words, padded);
    }
}

/* The score_mod's input is of interest where its output counts. */
static void hide_where_hidden(const q_tile *t, int n, const float *scores, float *unmodified) {
    const vec hidden = vset(-INFINITY);
    for (int j = 0; j < n; j++)
        for (int lane = 0; lane < t->lanes; lane += LANES) {
            float *at = unmodified + j * Q_TILE + lane;
            vstore(at, vselect(vload(scores + j * Q_TILE + lane) == hidden, hidden, vload(at)));
        }
}

void sac_scores_finish(const q_tile *t, const sac_tile *tile, float *scores, float *unmodified) {
    const int n = tile->end - tile->begin;
    const bool masked = tile->kind == SAC_PARTIAL && t->call->mask_mod;
    if (t->modified) transform(t, tile, scores);
    for (int j = 0; unmodified && j < n; j++)
        memcpy(unmodified + j * Q_TILE, scores + j * Q_TILE, sizeof(float) * (size_t)t->lanes);
    if (t->call->score_mod || masked) ask_modifiers(t, tile, masked, scores);
    if (tile->banded) hide_outside_band(t, tile, scores);
    if (tile->bits != SAC_ALL_PARTS) hide_unlisted(t, tile, scores);
    if (unmodified && (masked || tile->banded || tile->bits != SAC_ALL_PARTS))
        hide_where_hidden(t, n, scores, unmodified);
}

void sac_scores_finish_diagonal(const q_tile *t, const sac_tile *tile, float *scores, float *unmodified) {
    const tile_scratch *s = &t->scratch;
    const sac_attention_call *call = t->call;
    for (int lane = 0; t->modified && lane < t->lanes; lane += LANES) {
        ivec key = iload(s->query + lane) + tile->delta;
        vstore(scores + lane, transformed(t, vload(scores + lane), lane, key));
    }
    if (unmodified) memcpy(unmodified, scores, sizeof(float) * (size_t)t->lanes);
    for (int lane = 0; lane < t->lanes; lane++) {
        const int32_t i = s->query[lane], j = i + tile->delta, b = t->at.b;
        bool visible = lane < t->rows && j >= tile->begin && j < tile->end && j >= s->lo[lane] &&
                       j < s->hi[lane] && ((uint32_t)s->list_bit[lane] & tile->bits);
        if (visible && call->score_mod)
            sac_score_row(call->score_mod, scores + lane, 1, b, t->scratch.head[lane], i, j,
                          &call->args.score_aux);
        if (visible && call->mask_mod) {
            sac_mask_row(call->mask_mod, s->visible, 1, b, t->scratch.head[lane], i, j, &call->args.mask_aux);
            visible = s->visible[0];
        }
        if (!visible) scores[lane] = -INFINITY;
    }
    if (unmodified) hide_where_hidden(t, 1, scores, unmodified);
}
