/* attn_bwd_sm90_pieces.h - tiles of queries gathered from those that chose the CTA's keys (PACK): the transposed list
 * says block by block which parts did, and as many pieces with such a part as fill a tile are loaded side by side. So
 * a tile is as full as its queries are many, however far apart they lie. Included by attn_bwd_sm90_producer.h. */
#ifndef SAC_ATTN_BWD_SM90_PIECES_H
#define SAC_ATTN_BWD_SM90_PIECES_H

/* A tile that is being gathered for the heads from `head` on. Lane i holds its i-th piece. */
typedef struct gathered_tile {
    int32_t head, count; /* count: of pieces */
    int32_t query;       /* this lane's: the first of its piece */
    uint32_t bits;       /* and which parts of the piece chose the keys */
} gathered_tile;

/* What the consumers need to know of a row. One that did not choose the keys, or that is none, gets the lse +inf. */
typedef struct gathered_row {
    int32_t query;
    float lse, delta;
} gathered_row;

/* Row `index` of the tile: query / heads of its piece, of head % heads. */
SAC_FN gathered_row load_row(const producer *w, const gathered_tile *t, int32_t index) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const sac_attention_args *args = &w->params->args;
    const int32_t piece = index * pieces->rows_inverse >> 16, rest = index - piece * pieces->rows;
    const int32_t query = rest * pieces->heads_inverse >> 16, head = t->head + rest - query * pieces->heads;
    const uint32_t bits = __shfl_sync(~0u, t->bits, piece) >> (query * pieces->part_inverse >> 16);
    gathered_row row = {__shfl_sync(~0u, t->query, piece) + query, -MINUS_INF, 0};
    if (piece < t->count && row.query < w->smem->own.sequence.q_len && bits & 1) {
        const int32_t b = w->smem->own.batch;
        const int64_t at = (int64_t)row_of(&args->len_q, b) + row.query;
        row.lse = args->lse.data[batch_of(&args->len_q, b) * args->lse.batch_stride +
                                 head * args->lse.head_stride + at * args->lse.row_stride];
        row.delta = w->params->delta[head * w->params->total_q + at +
                                     (args->len_q.cu_seqlens ? 0 : (int64_t)b * args->len_q.seqlen)];
    }
    return row;
}

/* Where in dq_sum this lane's group of rows starts. */
SAC_FN int64_t sum_of_group(const producer *w, const gathered_tile *t) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const int32_t piece = lane_id() / pieces->row_groups, rest = lane_id() % pieces->row_groups;
    const int64_t index = sac_first_piece(pieces, &w->params->args.len_q, w->smem->own.batch) +
                          __shfl_sync(~0u, t->query, piece) / pieces->queries;
    return (t->head / pieces->heads * (w->params->sum_rows / SUM_ROWS) + index * pieces->row_groups + rest) *
           SUM_GROUPS * SUM_GROUP_SIZE;
}

SAC_FN void put_record(const producer *w, const gathered_tile *t, q_record *record) {
    const key_tile *own = &w->smem->own;
    const sac_band band = sac_band_make(&w->params->args.band, own->sequence.q_len, own->sequence.k_len);
    const sac_range seen_by_all = sac_band_queries_all(&band, own->keys);
    const sac_query_pieces *pieces = &w->params->pieces;
    const int32_t end = sac_min(t->query + pieces->queries, own->sequence.q_len);
    const int banded = lane_id() < t->count && (t->query < seen_by_all.begin || end > seen_by_all.end);
    const int masked = warp_has(banded) || own->keys.end - own->keys.begin < KV_TILE;
    const int32_t last = __shfl_sync(~0u, end - t->query, t->count - 1);
    if (lane_id() == 0) {
        record->head = t->head;
        record->flags = (masked ? Q_MASKED : 0) | SAC_FULL << Q_KIND;
        record->used = (t->count - 1) * pieces->rows + last * pieces->heads;
    }
    const int64_t sum = sum_of_group(w, t);
    if (lane_id() < Q_TILE / SUM_ROWS) record->sum[lane_id()] = sum;
}

/* This lane's piece of q or dout. */
SAC_FN void load_piece(const producer *w, const gathered_tile *t, uint8_t *tile, const sac_tensor_map *map,
                       uint64_t *full, int panels) {
    const sac_lengths *len = &w->params->args.len_q;
    const int32_t rows = w->params->pieces.rows;
    if (lane_id() >= t->count) return;
    for (int p = 0; p < panels; p++)
        ptx_tma_load(tile + (p * Q_TILE + lane_id() * rows) * ROW_BYTES, map, full, p * 64, t->head,
                     row_of(len, w->smem->own.batch) + t->query, batch_of(len, w->smem->own.batch));
}

