/* pack.h - heads of a group that share a tile of queries, so that their keys are read once (PACK).
 *
 * Where a head has few queries, or a block mask confines a tile to few, neighbouring heads that walk the same keys fill
 * it up: row r is query r / pack of head r % pack, counted from the tile's first of each, and plan.pack says how many
 * heads there are. Without PACK it is 1, and costs nothing.
 */
#ifndef SAC_KERNELS_PACK_H
#define SAC_KERNELS_PACK_H

#include "cuda/kernels/portable_plan.h"
#include "cuda/kernels/tile.h"

SAC_FN int32_t heads_of_tile(const sac_portable_plan *plan) { return PACK ? plan->pack : 1; }
SAC_FN int32_t query_of_row(const sac_portable_plan *plan, int row) {
    return PACK ? row * plan->pack_inverse >> 16 : row;
}
SAC_FN int32_t head_of_row(const sac_portable_plan *plan, int row) {
    return PACK ? row - query_of_row(plan, row) * plan->pack : 0;
}

/* Queries that a tile of so many rows has room for. */
SAC_FN int32_t queries_of_tile(const sac_portable_plan *plan, int rows) {
    return PACK ? query_of_row(plan, rows) : rows;
}

/* As tile_load, from the first query of the first head on; num_rows counts those of all heads. */
template <int ROWS, int COLS, int PADDED>
SAC_FN void pack_load(ptx_smem tile, const element *from, const sac_view *view, const sac_portable_plan *plan,
                      int num_rows) {
#if PACK
    constexpr int CHUNK = 16 / sizeof(element), CHUNKS = PADDED / CHUNK;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += NUM_THREADS) {
        const int row = i / CHUNKS, column = i % CHUNKS * CHUNK;
        const bool present = row < num_rows && column < COLS;
        const element *at = from + query_of_row(plan, row) * view->row_stride +
                            head_of_row(plan, row) * view->head_stride + column;
        chunk_load(tile + (row * pitch_of(PADDED) + column) * sizeof(element), present ? at : from, present);
    }
#else
    tile_load<ROWS, COLS, PADDED>(tile, from, view->row_stride, num_rows);
#endif
}

#endif
