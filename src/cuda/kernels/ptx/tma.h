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

/* Stores the map's box from shared memory, whose writers have said ptx_fence_proxy_async_shared. What lies outside
 * the tensor is left out. The next two are for the thread that called this. */
SAC_FN void ptx_tma_store(const void *map, const void *from, int32_t column, int32_t row, int32_t head,
                          int32_t batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
        "r"(ptx_smem_of(from)), "r"(column), "r"(row), "r"(head), "r"(batch)
        : "memory");
}
SAC_FN void ptx_tma_store_commit(void) { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/* Until what was committed has been read: it may be overwritten. */
SAC_FN void ptx_tma_store_wait_read(void) { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

#endif
