/* attn_bwd_sm90_producer.h - warps that walk the queries of the CTA's keys and load what the consumers need: q and dout
 * by the copy engine, issued by one lane; lse and delta by all lanes, in the form in which they are used. */
#ifndef SAC_ATTN_BWD_SM90_PRODUCER_H
#define SAC_ATTN_BWD_SM90_PRODUCER_H

#include "cuda/kernels/attn_bwd_sm90_score.h"
#include "cuda/kernels/attn_bwd_sm90_unfinite.h"
#include "cuda/kernels/ptx/fence.h"

typedef struct producer {
    const sac_attn_bwd_sm90_params *params;
    smem_layout *smem;
    ring q;
} producer;

/* P of a score that this is added to is 0, or infinite; and the sum is finite. */
#define MOST_LSE 1e30f

SAC_FN row_pieces pieces_of(float x) {
    const float first = ptx_unpack_bf16(ptx_pack_bf16(x, 0)).x;
    const float second = ptx_unpack_bf16(ptx_pack_bf16(x - first, 0)).x;
    const row_pieces p = {ptx_pack_bf16(first, second), ptx_pack_bf16(x - first - second, 0), {0, 0}};
    return p;
}

/* In the form in which it is used. In pieces it must be finite: the operand's zeros meet them too. */
SAC_FN void put_lse(const producer *w, uint32_t stage, int row, float lse) {
#if FOLDS_LSE
    const float x = -lse_log2(lse) / score_to_log2(&w->params->args);
    w->smem->lse[stage][row] = pieces_of(fmaxf(-MOST_LSE, fminf(x, MOST_LSE)));
#else
    w->smem->lse[stage][row] = lse_log2(lse);
#endif
}
SAC_FN void put_delta(const producer *w, uint32_t stage, int row, float delta) {
#if FOLDS_DELTA
    w->smem->delta[stage][row] = pieces_of(-delta);
#else
    w->smem->delta[stage][row] = delta;
#endif
}

/* What all lanes have written is there, and bytes are on their way, or have come already: a barrier counts them
 * either way. */
SAC_FN void announce(uint64_t *full, uint32_t bytes) {
    if (FOLDS_DELTA) ptx_fence_proxy_async_shared();
    __syncwarp();
    if (lane_id() == 0) ptx_mbarrier_arrive_expect(full, bytes);
}

/* ---- rows that are not finite ---- */

/* May a row be other than finite? Not if its lse and delta, sums over all that it is multiplied with, are, unless
 * infinite products may become finite scores: those that a softcap bends, or a score_mod returns; and where a sink may
 * be all that there is in the sum, -inf. */
SAC_FN int is_doubtful(const producer *w, float lse, float delta, int32_t head) {
    const float *sink = w->params->args.sink;
    const float least = sink ? sink[head] + 1e-3f : MINUS_INF;
    return SOFTCAP || SCORE_MOD || !(lse > least && lse < -MINUS_INF && fabsf(delta) < -MINUS_INF);
}

/* The chunks of a row of q and of dout. Each lane has a row of its own and begins with another chunk, since rows are a
 * multiple of all banks. */
enum { ROW_CHUNKS = 8 * (PANELS + PANELS_V) };
SAC_FN uint8_t *chunk_of(const producer *w, int row, int i) {
    const int panel = i / 8;
    uint8_t *rows = panel < PANELS ? w->smem->q[w->q.stage] + panel * Q_TILE * ROW_BYTES
                                   : w->smem->dout[w->q.stage] + (panel - PANELS) * Q_TILE * ROW_BYTES;
    return rows + row * ROW_BYTES + (i + lane_id()) % 8 * 16;
}

SAC_FN int is_unfinite_row(const producer *w, int row) {
    int found = 0;
#pragma unroll 1
    for (int i = 0; i < ROW_CHUNKS; i++) found |= has_unfinite_chunk(chunk_of(w, row, i));
    return found;
}

/* A row that is not finite becomes zeros, and its lse NaN: then only keys that see it get NaN of it. Zeros too where
 * the tile has no row. doubts: this lane's rows that must be looked at. */
