/* key_walk.c - the lists of several query blocks as one. */
#include "cpu/key_walk.h"

/* Where no list says where key tiles begin, the first begins with a whole pair of keys, and with whole cache lines of
 * such pairs turned. */
enum { FIRST_STEP = 32 };

static int32_t first_list(const sac_attention_args *args, const sac_cpu_tile *tile) {
    return tile->q.begin / args->blocks.q_block;
}

sac_cpu_key_walk sac_cpu_walk_keys(const sac_attention_args *args, const sac_cpu_tile *tile, sac_range clip) {
    const sac_sequence seq = sac_sequence_of(args, tile->b);
    const sac_band band = sac_band_make(&args->band, seq.q_len, seq.k_len);
    const sac_block_mask_args *mask = &args->blocks;
    sac_cpu_key_walk w = {.walk = sac_walk_keys(args, &band, tile->b, tile->h, tile->q, tile->kv_tile),
                          .kv_tile = tile->kv_tile};
    sac_walk_clip(&w.walk, clip);
    if (!mask->by_query.offsets) {
        if (w.walk.run.begin < w.walk.run.end) w.walk.run.begin -= w.walk.run.begin % FIRST_STEP;
        return w;
    }
    w.num_lists = sac_ceil_div(tile->q.end, mask->q_block) - first_list(args, tile);
    if (w.num_lists == 1) return w;
    sac_walk one = w.walk;
    for (int32_t i = 0; i < w.num_lists; i++) {
        sac_walk_lists(&one, mask, &mask->by_query, tile->b, tile->h, mask->num_q_blocks,
                       first_list(args, tile) + i, mask->kv_block);
        w.entry[i] = one.entry;
        w.end[i] = one.entry_end;
    }
    w.walk.entry = w.walk.entry_end;
    return w;
}

/* Takes the lowest entry that some list has next; entries order by block, and one block's kinds among themselves. */
static bool take_block(sac_cpu_key_walk *w) {
    w->block = INT32_MAX;
    w->bits = 0;
    for (int32_t i = 0; i < w->num_lists; i++)
        if (w->entry[i] < w->end[i]) w->block = sac_min(w->block, *w->entry[i]);
    for (int32_t i = 0; i < w->num_lists; i++) {
        if (w->entry[i] == w->end[i] || *w->entry[i] != w->block) continue;
        w->bits |= 1u << i;
        w->entry[i]++;
    }
    return w->bits != 0;
}

bool sac_cpu_next_keys(sac_cpu_key_walk *w, sac_tile *tile) {
    if (w->num_lists == 0) w->walk.step = w->kv_tile - w->walk.run.begin % w->kv_tile;
    if (w->num_lists <= 1) return sac_walk_next(&w->walk, tile);
    while (!sac_walk_next(&w->walk, tile)) {
        if (!take_block(w)) return false;
        w->walk.entry = &w->block;
        w->walk.entry_end = &w->block + 1;
        w->walk.bits = &w->bits;
    }
    return true;
}

void sac_cpu_begin_runs(sac_cpu_key_walk *w, const sac_attention_args *args, const sac_cpu_tile *tile,
                        bool join) {
    const int32_t block = args->blocks.q_block;
    if (join && w->num_lists == 1) {
        const sac_sequence seq = sac_sequence_of(args, tile->b);
        const sac_band band = sac_band_make(&args->band, seq.q_len, seq.k_len);
        const int32_t first = tile->q.begin / block * block;
        w->for_all = sac_band_keys_all(&band, (sac_range){first, sac_min(first + block, seq.q_len)});
    }
    w->has_ahead = sac_cpu_next_keys(w, &w->ahead);
}

/* Pairs of keys stay whole: tiles before the last have an even number. */
static bool joins(const sac_cpu_key_walk *w, const sac_cpu_key_run *run) {
    const sac_tile *last = &run->tile[run->num_tiles - 1], *next = &w->ahead;
    return last->kind == SAC_FULL && last->begin >= w->for_all.begin && last->end <= w->for_all.end &&
           next->kind == SAC_FULL && next->begin >= w->for_all.begin && next->end <= w->for_all.end &&
           run->num_tiles < SAC_CPU_MAX_JOINED && run->num_keys % 2 == 0 &&
           run->num_keys + next->end - next->begin <= w->kv_tile;
}

bool sac_cpu_next_run(sac_cpu_key_walk *w, sac_cpu_key_run *run) {
    run->num_tiles = 0;
    run->num_keys = 0;
    while (w->has_ahead && (run->num_tiles == 0 || joins(w, run))) {
        run->tile[run->num_tiles++] = w->ahead;
        run->num_keys += w->ahead.end - w->ahead.begin;
        w->has_ahead = sac_cpu_next_keys(w, &w->ahead);
    }
    return run->num_tiles > 0;
}

uint32_t sac_cpu_list_bit(const sac_attention_args *args, const sac_cpu_tile *tile, int32_t i) {
    if (!args->blocks.by_query.offsets) return SAC_ALL_PARTS;
    if (args->blocks.by_query.bits) return 1u << sac_part_of(&args->blocks, i);
    return 1u << (i / args->blocks.q_block - first_list(args, tile));
}
