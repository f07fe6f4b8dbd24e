/* nsa_join.cu - parts of dk_cmp and dv_cmp to the whole, in their order, in fp32. A thread takes eight elements.
 * Grid: those of both sides, ceil each to whole CTAs, keys first. Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED
 * NUM_THREADS. */
#include "cuda/kernels/row_chunk.h"
#include "cuda/kernels/nsa_work.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_join(const __grid_constant__ sac_nsa_join keys, const __grid_constant__ sac_nsa_join values,
             int64_t key_ctas, int32_t parts) {
    const bool of_keys = blockIdx.x < key_ctas;
    const sac_nsa_join *side = of_keys ? &keys : &values;
    const int64_t cta = of_keys ? blockIdx.x : blockIdx.x - key_ctas;
    const int64_t at = (cta * NUM_THREADS + threadIdx.x) * CHUNK;
    if (at >= side->size) return;
    element *first = (element *)side->data + at;
    chunk sum = chunk_load(first);
    for (int32_t part = 1; part < parts; part++) {
        const chunk more = chunk_load(first + part * side->size);
        chunk_add(&sum, 1, &more);
    }
    chunk_store(first, &sum);
}
