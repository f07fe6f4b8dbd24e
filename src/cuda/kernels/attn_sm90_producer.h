/* attn_sm90_producer.h - one thread that takes query tiles and loads what the consumers need, in their order. */
#ifndef SAC_ATTN_SM90_PRODUCER_H
#define SAC_ATTN_SM90_PRODUCER_H

#include "cuda/kernels/attn_sm90_tile.h"

typedef struct producer {
    const kernel_params *params;
    smem_layout *smem;
    uint32_t tile; /* the record of the query tile at hand */
    ring q, k, v;
} producer;

/* Rows that arrive for a warpgroup: with PACK, those behind the last query of a block keep what they held, and nobody
 * asks. */
SAC_FN uint32_t q_rows(const kernel_params *params) {
    const sac_block_mask_args *blocks = &params->args.blocks;
    return PACK ? blocks->q_block * blocks->heads_per_list : 64;
}

/* One warpgroup's rows, as soon as it is done with those before: at the ends of tiles warpgroups drift apart. */
SAC_FN void load_q(producer *w, int consumer) {
    smem_layout *smem = w->smem;
    const kernel_params *params = w->params;
    const q_record *q = &w->smem->q_tile[w->tile];
    const uint32_t s = w->q.stage;
    uint64_t *full = &smem->q_full[s];
    ptx_mbarrier_wait(&smem->q_empty[s], w->q.parity ^ 1);
    if (q->any) {
        const sac_lengths *len = &params->args.len_q;
        const int32_t batch = batch_of(len, q->batch), row = q->q_row + q->begin + 64 * consumer;
        ptx_mbarrier_arrive_expect(full, q_rows(params) * ROW_BYTES * (PANELS + BACKWARD * PANELS_V));
        load_tile(smem->q[s], &params->q, full, 64, PANELS, PACK ? q->head : row, PACK ? row : q->head,
                  batch);
#if BACKWARD
        load_tile(smem->dout[s], &params->dout, full, 64, PANELS_V, PACK ? q->head : row,
                  PACK ? row : q->head, batch);
#endif
    } else
        ptx_mbarrier_arrive(full);
    ring_next(&w->q, Q_SLOTS);
}

/* Is some pair of the tile hidden? */
SAC_FN int is_masked(const sac_tile *tile) {
    return tile->banded || tile->end - tile->begin < KV_TILE || (MASK_MOD && tile->kind == SAC_PARTIAL) ||
           tile->kind == SAC_DIAGONAL || (PACK && tile->bits != SAC_ALL_PARTS);
}

/* Are its values to be inspected before they are multiplied? Those of diagonals are added by hand. */
SAC_FN int is_inspected(const sac_tile *tile) { return is_masked(tile) && tile->kind != SAC_DIAGONAL; }

SAC_FN void load_k(producer *w, const sac_tile *tile, int last) {
    smem_layout *smem = w->smem;
    const kernel_params *params = w->params;
    const q_record *q = &smem->q_tile[w->tile];
    uint32_t s = w->k.stage;
    ptx_mbarrier_wait(&smem->k_empty[s], w->k.parity ^ 1);
    kv_record record = {tile->begin, tile->end,
                        (last ? KV_LAST : 0) | (is_masked(tile) ? KV_MASKED : 0) | tile->kind << KV_KIND,
                        tile->delta};
#if PACK
    record.bits = tile->bits;
#endif
    smem->kv_tile[s] = record;
    ptx_mbarrier_arrive_expect(&smem->k_full[s], K_BYTES);
    load_tile(smem->k[s], &params->k, &smem->k_full[s], KV_TILE, PANELS, q->kv_row + tile->begin, q->kv_head,
              batch_of(&params->args.len_k, q->batch));
    ring_next(&w->k, K_STAGES);
}

SAC_FN void load_v(producer *w, int32_t begin, int inspected) {
    smem_layout *smem = w->smem;
    const kernel_params *params = w->params;
    const q_record *q = &smem->q_tile[w->tile];
    uint32_t s = w->v.stage;
    uint64_t *full = &smem->v_full[s];
    ptx_mbarrier_wait(&smem->v_empty[s], w->v.parity ^ 1);
#if !BACKWARD
    smem->v_task[s] = inspected ? V_INSPECT : V_PASS;
    if (inspected)
        full = &smem->v_landed[s];
    else
        ptx_mbarrier_arrive(&smem->v_landed[s]);
#endif
    ptx_mbarrier_arrive_expect(full, V_BYTES);
    load_tile(smem->v[s], &params->v, full, KV_TILE, PANELS_V, q->kv_row + begin, q->kv_head,
              batch_of(&params->args.len_k, q->batch));
    ring_next(&w->v, V_STAGES);
}

