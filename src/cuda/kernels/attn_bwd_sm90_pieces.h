/* attn_bwd_sm90_pieces.h - tiles of queries gathered from those that chose the CTA's keys (PACK): the transposed list says
 * block by block which parts did, and as many pieces with such a part as fill a tile are loaded side by side. So a tile
 * is as full as its queries are many, however far apart they lie. Included by attn_bwd_sm90_producer.h. */
#ifndef SAC_ATTN_BWD_SM90_PIECES_H
#define SAC_ATTN_BWD_SM90_PIECES_H

/* A tile that is being gathered for the heads from `head` on. Lane i holds its i-th piece. */
typedef struct gathered_tile {
    int32_t head, count; /* count: of pieces */
    int32_t query;       /* this lane's: the first of its piece */
    uint32_t bits;       /* and which parts of the piece chose the keys */
} gathered_tile;

/* What the consumers need to know of a row. One that did not choose the keys, or that is none, gets the lse +inf. */
SAC_FN void put_row(const producer *w, const gathered_tile *t, uint32_t stage, int32_t row) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const sac_attention_args *args = &w->params->args;
    const int32_t piece = row / pieces->rows, rest = row % pieces->rows;
    const int32_t part = rest / pieces->heads / args->blocks.part, head = t->head + rest % pieces->heads;
    const uint32_t bits = __shfl_sync(~0u, t->bits, piece);
    const int32_t query = __shfl_sync(~0u, t->query, piece) + rest / pieces->heads;
    float lse = -MINUS_INF, delta = 0;
    if (piece < t->count && query < w->own.sequence.q_len && bits >> part & 1) {
        const int32_t b = w->own.batch;
        const int64_t at = (int64_t)row_of(&args->len_q, b) + query;
        lse = args->lse.data[batch_of(&args->len_q, b) * args->lse.batch_stride +
                             head * args->lse.head_stride + at * args->lse.row_stride];
        delta = w->params->delta[head * w->params->total_q + at +
                                 (args->len_q.cu_seqlens ? 0 : (int64_t)b * args->len_q.seqlen)];
    }
    w->smem->query[stage][row] = query;
    w->smem->lse[stage][row] = lse_log2(lse);
    w->smem->delta[stage][row] = delta;
}

/* Where in dq_sum this lane's group of rows starts. */
SAC_FN int64_t sum_of_group(const producer *w, const gathered_tile *t) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const int32_t piece = lane_id() / pieces->row_groups, rest = lane_id() % pieces->row_groups;
    const int64_t index = sac_first_piece(pieces, &w->params->args.len_q, w->own.batch) +
                          __shfl_sync(~0u, t->query, piece) / pieces->queries;
    return (t->head / pieces->heads * (w->params->sum_rows / SAC_SUM_ROWS) + index * pieces->row_groups +
            rest) *
           SUM_GROUPS * SUM_GROUP_SIZE;
}

SAC_FN void put_record(const producer *w, const gathered_tile *t, q_record *record) {
    const sac_band band = sac_band_make(&w->params->args.band, w->own.sequence.q_len, w->own.sequence.k_len);
    const sac_range seen_by_all = sac_band_queries_all(&band, w->own.keys);
    const sac_query_pieces *pieces = &w->params->pieces;
    const int32_t end = sac_min(t->query + pieces->queries, w->own.sequence.q_len);
    const int banded = lane_id() < t->count && (t->query < seen_by_all.begin || end > seen_by_all.end);
    const int masked = warp_has(banded) || w->own.keys.end - w->own.keys.begin < KV_TILE;
    const int32_t last = __shfl_sync(~0u, end - t->query, t->count - 1);
    if (lane_id() == 0) {
        record->head = t->head;
        record->flags = (masked ? Q_MASKED : 0) | SAC_FULL << Q_KIND;
        record->used = (t->count - 1) * pieces->rows + last * pieces->heads;
    }
    const int64_t sum = sum_of_group(w, t);
    if (lane_id() < Q_TILE / SAC_SUM_ROWS) record->sum[lane_id()] = sum;
}

