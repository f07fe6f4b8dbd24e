/* attn_bwd_sm90_store.h - what leaves a consumer: dS to shared memory, dQ to its sums, dK and dV to memory. */
#ifndef SAC_ATTN_BWD_SM90_STORE_H
#define SAC_ATTN_BWD_SM90_STORE_H

#include "cuda/kernels/attn_bwd_sm90_consumer.h"
#include "cuda/kernels/ptx/fence.h"
#include "cuda/kernels/ptx/reduce.h"

#if SUM_DQ
SAC_FN int64_t sum_of(const dq_place *place, int row_group) {
#if PACK
    return place->sum[row_group];
#else
    return place->sum + row_group * SUM_GROUPS * SUM_GROUP_SIZE;
#endif
}

/* Where a lane adds its part of a warp's 16 rows of dQ: known before the products are, since whoever computes it
 * between additions waits for those that read the same registers. */
typedef struct dq_target {
    float *to;
    int32_t groups; /* of columns that there are; 0: none of its rows are used */
} dq_target;

SAC_FN dq_target dq_target_of(const consumer *c, const dq_place *place, int rows_of_16, int column_group) {
    const int row_group = PACK ? rows_of_16 * (32 / SUM_LANES) + lane_id() / SUM_LANES : rows_of_16;
    const int at = column_group * SUM_GROUP_SIZE + lane_id() % SUM_LANES * 4;
    dq_target t;
    t.groups = row_group < place->row_groups ? SUM_GROUPS - column_group : 0;
    t.to = ptx_pin_address(c->params->dq_sum + sum_of(place, row_group) + at);
    return t;
}

#if STAGES_DQ
/* A warp's part of dQ is one stretch of the sums. Most of it goes to shared memory in that order, and the copy engine
 * adds it, so that nobody waits for registers that additions still have to read. */
SAC_FN void stage_dq(const consumer *c, const dq_target *target) {
    float *staged = c->smem->staged_dq[threadIdx.x / 32 - 4];
    if (lane_id() == 0) ptx_bulk_wait_read(); /* that of the tile before */
    __syncwarp();
#pragma unroll
    for (int j = 0; j < STAGED_GROUPS; j++)
        *(float4 *)(staged + j * SUM_GROUP_SIZE + lane_id() * 4) =
            make_float4(c->dq[4 * j], c->dq[4 * j + 1], c->dq[4 * j + 2], c->dq[4 * j + 3]);
    ptx_fence_proxy_async_shared();
    __syncwarp();
    if (lane_id() == 0 && target->groups > 0)
        ptx_bulk_add_f32(target->to, staged,
                         sac_min(STAGED_GROUPS, target->groups) * SUM_GROUP_SIZE * sizeof(float));
}
#endif

/* Adds `columns` columns of dQ, as far as there are. */
SAC_FN void add_dq_columns(const consumer *c, const dq_target *target, int columns) {
#if STAGES_DQ
    stage_dq(c, target);
#endif
    if (target->groups <= 0) return;
#pragma unroll
    for (int j = STAGED_GROUPS; j < columns / SAC_SUM_COLUMNS; j++)
        if (WHOLE_DQ || j < target->groups)
            ptx_add_f32x4(target->to + j * SUM_GROUP_SIZE, c->dq[4 * j], c->dq[4 * j + 1], c->dq[4 * j + 2],
                          c->dq[4 * j + 3]);
}

SAC_FN dq_place dq_place_of(const q_record *tile) {
    const dq_place place = {tile->sum, (rows_of(tile) + SUM_ROWS - 1) / SUM_ROWS};
    return place;
}

#if !BY_QUERY
/* Which of the 16 rows of dQ that a warp makes belongs to the i-th query of the first 8. A lane holds row g and row
 * g + 8: of a line of gathered rows, four neighbours, each of its lanes wants two. */
SAC_FN int dq_row_of(int i) { return PACK ? i / 4 * 2 + i % 2 + i / 2 % 2 * 8 : i; }

/* Where a lane's address of a 16 x 16 block of dS lies, in the swizzled panel of this warpgroup's keys: matrices 0
 * and 1 hold the first 8 queries, 0 and 2 the first 8 keys. */
SAC_FN uint32_t ds_lane_offset(void) {
    const int lane = lane_id(), row = dq_row_of(lane % 8),
              key_chunk = threadIdx.x / 32 % 4 * 2 + lane / 8 % 2;
    const int panel = KV_TILE == 64 ? 0 : threadIdx.x / 128 - 1, later = lane / 16 * (PACK ? 4 : 8);
    return panel * Q_TILE * ROW_BYTES + (row + later) * ROW_BYTES + (key_chunk ^ row % 8 ^ later % 8) * 16;
}

SAC_FN void store_ds(const consumer *c, const uint8_t *buffer) {
    const ptx_smem to = ptx_smem_of(buffer) + c->ds_lane;
#pragma unroll
    for (int i = 0; i < Q_TILE / 16; i++) ptx_stmatrix_trans(to + 16 * i * ROW_BYTES, c->ds_packed + 4 * i);
}
#endif
#endif

#if DQ_LATE && !BY_QUERY
/* dS for the products of dQ, which need the keys of all warpgroups. Whoever has waited for the dS of the tile before
 * knows that all are done with that of three tiles ago, and may write over it. */
