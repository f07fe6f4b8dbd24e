/* attn_fwd_sm90_store.h - from the accumulators to out and lse. */
#ifndef SAC_ATTN_FWD_SM90_STORE_H
#define SAC_ATTN_FWD_SM90_STORE_H

#include "cuda/kernels/attn_fwd_sm90_join.h"
#include "cuda/kernels/attn_fwd_sm90_tile.h"
#include "cuda/kernels/attn_sm90_store.h"

/* What a row's out is multiplied by, and its lse in base 2. The sink joins the sum here. */
SAC_FN float finish_row(const consumer *c, int r, int used, float *lse) {
    float sum = c->sum[r], ref = c->ref[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const int32_t head = head_at(c->q, thread_row() + 8 * r);
    const float sink = c->args->sink ? c->args->sink[head] * LOG2_E : MINUS_INF, top = fmaxf(ref, sink);
    const float scale = ptx_exp2(ref - top), total = sum * scale + ptx_exp2(sink - top);
    const float lse_seen = top + ptx_log2(total), factor = scale * ptx_reciprocal(total);
    const int seen = used && sum != 0; /* one that saw a NaN has a NaN for a sum */
    *lse = seen ? lse_seen : MINUS_INF;
    return seen ? factor : SAW_NOTHING;
}

/* Finishes this warpgroup's rows, row_shift rows behind those of the tile: their lse, and what out is multiplied by. */
SAC_FN void finish_rows(const consumer *c, int32_t row_shift, float factor[2]) {
    const sac_attention_args *args = c->args;
    const int32_t used = used_rows(args, c->q);
    float lse[2]; /* of both rows at once: each is a long chain */
#pragma unroll
    for (int r = 0; r < 2; r++)
        factor[r] = finish_row(c, r, query_at(c->q, thread_row() + 8 * r) + row_shift < used, &lse[r]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t head = head_at(c->q, thread_row() + 8 * r);
        const int32_t row = query_at(c->q, thread_row() + 8 * r) + row_shift;
        if (args->lse.data && row < c->q->end && lane_id() % 4 == 0)
            *row_value_of(&args->lse, args, c->q, head, row) = lse[r] * LN_2;
    }
}

/* Rows of out, each thread's from its registers, 64 bytes of a row at a time; and lse. */
SAC_FN void store(consumer *c, int32_t row_shift) {
    float factor[2];
    finish_rows(c, row_shift, factor);
#if JOINED
    store_joined(c, factor, row_shift);
#else
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t head = head_at(c->q, thread_row() + 8 * r);
        const int32_t row = query_at(c->q, thread_row() + 8 * r) + row_shift;
        store_row(c->out, HEAD_DIM_V, r, factor[r], &c->args->out, c->args, c->q, head, row);
    }
#endif
}

#if SPLIT
/* Leaves this part's accumulators in memory. The last part of a tile to arrive takes all of them back, in the order of
 * the parts, so that the sum does not depend on who was last; it returns 1 and stores the tile. */
SAC_FN int merge_parts(consumer *c) {
    const sac_tail_split *tail = &c->params->tail;
    const int values = HEAD_DIM_V / 2, stride = 128, part_stride = SAC_PARTIAL_VALUES(HEAD_DIM_V) * stride;
    const int32_t at = c->q->tail * CONSUMERS + warpgroup();
    float *first = tail->partial + (int64_t)at * tail->parts * part_stride + threadIdx.x % 128;
    float *mine = first + c->q->part * part_stride;
#pragma unroll
    for (int i = 0; i < values; i++) mine[i * stride] = c->out[i];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        mine[(values + r) * stride] = c->sum[r];
        mine[(values + 2 + r) * stride] = c->ref[r];
    }

    if (!is_last_part(tail, at, 1 + warpgroup(), &c->smem->parts_done[warpgroup()])) return 0;

    start_rows(c);
    for (int part = 0; part < tail->parts; part++) {
        const float *from = first + part * part_stride;
        float ours[2], theirs[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float ref = __ldcg(from + (values + 2 + r) * stride), top = fmaxf(ref, c->ref[r]);
            ours[r] = c->ref[r] == MINUS_INF ? 0 : ptx_exp2(c->ref[r] - top);
            theirs[r] = ref == MINUS_INF ? 0 : ptx_exp2(ref - top);
            c->sum[r] = c->sum[r] * ours[r] + __ldcg(from + (values + r) * stride) * theirs[r];
            c->ref[r] = top;
        }
#pragma unroll
        for (int i = 0; i < values; i++)
            c->out[i] = c->out[i] * ours[i / 2 % 2] + __ldcg(from + i * stride) * theirs[i / 2 % 2];
    }
    return 1;
}
#endif

/* A tile that was cut by its keys is for the last to add its part. */
SAC_FN int has_all_parts(consumer *c) {
#if SPLIT
    return warp_has(c->q->tail < 0) || merge_parts(c);
#else
    (void)c;
    return 1;
#endif
}

/* Out and lse of the tile. */
SAC_FN void finish_tile(consumer *c) {
    if (has_all_parts(c)) store(c, 0);
}

#endif