SAC_FN void set_rows_aside(const producer *w, uint32_t doubts) {
    q_record *tile = &w->smem->q_tile[w->q.stage];
#pragma unroll 1
    for (int row = lane_id(); row < Q_TILE; row += 32, doubts >>= 1) {
        const int there = is_row_of(tile, row);
        if (there && !(doubts & 1)) continue;
        if (there && !is_unfinite_row(w, row)) {
            tile->flags |= Q_UNFINITE; /* so is its delta, for all that is known */
            continue;
        }
#pragma unroll 1
        for (int i = 0; i < ROW_CHUNKS; i++) *(uint4 *)chunk_of(w, row, i) = make_uint4(0, 0, 0, 0);
        if (!there) continue;
        put_lse(w, w->q.stage, row, NOT_A_NUMBER);
        put_delta(w, w->q.stage, row, 0);
    }
    ptx_fence_proxy_async_shared();
}

/* A tile that hides pairs lands where only its producer waits for it. Its record, lse and delta are written. Of another
 * nothing is to come, and the wait is over at once; so the barrier's turns are those of the stage. */
SAC_FN void look_through(const producer *w, uint32_t bytes, uint32_t doubts) {
    uint64_t *landed = &w->smem->landed[w->q.stage];
    __syncwarp();
    if (lane_id() == 0) ptx_mbarrier_arrive_expect(landed, bytes);
    ptx_mbarrier_wait(landed, w->q.parity);
    if (warp_has(doubts)) set_rows_aside(w, doubts);
}

/* ---- loads ---- */

SAC_FN void load_keys(const producer *w) {
    const key_tile *own = &w->smem->own;
    const sac_attn_bwd_sm90_params *params = w->params;
    const sac_lengths *len = &params->args.len_k;
    const int32_t row = row_of(len, own->batch) + own->keys.begin, batch = batch_of(len, own->batch);
    uint64_t *full = &w->smem->kv_full;
    if (lane_id() > 0) return;
    ptx_mbarrier_arrive_expect(full, K_BYTES + V_BYTES);
    load_tile(w->smem->k, &params->k, full, KV_TILE, PANELS, row, own->head, batch);
    load_tile(w->smem->v, &params->v, full, KV_TILE, PANELS_V, row, own->head, batch);
}

SAC_FN void own_keys(smem_layout *smem, const key_tile *own) {
    smem->own = *own;
    smem->unfinite_keys = smem->unfinite_values = 0;
}

/* With several warps each fills one stage. */
SAC_FN int is_mine(const producer *w) { return PRODUCER_WARPS == 1 || w->q.stage == threadIdx.x / 32; }

/* Once for each that looks at a stage of its own. */
SAC_FN void end_queries(producer *w) {
    for (int i = 0; i < (SPLIT_QUERIES ? CONSUMERS : 1); i++) {
        if (is_mine(w)) ptx_mbarrier_wait(&w->smem->q_empty[w->q.stage], w->q.parity ^ 1);
        if (is_mine(w) && STAYS) ptx_mbarrier_wait(&w->smem->dout_empty[w->q.stage], w->q.parity ^ 1);
        if (is_mine(w) && lane_id() == 0) {
            w->smem->q_tile[w->q.stage].head = -1;
            ptx_mbarrier_arrive(&w->smem->q_full[w->q.stage]);
            if (BY_QUERY || STAYS)
                ptx_mbarrier_arrive(&w->smem->dout_full[w->q.stage]); /* its turn, too, is over */
        }
        ring_next(&w->q, Q_STAGES);
    }
}

#if PACK
#include "cuda/kernels/attn_bwd_sm90_pieces.h"
#else
/* The queries that this CTA's part takes of all that see its keys: whole groups of rows. */
SAC_FN sac_range part_of(sac_range all, int32_t part, int32_t num_parts, int32_t rows) {
    const int32_t first = all.begin / rows * rows;
    const int32_t each = sac_ceil_div(sac_ceil_div(all.end - first, num_parts), rows) * rows;
    sac_range r = {first + part * each, first + (part + 1) * each};
    return r;
}

