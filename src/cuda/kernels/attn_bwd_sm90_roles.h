/* attn_bwd_sm90_roles.h - where dK and dV of 128 keys are too many registers: both warpgroups have the same 64 keys,
 * the first makes P and dV, the second dS and dK. P, or what it is made of, crosses through shared memory. Included
 * by attn_bwd_sm90.cu. */
#ifndef SAC_ATTN_BWD_SM90_ROLES_H
#define SAC_ATTN_BWD_SM90_ROLES_H

/* Words that a thread of the second warpgroup gets from its counterpart in the first, which waits until they were read
 * P_BUFFERS tiles ago. */
SAC_FN void put_words(consumer *c, const uint32_t *words) {
    smem_layout *smem = c->smem;
    const uint32_t buffer = c->p_ring.stage;
    ptx_mbarrier_wait(&smem->p_empty[buffer], c->p_ring.parity ^ 1);
#pragma unroll
    for (int i = 0; i < P_WORDS; i += 4)
        smem->p[buffer][i / 4][threadIdx.x % 128] =
            make_uint4(words[i], words[i + 1], words[i + 2], words[i + 3]);
    release(&smem->p_full[buffer]);
    ring_next(&c->p_ring, P_BUFFERS);
}

SAC_FN void take_words(consumer *c, uint32_t *words) {
    smem_layout *smem = c->smem;
    const uint32_t buffer = c->p_ring.stage;
    ptx_mbarrier_wait(&smem->p_full[buffer], c->p_ring.parity);
#pragma unroll
    for (int i = 0; i < P_WORDS; i += 4) {
        const uint4 four = smem->p[buffer][i / 4][threadIdx.x % 128];
        words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
    }
    release(&smem->p_empty[buffer]);
    ring_next(&c->p_ring, P_BUFFERS);
}

#if KEEPS_PRODUCT
/* The products themselves cross, and both warpgroups modify them. */
SAC_FN void make_p(consumer *c, const q_record *tile, const pair_bits *seen, int masked) {
    const score_tile t = score_tile_of(c, tile);
    uint32_t words[P_WORDS];
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i++) words[i] = (uint32_t)__float_as_int(c->s[i]);
    put_words(c, words);
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i += 2) {
        const float2 l = lse_at(c, i);
        c->p[i / 2] =
            pack(probability(c, &t, seen, i, masked, l.x), probability(c, &t, seen, i + 1, masked, l.y));
    }
}

SAC_FN void make_ds(consumer *c, const q_record *tile, const pair_bits *seen, int masked) {
    uint32_t words[P_WORDS];
    take_words(c, words);
#pragma unroll
    for (int i = 0; i < Q_TILE / 2; i++) c->s[i] = __int_as_float((int)words[i]);
    score_grads(c, tile, seen, masked);
}
#else
/* P crosses, packed, times the slope of the softcap. A hidden pair, which has none, has no gradient either, whatever
 * its dP is. */
SAC_FN void make_p(consumer *c, const q_record *tile, const pair_bits *seen, int masked) {
    uint32_t words[P_WORDS];
    prepare_scores(c, tile, seen);
    probabilities(c);
#pragma unroll
    for (int i = 0; i < P_WORDS; i++) words[i] = SOFTCAP ? pack(c->s[2 * i], c->s[2 * i + 1]) : c->p[i];
    put_words(c, words);
}

SAC_FN void make_ds(consumer *c, const q_record *tile, const pair_bits *seen, int masked) {
    uint32_t words[P_WORDS];
    take_words(c, words);
#pragma unroll
    for (int i = 0; i < P_WORDS; i++) {
        const float2 p = unpack(words[i]);
        c->ds_packed[i] = pack(p.x * c->dp[2 * i], p.y * c->dp[2 * i + 1]);
    }
    if (!hides_unfinite(c)) return;
#pragma unroll
    for (int i = 0; i < P_WORDS; i++) c->ds_packed[i] = without_weightless(c->ds_packed[i], words[i]);
}
#endif

SAC_FN void add_to_dv(consumer *c, const q_record *tile, int masked) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage;
    issue_s(c);
    const pair_bits seen = visible_pairs(c, tile, (KEEPS_PRODUCT || MASK_MOD) && hides_some(c));
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->s, Q_TILE / 2);
    make_p(c, tile, &seen, masked);
    ptx_mbarrier_wait(&smem->dout_full[stage], c->q.parity);
    issue_dv(c);
    release(&smem->q_empty[stage]);
    meet_next(c, 1);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->dv, HEAD_DIM_V / 2);
    release(&smem->dout_empty[stage]);
}

SAC_FN void add_to_dk(consumer *c, const q_record *tile, int masked) {
    smem_layout *smem = c->smem;
    const uint32_t stage = c->q.stage;
    ptx_mbarrier_wait(&smem->dout_full[stage], c->q.parity);
    issue_dp(c);
    const pair_bits seen = visible_pairs(c, tile, (KEEPS_PRODUCT || MASK_MOD) && hides_some(c));
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->dp, Q_TILE / 2);
    make_ds(c, tile, &seen, masked);
    release(&smem->dout_empty[stage]);
    issue_dk(c);
    meet_next(c, 1);
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->dk, HEAD_DIM / 2);
    release(&smem->q_empty[stage]);
}

#endif
