/* attn_fwd_sm90_products.h - the two products of a key tile, issued and arrived. */
#ifndef SAC_ATTN_FWD_SM90_PRODUCTS_H
#define SAC_ATTN_FWD_SM90_PRODUCTS_H

#include "cuda/kernels/attn_fwd_sm90_tile.h"
#include "cuda/kernels/ptx/shared_memory.h"
#include "cuda/kernels/ptx/warpgroup.h"
#include "cuda/kernels/ptx/wgmma.h"

#if Q_IN_REGISTERS
PTX_WGMMA_RS(mma_scores_set, KV_TILE, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_RS(mma_scores_add, KV_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
#else
PTX_WGMMA_SS(mma_scores_set, KV_TILE, INPUT_TYPE, PTX_WGMMA_SET)
PTX_WGMMA_SS(mma_scores_add, KV_TILE, INPUT_TYPE, PTX_WGMMA_ADD)
#endif
PTX_WGMMA_RS_MN(mma_values_add, HEAD_DIM_V, INPUT_TYPE, PTX_WGMMA_ADD)

/* take_q: before a query tile's first product. q_step: the operand of the i-th step of 16 columns. */
#if Q_IN_REGISTERS
typedef const uint32_t *q_operand;

/* Lane l says where row l % 16 of its warp's has the columns of l / 16; then q is read, and its slot free. */
SAC_FN void take_q(consumer *c) {
    const uint8_t *slot = c->smem->q[c->q_ring.stage];
    const int row = warp_row() % 64 + lane_id() % 16;
#pragma unroll
    for (int i = 0; i < (HEAD_DIM + 15) / 16; i++)
        ptx_ldmatrix(c->q_rows[i], ptx_smem_of(chunk_of(slot, 64, row, 2 * i + lane_id() / 16)));
    release(&c->smem->q_empty[c->q_ring.stage]);
}
SAC_FN q_operand q_step(const consumer *c, int i) { return c->q_rows[i]; }
#else
typedef uint64_t q_operand;

SAC_FN void take_q(consumer *c) { c->q_rows = ptx_warp_uniform(ptx_smem_of(c->smem->q[c->q_ring.stage])); }
SAC_FN q_operand q_step(const consumer *c, int i) {
    return ptx_wgmma_desc_advance(ptx_wgmma_desc_k_major(c->q_rows), i / 4 * 64 * ROW_BYTES + i % 4 * 32);
}
#endif

/* s = q k^T, asynchronously. */
SAC_FN void issue_scores(consumer *c) {
    uint64_t k = ptx_wgmma_desc_k_major(ptx_smem_of(c->smem->k) + c->k.stage * K_BYTES);
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < (HEAD_DIM + 15) / 16; i++) {
        uint64_t k_step = ptx_wgmma_desc_advance(k, i / 4 * KV_TILE * ROW_BYTES + i % 4 * 32);
        if (i == 0)
            mma_scores_set(c->s, q_step(c, i), k_step);
        else
            mma_scores_add(c->s, q_step(c, i), k_step);
    }
    ptx_wgmma_commit();
}

/* A warp is done with a buffer that its products have read: at the wait for them its lanes have met. The assembler makes
 * a predicate of the arrival behind __syncwarp, and a branch of it alone. Where exponentials are the wall (D 64), the few
 * clocks of a branch let another warp end its own first, which is worth 5 %; elsewhere the predicate is no slower. */
SAC_FN void release_multiplied(uint64_t *barrier) {
    if (HEAD_DIM > 64) __syncwarp();
    if (lane_id() == 0) ptx_mbarrier_arrive(barrier);
}

SAC_FN void scores_arrived(consumer *c) {
    ptx_wgmma_pin(c->s, KV_TILE / 2);
    release_multiplied(&c->smem->k_empty[c->k.stage]);
    ring_next(&c->k, KV_STAGES);
}

SAC_FN void wait_v(consumer *c) { ptx_mbarrier_wait(&c->smem->v_full[c->v.stage], c->v.parity); }

/* out += p v, asynchronously. */
SAC_FN void issue_values(consumer *c, int from) {
    uint64_t v = ptx_wgmma_desc_mn_major(ptx_smem_of(c->smem->v) + c->v.stage * V_BYTES, KV_TILE * ROW_BYTES);
    ptx_wgmma_pin(c->out, HEAD_DIM_V / 2);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KV_TILE / 16; i++)
        mma_values_add(c->out, c->p[from] + 4 * i, ptx_wgmma_desc_advance(v, 16 * i * ROW_BYTES));
    ptx_wgmma_commit();
}
SAC_FN void values_arrived(consumer *c) {
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(c->out, HEAD_DIM_V / 2);
    release_multiplied(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, KV_STAGES);
}

#endif
