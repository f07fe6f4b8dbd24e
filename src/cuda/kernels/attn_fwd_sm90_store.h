/* attn_fwd_sm90_store.h - from the accumulators to out and lse.
 *
 * With COPIES_OUT a warpgroup does not wait for its rows of out to leave its registers, piece by piece. It puts them
 * where its q lay and goes on with the next tile, whose q has come to another slot meanwhile; a thread beside the
 * producer has them copied to memory. Slots go round among the warpgroups: with one more than there are warpgroups, the
 * first of them finds its next q at once, and each other one takes the slot of the one before.
 */
#ifndef SAC_ATTN_FWD_SM90_STORE_H
#define SAC_ATTN_FWD_SM90_STORE_H

#include "cuda/kernels/attn_fwd_sm90_tile.h"
#include "cuda/kernels/attn_sm90_store.h"
#include "cuda/kernels/ptx/fence.h"

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
    return seen ? factor : 0;
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

/* Rows of out, each thread's from its registers: 64 bytes of a row at a time. */
SAC_FN void store_out(const consumer *c, int32_t row_shift, const float factor[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t head = head_at(c->q, thread_row() + 8 * r);
        const int32_t row = query_at(c->q, thread_row() + 8 * r) + row_shift;
        store_row(c->out, HEAD_DIM_V, r, factor[r], &c->args->out, c->args, c->q, head, row);
    }
}

SAC_FN void store(consumer *c, int32_t row_shift) {
    float factor[2];
    finish_rows(c, row_shift, factor);
    store_out(c, row_shift, factor);
}

#if COPIES_OUT
/* The copy engine takes 64 rows or none: where the tile ends within them, threads store. */
SAC_FN int has_whole_rows(const consumer *c) {
    return warp_has(c->q->begin + 64 * (warpgroup() + 1) <= c->q->end);
}

/* Rows of out to where this warpgroup's q lay, as the copy engine wants them. A warp stores 16 rows x 16 columns at a
 * time: lane l says where row l % 16 has the columns of l / 16. */
SAC_FN void stage_out(const consumer *c, const float factor[2]) {
    const uint8_t *slot = c->smem->q[c->q_ring.stage];
    const int row = warp_row() % 64 + lane_id() % 16;
    const uint32_t kept[2] = {factor[0] == 0 ? 0 : ~0u, factor[1] == 0 ? 0 : ~0u};
    ptx_barrier_sync(1 + warpgroup(), 128); /* all four warps have what they wanted of q */
#pragma unroll
    for (int j = 0; j < HEAD_DIM_V / 8; j += 2) {
        uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = i % 2, at = j + i / 2 < HEAD_DIM_V / 8 ? 4 * (j + i / 2) + 2 * r : 0;
            w[i] = pack(c->out[at] * factor[r], c->out[at + 1] * factor[r]) & kept[r];
        }
        ptx_stmatrix(ptx_smem_of(chunk_of(slot, 64, row, j + lane_id() / 16)), w);
    }
    ptx_fence_proxy_async_shared();
}

/* A thread beside the producer: takes the slots of q in their order as warpgroups leave them, copies what is staged
 * there to memory, and gives them back. */
SAC_FN void copy_out(const kernel_params *params, smem_layout *smem) {
    ring slot = {0, 0};
    for (q_record *q = smem->q_tile;; q = record_after(smem, q)) {
        ptx_mbarrier_wait(&smem->q_full[slot.stage], slot.parity); /* then the record is there */
        if (q->batch < 0) return;
#pragma unroll 1
        for (int i = 0; i < CONSUMERS; i++) {
            ptx_mbarrier_wait(&smem->out_full[slot.stage], slot.parity);
            if (smem->out_staged[slot.stage]) {
                const int32_t row = q->q_row + q->begin + 64 * i;
                store_tile(&params->out, smem->q[slot.stage], 64, PANELS_V, row, q->head,
                           batch_of(&params->args.len_q, q->batch));
                ptx_tma_store_wait_read();
            }
            ptx_mbarrier_arrive(&smem->q_empty[slot.stage]);
            ring_next(&slot, Q_SLOTS);
        }
    }
}
#endif

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

/* Out and lse of the tile, and with COPIES_OUT the slot of its q, go on their way. */
SAC_FN void finish_tile(consumer *c) {
    float factor[2];
    int staged = 0;
    if (has_all_parts(c)) {
        finish_rows(c, 0, factor);
#if COPIES_OUT
        staged = has_whole_rows(c);
        if (staged) stage_out(c, factor);
#endif
        if (!staged) store_out(c, 0, factor);
    }
#if COPIES_OUT
    if (threadIdx.x % 128 == 0) c->smem->out_staged[c->q_ring.stage] = staged;
    release(&c->smem->out_full[c->q_ring.stage]);
#endif
}

#endif