/* lse and delta come while the buffers are waited for. */
SAC_FN void load_gathered(const producer *w, const gathered_tile *t) {
    const sac_attn_bwd_sm90_params *params = w->params;
    smem_layout *smem = w->smem;
    const uint32_t s = w->q.stage, row_bytes = t->count * params->pieces.rows * ROW_BYTES;
    gathered_row row[LANE_ROWS];
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) row[i] = load_row(w, t, 32 * i + lane_id());
    ptx_mbarrier_wait(&smem->q_empty[s], w->q.parity ^ 1);
    load_piece(w, t, smem->q[s], &params->q, &smem->q_full[s], PANELS);
    ptx_mbarrier_wait(&smem->dout_empty[s], w->q.parity ^ 1);
    load_piece(w, t, smem->dout[s], &params->dout, &smem->dout_full[s], PANELS_V);
    put_record(w, t, &smem->q_tile[s]);
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) {
        smem->query[s][32 * i + lane_id()] = row[i].query;
        put_lse(w, s, 32 * i + lane_id(), row[i].lse);
        put_delta(w, s, 32 * i + lane_id(), row[i].delta);
    }
    announce(&smem->q_full[s], PANELS * row_bytes);
    announce(&smem->dout_full[s], PANELS_V * row_bytes);
}

/* 32 entries of a list, one a lane. */
typedef struct entry_batch {
    int32_t block;   /* of queries; behind the list's end one that no stretch has */
    uint32_t bits;   /* the parts of it that chose the keys, */
    uint32_t pieces; /* and the pieces that have such a part */
    int32_t end;     /* pieces up to this entry's last */
} entry_batch;

/* The pieces of the listed blocks, ascending. What the band hides is hidden pair by pair. All lanes look at entries,
 * and the next batch comes while this one is walked: one entry after the other, each waited for and taken apart
 * alone, the walk takes longer than the products. */
typedef struct piece_walk {
    const int32_t *entry; /* of the next batch, the first */
    const uint32_t *entry_bits;
    int32_t entries_left; /* of the list, from there on */
    entry_batch now, next;
    int32_t taken, total; /* pieces of the batch at hand */
    int last;             /* is it the stretch's last? */
} piece_walk;

/* Entries before the first that is of this block or a later one. Each lane looks at the last of one of 32 pieces of
 * what is left, so that few loads wait for each other. */
SAC_FN int32_t entries_before(const int32_t *entries, int32_t count, int32_t block) {
    int32_t first = 0;
    while (count > 0) {
        const int32_t piece = sac_ceil_div(count, 32), last = sac_min((lane_id() + 1) * piece, count) - 1;
        const uint32_t before = __ballot_sync(~0u, SAC_ENTRY_INDEX(entries[first + last]) < block);
        const int32_t passed = sac_min(__popc(before) * piece, count);
        first += passed;
        count = sac_min(piece, count - passed) - 1; /* the last of the piece is none of them */
    }
    return first;
}

/* The pieces of a block with these parts, as far as there are queries. */
SAC_FN uint32_t pieces_with(const producer *w, int32_t block, uint32_t bits) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const int32_t q_block = w->params->args.blocks.q_block;
    const int32_t queries = sac_min(w->smem->own.sequence.q_len - block * q_block, q_block);
    uint32_t found = 0;
    for (int32_t i = 0; i * pieces->queries < queries; i++)
        if (bits >> i * pieces->parts & ~0u >> (32 - pieces->parts)) found |= 1u << i;
    return found;
}

SAC_FN void next_batch(const producer *w, piece_walk *walk) {
    const sac_block_mask_args *blocks = &w->params->args.blocks;
    const entry_batch none = {SAC_FAR, 0, 0, 0};
    walk->now = walk->next;
    walk->next = none;
    if (lane_id() < walk->entries_left) {
        walk->next.block = SAC_ENTRY_INDEX(walk->entry[lane_id()]);
        walk->next.bits = walk->entry_bits[lane_id()];
    }
    walk->entry += 32;
    walk->entry_bits += 32;
    walk->entries_left -= 32;

    entry_batch *now = &walk->now;
    const int own = now->block < (w->smem->own.part + 1) * w->params->part_blocks;
    now->bits &= ~0u >> (32 - blocks->q_block / blocks->part);
    now->pieces = own ? pieces_with(w, now->block, now->bits) : 0;
    now->end = __popc(now->pieces);
    for (int step = 1; step < 32; step *= 2) {
        const int32_t before = __shfl_up_sync(~0u, now->end, step);
        if (lane_id() >= step) now->end += before;
    }
    walk->taken = 0;
    walk->total = __shfl_sync(~0u, now->end, 31);
    walk->last = !__all_sync(~0u, own);
}