/* The index-th query tile in the order of work. */
SAC_FN q_record locate(const kernel_params *params, int32_t index) {
    q_record q;
    q.tail = -1;
    q.part = 0;
#if SPLIT
    const int32_t whole = params->order.total - params->tail.tiles;
    if (index >= whole) {
        q.tail = (index - whole) / params->tail.parts;
        q.part = (index - whole) % params->tail.parts;
        index = whole + q.tail;
    }
#endif
    const sac_tile_place place = sac_tile_place_of(&params->order, index);
    q.heads = PACK ? params->args.blocks.heads_per_list : 1;
    q.inverse = SAC_PACK_INVERSE(q.heads);
    q.part_inverse = SAC_PACK_INVERSE(q.heads * (PACK ? params->args.blocks.part : 1));
    const int32_t lists = params->args.num_heads / q.heads;
    q.batch = place.head / lists;
    q.head = place.head % lists * q.heads;
    const int32_t q_block = BLOCK_MASK ? params->args.blocks.q_block : 0, len = rows_of(params, q.batch);
    const int behind = RAGGED && q.batch == params->args.batch;
    const sac_range rows = BLOCK_MASK || behind ? sac_tile_rows(place.tile, len, Q_TILE, q_block)
                                                : sac_tile_rows_short_first(place.tile, len, Q_TILE);
    q.begin = rows.begin;
    q.end = behind ? len : rows.end;
    q.q_row = row_of(&params->args.len_q, q.batch);
    q.any = 0;
    return q;
}

/* Leaves of a run of keys one of `parts` parts, cut between tiles. */
SAC_FN sac_range part_of(sac_range run, int32_t part, int32_t parts) {
    const int32_t tiles = sac_ceil_div(run.end - run.begin, KV_TILE);
    sac_range cut = {run.begin + tiles * part / parts * KV_TILE,
                     sac_min(run.end, run.begin + tiles * (part + 1) / parts * KV_TILE)};
    return cut;
}

SAC_FN sac_walk walk_keys(const kernel_params *params, q_record *q) {
    const sac_attention_args *args = &params->args;
    const sac_sequence sequence = sequence_of(args, q->batch);
    const sac_range rows = {q->begin, sac_min(q->end, sequence.q_len)};
    q->band = sac_band_make(&args->band, sequence.q_len, sequence.k_len);
    if (ALIBI) q->slope = args->alibi_slopes[q->batch * args->alibi_batch_stride + q->head];
    sac_walk walk = sac_walk_keys(args, &q->band, q->batch, q->head, rows, KV_TILE);
    if (!BLOCK_MASK) walk.entry = walk.entry_end = 0; /* and the compiler forgets them */
#if !BACKWARD
    if (walk.run.begin >= params->lead) walk.run.begin -= params->lead;
#endif
    if (rows.begin >= rows.end) walk.run.end = walk.run.begin;
#if SPLIT
    if (q->tail >= 0) walk.run = part_of(walk.run, q->part, params->tail.parts);
#endif
    return walk;
}

/* ALiBi makes the scores of the nearest keys the largest, and mostly a query sees only those before it: from the last
 * one back, references are seldom outgrown. */
#if !BACKWARD && ALIBI && !BLOCK_MASK
#define walk_on sac_walk_back
#else
#define walk_on sac_walk_next
#endif

/* The walk's next tile; where tiles are classified, that has a visible pair. */
SAC_FN int walk_next(const producer *w, sac_walk *walk, sac_tile *tile) {
#if CLASSIFIED
    const sac_mask_tiles *tiles = &w->params->tiles;
    const q_record *q = &w->smem->q_tile[w->tile];
    const int64_t row =
        ((int64_t)q->batch * tiles->q_tiles + sac_ceil_div(q->begin, Q_TILE)) * tiles->kv_tiles;
    do {
        if (!walk_on(walk, tile)) return 0;
        tile->kind = tiles->kinds[row + (tile->begin - walk->any.begin) / KV_TILE];
    } while (tile->kind == SAC_NONE);
    return 1;
#else
    return walk_on(walk, tile);
#endif
}