/* This lane's piece of q or dout. */
SAC_FN void load_piece(const producer *w, const gathered_tile *t, uint8_t *tile, const sac_tensor_map *map,
                       uint64_t *full, int panels) {
    const sac_lengths *len = &w->params->args.len_q;
    const int32_t rows = w->params->pieces.rows;
    if (lane_id() >= t->count) return;
    for (int p = 0; p < panels; p++)
        ptx_tma_load(tile + (p * Q_TILE + lane_id() * rows) * ROW_BYTES, map, full, p * 64, t->head,
                     row_of(len, w->own.batch) + t->query, batch_of(len, w->own.batch));
}

/* Who has given q back has given dout back before. */
SAC_FN void load_gathered(producer *w, const gathered_tile *t) {
    const sac_attn_bwd_sm90_params *params = w->params;
    smem_layout *smem = w->smem;
    const uint32_t s = w->q.stage, row_bytes = t->count * params->pieces.rows * ROW_BYTES;
    ptx_mbarrier_wait(&smem->q_empty[s], w->q.parity ^ 1);
    load_piece(w, t, smem->q[s], &params->q, &smem->q_full[s], PANELS);
    load_piece(w, t, smem->dout[s], &params->dout, &smem->dout_full[s], PANELS_V);
    put_record(w, t, &smem->q_tile[s]);
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) put_row(w, t, s, 32 * i + lane_id());
    announce(&smem->q_full[s], PANELS * row_bytes);
    announce(&smem->dout_full[s], PANELS_V * row_bytes);
    ring_next(&w->q, Q_STAGES);
}

/* The pieces of the listed blocks, ascending. What the band hides is hidden pair by pair. */
typedef struct piece_walk {
    sac_walk lists; /* no more of it than the list */
    int32_t first;  /* query of the block at hand */
    uint32_t bits;  /* its parts that are left */
} piece_walk;

SAC_FN int next_piece(const producer *w, piece_walk *walk, int32_t *query, uint32_t *bits) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const sac_block_mask_args *blocks = &w->params->args.blocks;
    while (!walk->bits) {
        if (walk->lists.entry >= walk->lists.entry_end) return 0;
        walk->first = SAC_ENTRY_INDEX(*walk->lists.entry++) * blocks->q_block;
        walk->bits = *walk->lists.bits++ & ~0u >> (32 - blocks->q_block / blocks->part);
    }
    const int32_t piece = (__ffs(walk->bits) - 1) / pieces->parts, shift = piece * pieces->parts;
    const uint32_t own = ~0u >> (32 - pieces->parts) << shift;
    *query = walk->first + piece * pieces->queries;
    *bits = (walk->bits & own) >> shift;
    walk->bits &= ~own;
    return *query < w->own.sequence.q_len; /* behind the end all parts seem to have chosen */
}

/* All that chose the keys, of the heads that share a list. CTAs of different parts take turns with the tiles. */
SAC_FN void load_list(producer *w, int32_t head) {
    const sac_block_mask_args *blocks = &w->params->args.blocks;
    gathered_tile t = {head, 0, 0, 0};
    piece_walk walk = {};
    sac_walk_lists(&walk.lists, blocks, &blocks->by_key, w->own.batch, head, blocks->num_kv_blocks,
                   w->own.keys.begin / blocks->kv_block, blocks->q_block);
    for (int32_t index = 0, more = 1; more;) {
        int32_t query;
        uint32_t bits;
        more = next_piece(w, &walk, &query, &bits);
        if (more && lane_id() == t.count) t.query = query, t.bits = bits;
        t.count += more;
        if (t.count == 0 || (more && t.count < w->params->pieces.a_tile)) continue;
        if (index++ % w->params->num_parts == w->own.part) load_gathered(w, &t);
        t.count = 0;
    }
}

SAC_FN void produce_queries(producer *w) {
    const int32_t group = w->params->args.group;
    for (int32_t i = 0; i < group; i += w->params->pieces.heads) load_list(w, w->own.head * group + i);
}

#endif
