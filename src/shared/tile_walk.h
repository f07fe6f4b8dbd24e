/* tile_walk.h - the one iterator over the tiles of work: which keys a query tile visits, or which queries a
 * key tile visits, and whether each tile needs any masking.
 *
 * Dense, causal, windowed, packed and block-masked attention differ only in what this iterator yields:
 *
 *     sac_walk walk = sac_walk_keys(args, &band, b, h, q_range, kv_tile);
 *     for (sac_tile tile; sac_walk_next(&walk, &tile);) ...
 *
 * Tiles are disjoint and ascending, at most `step` wide, cover every visible pair, and skip what nobody sees.
 *   FULL      the mask_mod, if any, is true throughout and not asked
 *   PARTIAL   the mask_mod, if any, decides pair by pair
 *   DIAGONAL  at most the pair kv_idx == q_idx + delta of each row is visible; the mask_mod, if any, decides it
 * and, beside the kind, `banded` says whether the band hides some pair of the tile, and `bits`, unless all are set,
 * which parts of a query block the tile is for: a list with bits is the union of those that its parts would have.
 * A query tile must lie within one block row when there is a block mask (sac_tile_rows cuts it so); blocks and
 * tiles are otherwise independent: runs of neighbouring blocks of one kind are walked as one.
 */
#ifndef SAC_TILE_WALK_H
#define SAC_TILE_WALK_H

#include "shared/attention_args.h"

typedef enum sac_tile_kind { SAC_NONE = 0, SAC_PARTIAL = 1, SAC_FULL = 2, SAC_DIAGONAL = 3 } sac_tile_kind;

typedef struct sac_tile {
    int32_t begin, end; /* keys, or queries when walking queries */
    int32_t kind;
    int32_t banded; /* some pair lies outside the band */
    int32_t delta;  /* DIAGONAL: kv_idx - q_idx */
    uint32_t bits;  /* SAC_ALL_PARTS, or only those of sac_part_of(query) */
} sac_tile;
#define SAC_ALL_PARTS 0xffffffffu

typedef struct sac_walk {
    sac_range any, all;               /* by the band: what some / every row of the tile sees */
    sac_range fixed;                  /* the tile that walks: its own rows */
    sac_range run;                    /* what is left of the current run of blocks */
    const int32_t *entry, *entry_end; /* NULL: no block mask */
    const uint32_t *bits;             /* of entry; NULL: none */
    int32_t block;                    /* tokens a listed block */
    int32_t next;                     /* block index that would continue the run */
    int32_t run_kind;
    int32_t step;
    int32_t period; /* signed: negative when walking queries */
    int32_t delta;  /* of the current DIAGONAL run */
    uint32_t run_bits;
} sac_walk;

/* Tiles of `tile` rows, cut so that none crosses a block row: how many there are for `len` rows in blocks of
 * `block` (0: no block mask), and the rows of the index-th. */
SAC_FN int32_t sac_num_tiles(int32_t len, int32_t tile, int32_t block) {
    if (block == 0) return sac_ceil_div(len, tile);
    int32_t whole = len / block, rest = len % block;
    return whole * sac_ceil_div(block, tile) + sac_ceil_div(rest, tile);
}
SAC_FN sac_range sac_tile_rows(int32_t index, int32_t len, int32_t tile, int32_t block) {
    sac_range r;
    if (block == 0) {
        r.begin = index * tile;
        r.end = sac_min(r.begin + tile, len);
        return r;
    }
    int32_t per_block = sac_ceil_div(block, tile), row = index / per_block;
    r.begin = row * block + index % per_block * tile;
    r.end = sac_min(sac_min(r.begin + tile, (row + 1) * block), len);
    return r;
}

/* Tiles without blocks, of which the first may be short instead of the last. Under a causal mask that one has the
 * fewest keys to go through, and a tile takes as long for a few rows as for all of them. */
SAC_FN sac_range sac_tile_rows_short_first(int32_t index, int32_t len, int32_t tile) {
    const int32_t end = len - (sac_ceil_div(len, tile) - 1 - index) * tile;
    const sac_range r = {sac_max(end - tile, 0), sac_min(end, len)};
    return r;
}