/* As the consumers want them: forward k leads v by one tile, backward they come together. The first warpgroup to be
 * free finds its first keys. */
SAC_FN void produce_tile(producer *w) {
    const sac_attention_args *args = &w->params->args;
    q_record *q = &w->smem->q_tile[w->tile];
    sac_walk walk;
    sac_tile tile, next;
    int any = 0, more = 0;
    if (!RAGGED || q->batch < args->batch) {
        walk = walk_keys(w->params, q);
        any = walk_next(w, &walk, &tile);
        more = any && walk_next(w, &walk, &next);
        q->kv_head = q->head / args->group;
        q->kv_row = row_of(&args->len_k, q->batch);
    }
    q->any = any;
#pragma unroll 1
    for (int i = 0; i < CONSUMERS; i++) {
        load_q(w, i);
        if (i == 0 && any) load_k(w, &tile, !more);
    }
    while (more) {
        const int32_t begin = tile.begin, inspected = is_inspected(&tile);
        tile = next;
        more = walk_next(w, &walk, &next);
        if (BACKWARD) load_v(w, begin, inspected);
        load_k(w, &tile, !more);
        if (!BACKWARD) load_v(w, begin, inspected);
    }
    if (any) load_v(w, tile.begin, is_inspected(&tile));
}

/* Query tiles are handed out one at a time, so that the CTAs end together. */
SAC_FN int32_t num_units(const kernel_params *params) {
#if SPLIT
    return params->order.total + params->tail.tiles * (params->tail.parts - 1);
#else
    return params->order.total;
#endif
}

/* What the counter's memory held before is cleared by one warp of the first CTA, which then says so: a launch just
 * for that would take longer. Who takes the last tile's ticket takes it back, for graphs that launch the same call
 * again. */
SAC_FN void open_counter(const kernel_params *params) {
    if (blockIdx.x > 0) return;
#if SPLIT
    for (int i = lane_id(); i < params->tail.tiles * CONSUMERS; i += 32) params->tail.arrived[i] = 0;
#endif
    __syncwarp();
    if (lane_id() > 0) return;
    params->counter->next = 0;
    __threadfence();
    *(volatile uint64_t *)&params->counter->open = SAC_COUNTER_OPEN;
}
SAC_FN void wait_for_counter(const kernel_params *params) {
    while (*(volatile uint64_t *)&params->counter->open != SAC_COUNTER_OPEN) continue;
    __threadfence();
}
SAC_FN int32_t take_ticket(const kernel_params *params) {
    const int32_t ticket = atomicAdd(&params->counter->next, 1);
    if (ticket == num_units(params) - 1) params->counter->open = 0;
    return ticket;
}

/* A batch of -1 says that no tile is left. */
SAC_FN void produce(const kernel_params *params, smem_layout *smem) {
    producer w = {params, smem, 0, {0, 0}, {0, 0}, {0, 0}};
    int32_t index = blockIdx.x;
    if (SPLIT) wait_for_counter(params); /* and for those of parts, which consumers use */
    while (index < num_units(params)) {
        const q_record q = locate(params, index);
        if (q.begin < q.end) {
            smem->q_tile[w.tile] = q;
            produce_tile(&w);
            w.tile = (w.tile + 1) % Q_RECORDS;
        }
        wait_for_counter(params); /* which only the first tile may find closed */
        index = gridDim.x + take_ticket(params);
    }
    smem->q_tile[w.tile].batch = -1;
    smem->q_tile[w.tile].any = 0;
#pragma unroll 1
    for (int i = 0; i < CONSUMERS; i++) load_q(&w, i);
#if !BACKWARD
    for (int i = 0; i < V_STAGES; i++) { /* so each inspector meets one */
        ptx_mbarrier_wait(&smem->v_empty[w.v.stage], w.v.parity ^ 1);
        smem->v_task[w.v.stage] = V_END;
        ptx_mbarrier_arrive(&smem->v_landed[w.v.stage]);
        ring_next(&w.v, V_STAGES);
    }
#endif
}

#endif