/* From the first block of the CTA's stretch on. */
SAC_FN piece_walk walk_stretch(const producer *w, int32_t head) {
    const sac_block_mask_args *blocks = &w->params->args.blocks;
    const key_tile *own = &w->smem->own;
    sac_walk list;
    sac_walk_lists(&list, blocks, &blocks->by_key, own->batch, head, blocks->num_kv_blocks,
                   own->keys.begin / blocks->kv_block, blocks->q_block);
    const int32_t count = (int32_t)(list.entry_end - list.entry);
    const int32_t before =
        own->part ? entries_before(list.entry, count, own->part * w->params->part_blocks) : 0;
    piece_walk walk = {list.entry + before, list.bits + before, count - before};
    walk.next.block = SAC_FAR;
    next_batch(w, &walk); /* asks for the first, */
    next_batch(w, &walk); /* which now is at hand */
    return walk;
}

/* The next `count` pieces of the batch go behind those that the tile has, one a lane. */
SAC_FN void take_pieces(const producer *w, const piece_walk *walk, gathered_tile *t, int32_t count) {
    const sac_query_pieces *pieces = &w->params->pieces;
    const entry_batch *now = &walk->now;
    const int32_t lane = lane_id() - t->count, index = walk->taken + lane;
    int32_t entry = 0; /* the first whose pieces end behind `index` */
    for (int step = 16; step > 0; step /= 2)
        if (__shfl_sync(~0u, now->end, entry + step - 1) <= index) entry += step;
    const int32_t block = __shfl_sync(~0u, now->block, entry), end = __shfl_sync(~0u, now->end, entry);
    const uint32_t bits = __shfl_sync(~0u, now->bits, entry);
    uint32_t left = __shfl_sync(~0u, now->pieces, entry);
    if (lane < 0 || lane >= count) return;
    for (int32_t before = index - (end - __popc(left)); before > 0; before--) left &= left - 1;
    const int32_t piece = __ffs(left) - 1;
    t->query = block * w->params->args.blocks.q_block + piece * pieces->queries;
    t->bits = bits >> piece * pieces->parts & ~0u >> (32 - pieces->parts);
}

/* All of the CTA's stretch that chose the keys, of the heads that share a list. A warp loads the tiles of its own
 * stage: one alone takes longer to gather a tile than two warpgroups to multiply it. */
SAC_FN void load_list(producer *w, int32_t head) {
    const int32_t a_tile = w->params->pieces.a_tile;
    gathered_tile t = {head, 0, 0, 0};
    piece_walk walk = walk_stretch(w, head);
    for (int32_t more = 1; more;) {
        const int32_t count = sac_min(a_tile - t.count, walk.total - walk.taken);
        if (is_mine(w)) take_pieces(w, &walk, &t, count);
        t.count += count;
        walk.taken += count;
        const int batch_ends = walk.taken == walk.total;
        more = !batch_ends || !walk.last;
        if (t.count == a_tile || (!more && t.count > 0)) {
            if (is_mine(w)) load_gathered(w, &t);
            ring_next(&w->q, Q_STAGES);
            t.count = 0;
        }
        if (batch_ends && more) next_batch(w, &walk);
    }
}

SAC_FN void produce_queries(producer *w) {
    const int32_t first = w->smem->own.head * w->params->args.group, end = first + w->params->args.group;
    for (int32_t head = first; head < end; head += w->params->pieces.heads) load_list(w, head);
}

/* Does the stretch end before the first query that sees the keys? Where stretches are summed that leaves nothing to
 * do. */
SAC_FN int adds_nothing(const sac_attn_bwd_sm90_params *params, const key_tile *own) {
    const sac_band band = sac_band_make(&params->args.band, own->sequence.q_len, own->sequence.k_len);
    const int64_t end = (int64_t)(own->part + 1) * params->part_blocks * params->args.blocks.q_block;
    return params->dk_sum && end <= sac_band_queries_any(&band, own->keys).begin;
}

#endif