SAC_FN void sac_walk_lists(sac_walk *walk, const sac_block_mask_args *mask, const sac_block_list *list,
                           int32_t b, int32_t h, int32_t rows, int32_t row, int32_t block) {
    if (!list->offsets) return;
    int64_t head = mask->num_heads == 1 ? 0 : h / mask->heads_per_list;
    int64_t r = ((int64_t)(mask->batch == 1 ? 0 : b) * mask->num_heads + head) * rows + row;
    walk->entry = list->entries + list->offsets[r];
    walk->entry_end = list->entries + list->offsets[r + 1];
    walk->bits = list->bits ? list->bits + list->offsets[r] : 0;
    walk->block = block;
}

/* The bit of a tile's bits that stands for query i. */
SAC_FN int32_t sac_part_of(const sac_block_mask_args *mask, int32_t i) {
    return i % mask->q_block / mask->part;
}

/* The bits of queries [begin, end). */
SAC_FN uint32_t sac_parts_of(const sac_block_mask_args *mask, int32_t begin, int32_t end) {
    int32_t parts = mask->q_block / mask->part, first = sac_part_of(mask, begin);
    if (begin >= end) return 0;
    int32_t count = (begin % mask->part + end - begin - 1) / mask->part + 1;
    if (count >= parts) return SAC_ALL_PARTS;
    uint32_t bits = (1u << count) - 1; /* from the first on, and round the end of the block */
    return first == 0 ? bits : bits << first | bits >> (parts - first);
}

/* What is walked where there is no block mask: the whole band. */
SAC_FN sac_walk sac_walk_band(const sac_attention_args *args, sac_range any, sac_range all, sac_range fixed,
                              int32_t step, int32_t period) {
    const int32_t kind = args->has_mask_mod ? SAC_PARTIAL : SAC_FULL;
    sac_walk walk = {any, all, fixed, any, 0, 0, 0, 0, 0, kind, step, period, 0, SAC_ALL_PARTS};
    return walk;
}

/* The keys that queries [q.begin, q.end) of sequence b and head h visit. */
SAC_FN sac_walk sac_walk_keys(const sac_attention_args *args, const sac_band *band, int32_t b, int32_t h,
                              sac_range q, int32_t step) {
    const sac_block_mask_args *mask = &args->blocks;
    sac_walk walk =
        sac_walk_band(args, sac_band_keys_any(band, q), sac_band_keys_all(band, q), q, step, mask->period);
    if (mask->by_query.offsets) {
        walk.run.end = walk.run.begin;
        sac_walk_lists(&walk, mask, &mask->by_query, b, h, mask->num_q_blocks, q.begin / mask->q_block,
                       mask->kv_block);
    }
    return walk;
}

/* The queries that keys [k.begin, k.end) of sequence b, seen by query head h, visit. */
SAC_FN sac_walk sac_walk_queries(const sac_attention_args *args, const sac_band *band, int32_t b, int32_t h,
                                 sac_range k, int32_t step) {
    const sac_block_mask_args *mask = &args->blocks;
    sac_walk walk = sac_walk_band(args, sac_band_queries_any(band, k), sac_band_queries_all(band, k), k, step,
                                  -mask->period);
    if (mask->by_key.offsets) {
        walk.run.end = walk.run.begin;
        sac_walk_lists(&walk, mask, &mask->by_key, b, h, mask->num_kv_blocks, k.begin / mask->kv_block,
                       mask->q_block);
    }
    return walk;
}

/* Confines a fresh walk to a part of what it would visit: work split along the keys. */
SAC_FN void sac_walk_clip(sac_walk *walk, sac_range part) {
    walk->any.begin = sac_max(walk->any.begin, part.begin);
    walk->any.end = sac_min(walk->any.end, part.end);
    if (!walk->entry) walk->run = walk->any;
}