SAC_FN sac_walk walk_queries(const producer *w, int32_t head) {
    const key_tile *own = &w->smem->own;
    const sac_attention_args *args = &w->params->args;
    const sac_band band = sac_band_make(&args->band, own->sequence.q_len, own->sequence.k_len);
    sac_walk walk = sac_walk_queries(args, &band, own->batch, head, own->keys, Q_TILE);
    if (!BLOCK_MASK) walk.entry = walk.entry_end = 0; /* and the compiler forgets them */
#if ORDERED /* the same tiles for all keys, and of a head's cut key tiles the same parts */
    const sac_range all = {0, own->sequence.q_len};
    if (own->parts > 1) sac_walk_clip(&walk, part_of(all, own->part, own->parts, Q_TILE));
    if (walk.run.begin < walk.run.end) walk.run.begin = walk.run.begin / Q_TILE * Q_TILE;
#else
    if (own->parts > 1) sac_walk_clip(&walk, part_of(walk.any, own->part, own->parts, SAC_SUM_ROWS));
#endif
    return walk;
}

/* The rows of the tile that this lane looks after. */
SAC_FN void load_rows(const producer *w, const q_record *tile, float lse[LANE_ROWS], float delta[LANE_ROWS]) {
    const sac_attention_args *args = &w->params->args;
    const int32_t b = w->smem->own.batch, first = row_of(&args->len_q, b);
    const float *lse_row = args->lse.data + batch_of(&args->len_q, b) * args->lse.batch_stride +
                           tile->head * args->lse.head_stride;
    const float *delta_row = w->params->delta + tile->head * w->params->total_q +
                             (args->len_q.cu_seqlens ? 0 : (int64_t)b * args->len_q.seqlen);
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) {
        const int32_t row = tile->origin + 32 * i + lane_id();
        const int there = row >= tile->begin && row < tile->end;
        lse[i] = there ? lse_row[(first + row) * args->lse.row_stride] : -MINUS_INF;
        delta[i] = there ? delta_row[first + row] : 0;
    }
}

/* The copies start first: in a CTA's first tile nothing else hides the way of lse and delta. */
SAC_FN void load_queries(producer *w, const q_record *tile) {
    const key_tile *own = &w->smem->own;
    const sac_attn_bwd_sm90_params *params = w->params;
    const sac_lengths *len = &params->args.len_q;
    const int32_t row = row_of(len, own->batch) + tile->origin, batch = batch_of(len, own->batch);
    smem_layout *smem = w->smem;
    const uint32_t s = w->q.stage;
    float lse[LANE_ROWS], delta[LANE_ROWS];
    load_rows(w, tile, lse, delta);
    const int apart = PRODUCER_LOOKS && tile->flags & Q_MASKED;
    uint32_t doubts = 0;

    ptx_mbarrier_wait(&smem->q_empty[s], w->q.parity ^ 1);
    if (lane_id() == 0) {
        load_tile(smem->q[s], &params->q, apart ? &smem->landed[s] : &smem->q_full[s], Q_TILE, PANELS, row,
                  tile->head, batch);
        smem->q_tile[s] = *tile;
    }
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) {
        put_lse(w, s, 32 * i + lane_id(), lse[i]);
        if (apart && is_doubtful(w, lse[i], delta[i], tile->head)) doubts |= 1u << i;
    }
    if (!apart) announce(&smem->q_full[s], Q_BYTES);

    ptx_mbarrier_wait(&smem->dout_empty[s], w->q.parity ^ 1);
    if (lane_id() == 0)
        load_tile(smem->dout[s], &params->dout, apart ? &smem->landed[s] : &smem->dout_full[s], Q_TILE,
                  PANELS_V, row, tile->head, batch);
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) put_delta(w, s, 32 * i + lane_id(), delta[i]);
    if (PRODUCER_LOOKS) look_through(w, apart ? Q_BYTES + DOUT_BYTES : 0, doubts);
    if (apart) announce(&smem->q_full[s], 0);
    announce(&smem->dout_full[s], apart ? 0 : DOUT_BYTES);
    ring_next(&w->q, Q_STAGES);
}

