/* ptx/tma.h - the bulk tensor copy engine, sm_90. */
#ifndef SAC_PTX_TMA_H
#define SAC_PTX_TMA_H

#include "cuda/kernels/ptx/shared_memory.h"

/* Loads the map's box at (column, row, head, batch), completing on the barrier. Call from one thread. What lies
 * outside the tensor arrives as zeros and counts towards the announced bytes. */
SAC_FN void ptx_tma_load(void *to, const void *map, uint64_t *barrier, int32_t column, int32_t row,
                         int32_t head, int32_t batch) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(ptx_smem_of(to)),
                 "l"(map), "r"(ptx_smem_of(barrier)), "r"(column), "r"(row), "r"(head), "r"(batch)
                 : "memory");
}

#endif
