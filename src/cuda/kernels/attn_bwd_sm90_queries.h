/* attn_bwd_sm90_queries.h - where blocks of keys have no 128 keys to share: both warpgroups have the same 64 keys,
 * and each walks every other query tile. They meet only at the end, when their dK and dV are added. dQ needs nobody
 * else's dS, so that it is not late; it leaves in halves, whose registers are free while other products run. Included
 * by attn_bwd_sm90.cu. */
#ifndef SAC_ATTN_BWD_SM90_QUERIES_H
#define SAC_ATTN_BWD_SM90_QUERIES_H

#if SUM_DQ
/* A buffer comes back after two turns of this warpgroup: whoever has met the others in between knows that their
 * products with what was in it are over. */
SAC_FN void share_ds(consumer *c) {
    store_ds(c, c->smem->ds[c->q.stage]);
    ptx_fence_proxy_async_shared();
    ptx_barrier_sync(1 + c->warpgroup, 128);
}

SAC_FN void add_half_dq(consumer *c, const q_record *tile, int half) {
    const dq_place place = dq_place_of(tile);
    const dq_target target =
        dq_target_of(c, &place, threadIdx.x / 32 % 4, half * (DQ_COLUMNS / SAC_SUM_COLUMNS));
    ptx_wgmma_pin(c->dq, DQ_COLUMNS / 2);
    add_dq_columns(c, &target, DQ_COLUMNS);
}
#endif

/* dq needs no care: keys were looked through before. */
SAC_FN void finish_by_hand(consumer *c, const q_record *tile) {
    multiply_by_hand(c);
#if SUM_DQ
    share_ds(c);
#pragma unroll
    for (int half = 0; half < PANELS; half++) {
        issue_dq(c, c->smem->ds[c->q.stage], half);
        ptx_wgmma_wait(0);
        add_half_dq(c, tile, half);
    }
#endif
    release_queries(c);
    meet_next(c, CONSUMERS);
}

SAC_FN void attend(consumer *c, const q_record *tile, int masked) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage;
    if (warp_has(make_gradients(c, tile, masked))) {
        finish_by_hand(c, tile);
        return;
    }
#if SUM_DQ
    share_ds(c);
    issue_dq(c, smem->ds[stage], 0);
#endif
    issue_dv(c);
#if SUM_DQ
    ptx_wgmma_wait(1);
    add_half_dq(c, tile, 0);
    if (PANELS > 1) issue_dq(c, smem->ds[stage], 1);
#endif
    issue_dk(c);
    ptx_wgmma_wait(1);
    ptx_wgmma_pin(c->dv, HEAD_DIM_V / 2);
    release(&smem->dout_empty[stage]);
#if SUM_DQ
    if (PANELS > 1) add_half_dq(c, tile, 1);
#endif
    meet_next(c, CONSUMERS);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->dk, HEAD_DIM / 2);
    release(&smem->q_empty[stage]);
}

/* This warpgroup's sums for the other one, in shared memory that no query needs any more. */
SAC_FN void give_sums(const float *sums, int columns, uint8_t *to) {
#pragma unroll
    for (int i = 0; i < columns / 2; i += 4)
        ((float4 *)to)[i / 4 * 128 + threadIdx.x % 128] =
            make_float4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]);
}
SAC_FN void take_sums(float *sums, int columns, const uint8_t *from) {
#pragma unroll
    for (int i = 0; i < columns / 2; i += 4) {
        const float4 other = ((const float4 *)from)[i / 4 * 128 + threadIdx.x % 128];
        sums[i] += other.x, sums[i + 1] += other.y, sums[i + 2] += other.z, sums[i + 3] += other.w;
    }
}

/* The first warpgroup stores dV, the second dK. */
SAC_FN void store_joined(consumer *c) {
    smem_layout *smem = c->smem;
    const int first = warp_has(c->warpgroup == 0);
    ptx_barrier_sync(CTA_BARRIER, 128 * CONSUMERS);
    if (first)
        give_sums(c->dk, HEAD_DIM, smem->q[0]);
    else
        give_sums(c->dv, HEAD_DIM_V, smem->dout[0]);
    ptx_barrier_sync(CTA_BARRIER, 128 * CONSUMERS);
    if (first) {
        take_sums(c->dv, HEAD_DIM_V, smem->dout[0]);
        store_dv(c);
    } else {
        take_sums(c->dk, HEAD_DIM, smem->q[0]);
        store_dk(c);
    }
}

#endif