/* The walk's next tile; it ends early where it starts inside a group of rows. */
SAC_FN int next_queries(const producer *w, sac_walk *walk, q_record *record) {
    const key_tile *own = &w->smem->own;
    sac_tile tile;
#if ORDERED
    if (!sac_walk_back(walk, &tile)) return 0;
    record->origin = tile.begin;
    record->end = tile.end;
#else
    if (!sac_walk_next(walk, &tile)) return 0;
    record->origin = tile.begin / SAC_SUM_ROWS * SAC_SUM_ROWS;
    record->end = walk->run.begin = sac_min(tile.end, record->origin + Q_TILE);
#endif
    record->begin = tile.begin;
    const int placed = tile.banded || tile.kind == SAC_DIAGONAL ||
                       own->keys.end - own->keys.begin < KV_TILE || record->end - record->begin < Q_TILE;
    const int masked = placed || (MASK_MOD && tile.kind == SAC_PARTIAL);
    record->flags = (masked ? Q_MASKED : 0) | (placed ? Q_PLACED : 0) | tile.kind << Q_KIND;
    record->delta = tile.delta;
    return 1;
}

/* Where in dq_sum the rows of a tile of the head start. */
SAC_FN int64_t sum_of_tile(const producer *w, const q_record *tile) {
    const int64_t first =
        tile->head * w->params->sum_rows + sac_sum_row(&w->params->args.len_q, w->smem->own.batch);
    return (first + tile->origin) / SAC_SUM_ROWS * SUM_GROUPS * SUM_GROUP_SIZE;
}

SAC_FN void produce_queries(producer *w) {
    const int32_t first = w->smem->own.head * w->params->args.group, end = first + w->params->args.group;
    q_record record;
#if ORDERED /* all heads walk the same tiles, and none may come to its next one long before another */
    sac_walk walk = walk_queries(w, first);
    while (next_queries(w, &walk, &record))
        for (record.head = first; record.head < end; record.head++) {
            record.sum = sum_of_tile(w, &record);
            load_queries(w, &record);
        }
#else
    for (record.head = first; record.head < end; record.head++) {
        sac_walk walk = walk_queries(w, record.head);
        while (next_queries(w, &walk, &record)) {
            if (SUM_DQ) record.sum = sum_of_tile(w, &record);
            load_queries(w, &record);
        }
    }
#endif
}
#endif

#if STAYS
/* A tile without keys says that none is left. */
SAC_FN void hand_over_keys(const producer *w, const key_tile *own, uint32_t parity) {
    ptx_mbarrier_wait(&w->smem->kv_empty, parity ^ 1);
    if (lane_id() == 0) own_keys(w->smem, own);
    __syncwarp();
}

/* Key tiles, and parts of those that are cut, go in their order to whoever is free. Asked for at the end of a walk:
 * where there are two tiles an SM, a CTA that asks early has a long one and the next in length. */
SAC_FN int32_t take_task(const sac_attn_bwd_sm90_params *params) {
    int32_t task = 0;
    if (lane_id() == 0) task = gridDim.x + atomicAdd(params->tasks_taken, 1);
    return __shfl_sync(~0u, task, 0);
}

SAC_FN void produce(const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    producer w = {params, smem, {0, 0}};
    uint32_t parity = 0;
    for (int32_t task = blockIdx.x; task < params->num_tasks; task = take_task(params)) {
        const key_tile own = key_tile_of(params, task);
        if (own.keys.begin >= own.keys.end) continue;
        hand_over_keys(&w, &own, parity);
        load_keys(&w);
        produce_queries(&w);
        end_queries(&w);
        parity ^= 1;
    }
    const key_tile none = {0};
    hand_over_keys(&w, &none, parity);
    if (lane_id() == 0) ptx_mbarrier_arrive(&smem->kv_full);
}
#else
SAC_FN void produce(const sac_attn_bwd_sm90_params *params, smem_layout *smem) {
    producer w = {params, smem, {0, 0}};
    if (threadIdx.x < 32) load_keys(&w);
    produce_queries(&w);
    end_queries(&w);
}
#endif

#endif