/* The multiple d of |period| for which some row r of `fixed` has r + d inside `run`; SAC_FAR if there is none.
 * Blocks are made so that there is at most one. */
SAC_FN int32_t sac_walk_delta(sac_range fixed, sac_range run, int32_t period) {
    int32_t p = period < 0 ? -period : period, low = run.begin - (fixed.end - 1);
    int32_t d = low >= 0 ? (low + p - 1) / p * p : -(-low / p) * p; /* smallest multiple >= low */
    return d <= run.end - 1 - fixed.begin ? d : SAC_FAR;
}

/* One key a row: shrinks the run to the rows' shifted image. False when that is empty. */
SAC_FN int sac_walk_diagonal(sac_walk *walk) {
    walk->delta = sac_walk_delta(walk->fixed, walk->run, walk->period);
    if (walk->delta == SAC_FAR) return 0;
    walk->run.begin = sac_max(walk->run.begin, walk->fixed.begin + walk->delta);
    walk->run.end = sac_min(walk->run.end, walk->fixed.end + walk->delta);
    return walk->run.begin < walk->run.end;
}

/* Takes the next listed block that the band lets through. */
SAC_FN int sac_walk_run(sac_walk *walk) {
    while (walk->entry < walk->entry_end) {
        int32_t entry = *walk->entry++, first = SAC_ENTRY_INDEX(entry) * walk->block;
        walk->next = SAC_ENTRY_INDEX(entry) + 1;
        walk->run_kind = SAC_ENTRY_KIND(entry);
        if (walk->bits) walk->run_bits = *walk->bits++;
        walk->run.begin = sac_max(first, walk->any.begin);
        walk->run.end = sac_min(first + walk->block, walk->any.end);
        if (walk->run.begin >= walk->run.end) continue;
        if (walk->run_kind != SAC_DIAGONAL || sac_walk_diagonal(walk)) return 1;
    }
    walk->run.end = walk->run.begin; /* a diagonal that was empty leaves nothing behind */
    return 0;
}

/* Extends the run by the blocks that continue it, no further than one tile needs: lists are read as they are walked,
 * never ahead. Where parts share a list each block is a tile by itself: which of them adjoin depends on what other
 * parts list, and how a query is summed must not. */
SAC_FN void sac_walk_extend(sac_walk *walk) {
    if (walk->run_kind == SAC_DIAGONAL || walk->bits) return;
    while (walk->run.end - walk->run.begin < walk->step && walk->entry < walk->entry_end &&
           *walk->entry == SAC_ENTRY(walk->next, walk->run_kind)) {
        walk->run.end = sac_min((walk->next + 1) * walk->block, walk->any.end);
        walk->next++;
        walk->entry++;
    }
}

/* What a tile [begin, end) of the current run is. */
SAC_FN void sac_walk_tile(const sac_walk *walk, int32_t begin, int32_t end, sac_tile *tile) {
    tile->begin = begin;
    tile->end = end;
    tile->kind = walk->run_kind;
    tile->banded = tile->begin < walk->all.begin || tile->end > walk->all.end;
    tile->delta = walk->period < 0 ? -walk->delta : walk->delta;
    tile->bits = walk->run_bits;
}

SAC_FN int sac_walk_next(sac_walk *walk, sac_tile *tile) {
    if (walk->run.begin >= walk->run.end && !sac_walk_run(walk)) return 0;
    sac_walk_extend(walk);
    const int32_t begin = walk->run.begin;
    walk->run.begin = sac_min(begin + walk->step, walk->run.end);
    sac_walk_tile(walk, begin, walk->run.begin, tile);
    return 1;
}

/* The same tiles, the last one first, where there is no block mask. */
SAC_FN int sac_walk_back(sac_walk *walk, sac_tile *tile) {
    const int32_t end = walk->run.end, rest = end - walk->run.begin;
    if (rest <= 0) return 0;
    walk->run.end = walk->run.begin + (rest - 1) / walk->step * walk->step;
    sac_walk_tile(walk, walk->run.end, end, tile);
    return 1;
}

#endif
