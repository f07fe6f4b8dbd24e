/* attn_bwd_sm90_cta.h - a CTA of the kernels that own key tiles: its barriers, and who produces and who consumes. */
#ifndef SAC_ATTN_BWD_SM90_CTA_H
#define SAC_ATTN_BWD_SM90_CTA_H

#include "cuda/kernels/attn_bwd_sm90_order.h"
#include "cuda/kernels/ptx/warpgroup.h"

/* What the including file does with two warpgroups: takes registers, walks the queries that the producer brings, and
 * stores dK and dV. */
SAC_FN void consume(const sac_attn_bwd_sm90_params *params, smem_layout *smem);

/* One arrival a warp, where all have read, or written. */
SAC_FN void init_barriers(smem_layout *smem) {
    const uint32_t warps = 4 * CONSUMERS, readers = SPLIT_QUERIES ? 4 : warps;
    ptx_mbarrier_init(&smem->kv_full, 1);
#if STAYS
    ptx_mbarrier_init(&smem->kv_empty, warps);
#endif
    for (int i = 0; i < Q_STAGES; i++) {
        ptx_mbarrier_init(&smem->landed[i], 1);
        ptx_mbarrier_init(&smem->q_full[i], 1);
        ptx_mbarrier_init(&smem->dout_full[i], 1);
        ptx_mbarrier_init(&smem->q_empty[i], readers + ORDERED * KEEPERS);
        ptx_mbarrier_init(&smem->dout_empty[i], readers);
    }
#if BY_QUERY
    ptx_mbarrier_init(&smem->dk_told, 1);
    ptx_mbarrier_init(&smem->p_full, 4);
    ptx_mbarrier_init(&smem->p_empty, 4);
    for (int i = 0; i < DS_BUFFERS; i++) ptx_mbarrier_init(&smem->ds_empty[i], warps);
#elif SPLIT_ROLES
    for (int i = 0; i < P_BUFFERS; i++) {
        ptx_mbarrier_init(&smem->p_full[i], 4);
        ptx_mbarrier_init(&smem->p_empty[i], 4);
    }
#endif
#if DQ_LATE
    for (int i = 0; i < DS_BUFFERS; i++) ptx_mbarrier_init(&smem->ds_full[i], BY_QUERY ? 4 : warps);
    if (!STAYS) smem->dq_place[DS_BUFFERS - 1].row_groups = 0; /* before the first tile */
#endif
#if ORDERED
    for (int i = 0; i < DS_BUFFERS; i++) {
        ptx_mbarrier_init(&smem->dq_turn[i], 1);
        ptx_mbarrier_init(&smem->dq_added[i], warps);
    }
#endif
    ptx_mbarrier_fence_init();
}

SAC_FN void run_cta(const sac_attn_bwd_sm90_params *params) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    smem_layout *smem = (smem_layout *)dynamic_smem;
#if !STAYS
    const key_tile own = key_tile_of(params, blockIdx.x);
    if (own.keys.begin >= own.keys.end) return;
#if PACK
    if (adds_nothing(params, &own)) return;
#endif
    if (threadIdx.x == 0) own_keys(smem, &own);
#endif
    if (threadIdx.x == 0) init_barriers(smem);
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx_give_registers(PRODUCER_REGS);
#if ORDERED
        const int warp = threadIdx.x / 32;
        if (warp_has(warp > 0 && warp <= KEEPERS)) {
            keep_order(params, smem, warp);
            return;
        }
#endif
        if (threadIdx.x < 32 * PRODUCER_WARPS) produce(params, smem);
    } else {
        consume(params, smem);
    }
}

#endif