SAC_FN void put_ds(const consumer *c, const q_record *tile) {
    smem_layout *smem = c->smem;
    const uint32_t buffer = c->ds.stage + 1 == DS_BUFFERS ? 0 : c->ds.stage + 1;
    ptx_mbarrier_wait(&smem->ds_full[c->ds.stage], c->ds.parity);
    store_ds(c, smem->ds[buffer]);
    ptx_fence_proxy_async_shared();
    if (threadIdx.x == 128) {
        smem->dq_place[buffer] = dq_place_of(tile);
    }
    release(&smem->ds_full[buffer]);
}

/* Of this warp's part of the dQ at hand. */
SAC_FN dq_target own_target(const consumer *c) {
    const int row_group = DQ_BY_ROWS ? threadIdx.x / 32 - 4 : threadIdx.x / 32 % 4;
    const int column_group = DQ_BY_ROWS ? 0 : (threadIdx.x / 128 - 1) * (DQ_COLUMNS / SAC_SUM_COLUMNS);
    return dq_target_of(c, &c->smem->dq_place[c->ds.stage], row_group, column_group);
}
#endif

#if !BY_QUERY
#if CUTS_TAIL
/* A part of a cut tile leaves its dK and dV in memory; the last to arrive takes the sums of all of them back. Does this
 * warpgroup store its keys? */
SAC_FN int merge_parts(consumer *c) {
    const sac_tail_split *tail = &c->params->tail;
    const key_tile *own = left_keys(c);
    const int at = own->cut * CONSUMERS + c->warpgroup, stride = 128;
    if (warp_has(own->cut < 0)) return 1;
    float *first = tail->partial + (int64_t)at * tail->parts * PART_VALUES * stride + threadIdx.x % 128;
    float *mine = first + own->part * PART_VALUES * stride;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; i++) mine[i * stride] = c->dk[i], c->dk[i] = 0;
#pragma unroll
    for (int i = 0; i < HEAD_DIM_V / 2; i++) mine[(HEAD_DIM / 2 + i) * stride] = c->dv[i], c->dv[i] = 0;
    if (!is_last_part(tail, at, 1 + c->warpgroup, &c->smem->parts_done[c->warpgroup])) return 0;
#pragma unroll 1
    for (int part = 0; part < tail->parts; part++) {
        const float *from = first + part * PART_VALUES * stride;
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 2; i++) c->dk[i] += __ldcg(from + i * stride);
#pragma unroll
        for (int i = 0; i < HEAD_DIM_V / 2; i++) c->dv[i] += __ldcg(from + (HEAD_DIM / 2 + i) * stride);
    }
    return 1;
}
#endif

/* dK or dV: the rows of this warp's keys. */
SAC_FN void store_keys(const consumer *c, const float *acc, int columns, const sac_view *view,
                       int64_t part_stride, float scale) {
    const sac_lengths *len = &c->params->args.len_k;
    const key_tile *own = left_keys(c);
    const int32_t b = own->batch, first = row_of(len, b);
    if (!view->data) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int32_t row = own->keys.begin + first_line() + 8 * r;
        uint16_t *to = (uint16_t *)view->data + own->part * part_stride +
                       batch_of(len, b) * view->batch_stride + own->head * view->head_stride +
                       (int64_t)(first + row) * view->row_stride;
        store_sums(to, acc, columns, r, scale, row < own->keys.end);
    }
}

#if PACK
/* Or added to those of the other stretches of the queries; its keys begin with a group of rows. */
SAC_FN void add_keys(const consumer *c, const float *acc, int columns, float *sums) {
    const key_tile *own = left_keys(c);
    const int64_t first =
        own->head * c->params->key_sum_rows + sac_sum_row(&c->params->args.len_k, own->batch);
    const int groups = (columns + SAC_SUM_COLUMNS - 1) / SAC_SUM_COLUMNS,
              size = SAC_SUM_ROWS * SAC_SUM_COLUMNS;
    const int32_t key = own->keys.begin + first_line();
    const int there[2] = {key < own->keys.end, key + 8 < own->keys.end};
    float *to = sums + (first + key) / SAC_SUM_ROWS * groups * size + lane_id() * 4;
    if (!there[0]) return;
#pragma unroll
    for (int j = 0; j < groups; j++) {
        const float *x = acc + 4 * j;
        ptx_add_f32x4(to + j * size, x[0], x[1], there[1] ? x[2] : 0, there[1] ? x[3] : 0);
    }
}
#endif

/* dK or dV of the CTA's keys; with PACK they may be a stretch of the queries' share of sum. */
SAC_FN void leave_gradient(const consumer *c, const float *acc, int columns, const sac_view *view,
                           int64_t part_stride, float scale, float *sum) {
#if PACK
    if (sum) {
        add_keys(c, acc, columns, sum);
        return;
    }
#endif
    store_keys(c, acc, columns, view, part_stride, scale);
}
SAC_FN void store_dk(const consumer *c) {
    const sac_attn_bwd_sm90_params *params = c->params;
    leave_gradient(c, c->dk, HEAD_DIM, &params->args.dk, params->dk_part_stride, params->args.scale,
                   params->dk_sum);
}
SAC_FN void store_dv(const consumer *c) {
    const sac_attn_bwd_sm90_params *params = c->params;
    leave_gradient(c, c->dv, HEAD_DIM_V, &params->args.dv, params->dv_part_stride, 1, params->dv_sum);
}
#endif

#endif
