/* schedule.h - which piece of work is this CTA's; and, of a row of a packed tensor, whose it is. */
#ifndef SAC_KERNELS_SCHEDULE_H
#define SAC_KERNELS_SCHEDULE_H

#include "cuda/kernels/portable_plan.h"

typedef struct work_piece {
    int32_t b, h, tile, split;
} work_piece;

SAC_FN work_piece schedule_piece(const sac_schedule *s, int32_t heads_per_batch) {
    int32_t per_head = s->num_tiles * s->num_splits, cta = blockIdx.x;
    int32_t section = cta / (s->section * per_head), rest = cta - section * s->section * per_head;
    int32_t heads = sac_min(s->section, s->num_heads - section * s->section);
    int32_t head = section * s->section + rest % heads, part = rest / heads;
    work_piece w;
    w.b = head / heads_per_batch;
    w.h = head - w.b * heads_per_batch;
    w.split = part % s->num_splits;
    w.tile = part / s->num_splits;
    if (s->last_tile_first) w.tile = s->num_tiles - 1 - w.tile;
    return w;
}

/* Row `row` of all rows of one side: its batch entry, its place there, and whether any sequence uses it. */
typedef struct row_place {
    int32_t b, used;
    int64_t index; /* in its batch entry; packed: in the packed tensor */
} row_place;

SAC_FN row_place row_place_of(const sac_lengths *len, int32_t batch, int64_t row) {
    row_place p;
    if (!len->cu_seqlens) {
        p.b = (int32_t)(row / len->seqlen);
        p.index = row - (int64_t)p.b * len->seqlen;
        p.used = p.index < sac_length_of(len, p.b);
        return p;
    }
    int32_t low = 0, high = batch; /* the last sequence that starts at or before the row */
    while (high - low > 1) {
        int32_t middle = (low + high) / 2;
        if (len->cu_seqlens[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    p.b = low;
    p.index = row;
    p.used =
        batch > 0 && row < len->cu_seqlens[low + 1] && row - len->cu_seqlens[low] < sac_length_of(len, low);
    return p;
}

#endif
