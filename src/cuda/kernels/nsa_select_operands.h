/* nsa_select_operands.h - rows and keys in shared memory, and their product. Its accumulators lie alike either way: a
 * warp has 16 rows.
 *
 *   WARPGROUP 1   sm_90a, 64 rows and 64 keys of 16 bits: four warps multiply together, straight from shared memory
 *   WARPGROUP 0   any GPU: each warp loads fragments (tile.h)
 */
#ifndef SAC_KERNELS_NSA_SELECT_OPERANDS_H
#define SAC_KERNELS_NSA_SELECT_OPERANDS_H

#include "cuda/kernels/tile.h"

enum {
    D_PADDED = round_up(HEAD_DIM, 16),
    TERMS = MEANS && DTYPE != 0 ? 3 : 1,
    ST = KV_TILE / 8,
    CHUNK = 16 / sizeof(element),
    CHUNKS = D_PADDED / CHUNK,
    /* A thread copies the same columns of every n-th row. */
    LANES_A_ROW = CHUNKS < 32 ? power_of_two_above(CHUNKS) : 32,
    ROWS_AT_ONCE = NUM_THREADS / LANES_A_ROW,
};
typedef float score_acc[1][ST][4];

#if WARPGROUP
#include "cuda/kernels/ptx/fence.h"
#include "cuda/kernels/ptx/wgmma.h"

enum { OPERAND_ALIGNMENT = 1024, PANEL = 64, PANEL_ROW_BYTES = 128 };
static_assert(Q_TILE == 64 && KV_TILE == 64, "one product of a warpgroup");

SAC_FN constexpr int operand_bytes(int rows) {
    return round_up(D_PADDED, PANEL) / PANEL * rows * PANEL_ROW_BYTES;
}

/* Where an element lies in a tile of `rows` rows, bytes: as ptx/wgmma.h has it, K-major. */
SAC_FN int operand_at(int rows, int row, int column) {
    return (column / PANEL * rows + row) * PANEL_ROW_BYTES + (column % PANEL * 2 ^ row % 8 * 16);
}

#if DTYPE == 1
PTX_WGMMA_SS(scores_set, KV_TILE, "f16", PTX_WGMMA_SET)
PTX_WGMMA_SS(scores_add, KV_TILE, "f16", PTX_WGMMA_ADD)
#else
PTX_WGMMA_SS(scores_set, KV_TILE, "bf16", PTX_WGMMA_SET)
PTX_WGMMA_SS(scores_add, KV_TILE, "bf16", PTX_WGMMA_ADD)
#endif

SAC_FN void multiply(score_acc &s, ptx_smem rows, ptx_smem keys) {
    float *d = &s[0][0][0];
    const uint64_t k = ptx_wgmma_desc_k_major(keys);
    ptx_wgmma_pin(d, 4 * ST);
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < TERMS * D_PADDED / 16; i++) {
        const int term = i / (D_PADDED / 16), step = i % (D_PADDED / 16), panel = step / 4,
                  bytes = step % 4 * 32;
        const uint64_t a = ptx_wgmma_desc_k_major(rows + term * operand_bytes(Q_TILE));
        const uint64_t a_step = ptx_wgmma_desc_advance(a, panel * Q_TILE * PANEL_ROW_BYTES + bytes);
        const uint64_t k_step = ptx_wgmma_desc_advance(k, panel * KV_TILE * PANEL_ROW_BYTES + bytes);
        if (i == 0)
            scores_set(d, a_step, k_step);
        else
            scores_add(d, a_step, k_step);
    }
    ptx_wgmma_commit();
    ptx_wgmma_wait(0);
    ptx_wgmma_pin(d, 4 * ST);
}

/* What this thread has copied or stored is there for the products of all, once all threads have passed. */
SAC_FN void operands_arrive(void) {
    ptx_cp_async_wait();
    ptx_fence_proxy_async_shared();
    __syncthreads();
}
#else
enum { OPERAND_ALIGNMENT = 16, D_PITCH = pitch_of(D_PADDED) };

SAC_FN constexpr int operand_bytes(int rows) { return tile_bytes(rows, D_PADDED); }

SAC_FN int operand_at(int, int row, int column) { return (row * D_PITCH + column) * (int)sizeof(element); }

SAC_FN void multiply(score_acc &s, ptx_smem rows, ptx_smem keys) {
    const ptx_smem a =
        rows + operand_at(Q_TILE, threadIdx.x / 32 * 16, 0) + lane_offset_a<K_INNER, D_PITCH>();
    const ptx_smem b = keys + lane_offset_b<K_INNER, D_PITCH>();
    acc_clear(s);
#pragma unroll 1
    for (int term = 0; term < TERMS; term++)
        gemm<K_INNER, D_PITCH, K_INNER, D_PITCH, D_PADDED / 16>(s, a + term * operand_bytes(Q_TILE), b);
}

SAC_FN void operands_arrive(void) {
    ptx_cp_async_wait();
    __syncthreads();
}
#endif

/* Starts copying this thread's chunks of a row from its first element on; zeros where it is not present. */
template <int ROWS> SAC_FN void load_row(ptx_smem to, int row, const element *from, bool present) {
#pragma unroll
    for (int first = 0; first < CHUNKS; first += LANES_A_ROW) {
        const int chunk = first + threadIdx.x % LANES_A_ROW, column = chunk * CHUNK;
        if (chunk < CHUNKS)
            chunk_load(to + operand_at(ROWS, row, column), from + column, present && column < HEAD_DIM);
    }
}

/* Rows [0, num_rows), row_stride elements apart, of HEAD_DIM columns; what the source lacks becomes 0. */
template <int ROWS>
SAC_FN void load_operand(ptx_smem to, const element *from, int64_t row_stride, int32_t num_rows) {
    const int first = threadIdx.x / LANES_A_ROW;
    from += first * row_stride;
#pragma unroll
    for (int row = 0; row < ROWS; row += ROWS_AT_ONCE, from += ROWS_AT_ONCE * row_stride)
        if (first + row < ROWS) load_row<ROWS>(to, first + row, from, first + row < num_rows);
}

#endif
