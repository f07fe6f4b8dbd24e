/* ptx/tma.h - the bulk tensor copy engine, sm_90. */
#ifndef SAC_PTX_TMA_H
#define SAC_PTX_TMA_H

#include "cuda/kernels/ptx/mbarrier.h"

static __device__ __forceinline__ void tma_prefetch_map(const void *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Loads the map's box at (column, row, head, batch), completing on the barrier. Call from one thread. What lies
 * outside the tensor arrives as zeros and counts towards the announced bytes. */
static __device__ __forceinline__ void tma_load(void *smem, const void *map, uint64_t *barrier, int32_t column,
                                                int32_t row, int32_t head, int32_t batch) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(smem_address(smem)),
                 "l"(map), "r"(smem_address(barrier)), "r"(column), "r"(row), "r"(head), "r"(batch)
                 : "memory");
}

#endif
