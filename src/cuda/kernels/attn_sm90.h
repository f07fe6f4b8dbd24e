/* attn_sm90.h - what the Hopper attention kernels share: how their tiles lie in shared memory and arrive there, rings
 * of buffers, rows of a sequence, and how accumulators become rows in memory.
 *
 * Needs from a variant: DTYPE; RAGGED, lengths come from device memory. */
#ifndef SAC_ATTN_SM90_H
#define SAC_ATTN_SM90_H

#include "cuda/kernels/ptx/convert.h"
#include "cuda/kernels/ptx/fence.h"
#include "cuda/kernels/ptx/global_memory.h"
#include "cuda/kernels/ptx/mbarrier.h"
#include "cuda/kernels/ptx/tma.h"
#include "cuda/kernels/tail_split.h"
#include "cuda/kernels/tensor_map.h"
#include "shared/attention_args.h"

#define ROW_BYTES 128 /* of a panel: 64 columns */
#define PANELS_OF(columns) (((columns) + 63) / 64)
#define MINUS_INF __int_as_float(0xff800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)
#define LOG2_E 1.44269504088896340736f
#define LN_2 0.69314718055994530942f

#if DTYPE == 2
#define INPUT_TYPE "bf16"
#define pack ptx_pack_bf16
#define unpack ptx_unpack_bf16
#define fma_pair ptx_fma_bf16x2
#define nonzero_pair ptx_nonzero_bf16x2
#define mma_warp ptx_mma_bf16
#else
#define INPUT_TYPE "f16"
#define pack ptx_pack_f16
#define unpack ptx_unpack_f16
#define fma_pair ptx_fma_f16x2
#define nonzero_pair ptx_nonzero_f16x2
#define mma_warp ptx_mma_f16
#endif

SAC_FN int lane_id(void) { return threadIdx.x % 32; }

/* A condition on which all lanes agree, said in a way that keeps the branch uniform. */
SAC_FN int warp_has(int condition) { return __any_sync(~0u, condition); }

/* A position in a ring of buffers; parity flips with every turn. */
typedef struct ring {
    uint32_t stage, parity;
} ring;
SAC_FN void ring_next(ring *r, uint32_t stages) {
    if (++r->stage == stages) {
        r->stage = 0;
        r->parity ^= 1;
    }
}
/* So many positions further on, at most a turn: a whole one leaves the stage as it is, and the compiler may know it. */
SAC_FN void ring_skip(ring *r, uint32_t count, uint32_t stages) {
    const int wraps = count == stages || r->stage + count >= stages;
    if (count < stages) r->stage = r->stage + count - (wraps ? stages : 0);
    r->parity ^= wraps;
}

/* A warp is done with a buffer: all its lanes have read, or written, and one arrives for them. */
SAC_FN void release(uint64_t *barrier) {
    __syncwarp();
    if (lane_id() == 0) ptx_mbarrier_arrive(barrier);
}

/* The threads of a warpgroup have left their part of the at-th tile and consumer: was it the last? barrier: of this
 * warpgroup alone; word: of shared memory. */
SAC_FN int is_last_part(const sac_tail_split *tail, int at, uint32_t barrier, uint32_t *word) {
    __threadfence();
    ptx_barrier_sync(barrier, 128);
    if (threadIdx.x % 128 == 0) {
        *word = atomicAdd(&tail->arrived[at], 1);
        __threadfence();
    }
    ptx_barrier_sync(barrier, 128);
    return warp_has(*word == tail->parts - 1);
}

/* Loads a tile, announced before: one box for each panel of 64 columns. */
SAC_FN void load_tile(uint8_t *to, const sac_tensor_map *map, uint64_t *full, int rows, int panels,
                      int32_t row, int32_t head, int32_t batch) {
    for (int p = 0; p < panels; p++)
        ptx_tma_load(to + p * rows * ROW_BYTES, map, full, p * 64, row, head, batch);
}

/* Where 16 bytes of a row lie: the copy engine swaps them within their 128. */
SAC_FN const uint8_t *chunk_of(const uint8_t *tile, int rows, int row, int chunk) {
    return tile + (chunk / 8 * rows + row) * ROW_BYTES + ((chunk ^ row) % 8) * 16;
}

/* Clears a tile's rows from `first` on. Behind a sequence's last row may lie anything, and 0 times NaN is NaN: every
 * consumer warpgroup clears those rows for itself. Where lengths are the tensor's own, the copy engine has written
 * zeros. */
SAC_FN void clear_rows(uint8_t *tile, int first, int rows, int panels) {
#pragma unroll 1
    for (int row = first + threadIdx.x % 128 / 8; row < rows; row += 16)
        for (int panel = 0; panel < panels; panel++)
            *(uint4 *)(tile + (panel * rows + row) * ROW_BYTES + threadIdx.x % 8 * 16) =
                make_uint4(0, 0, 0, 0);
    ptx_fence_proxy_async_shared();
    ptx_barrier_sync(threadIdx.x / 128, 128);
}

SAC_FN sac_sequence sequence_of(const sac_attention_args *args, int32_t b) {
    const sac_sequence whole = {0, 0, args->len_q.seqlen, args->len_k.seqlen};
    return RAGGED ? sac_sequence_of(args, b) : whole;
}

/* Where sequence b starts in the tensors of one side: its row and its batch coordinate. */
SAC_FN int32_t batch_of(const sac_lengths *len, int32_t b) { return RAGGED && len->cu_seqlens ? 0 : b; }
SAC_FN int32_t row_of(const sac_lengths *len, int32_t b) {
    return RAGGED && len->cu_seqlens ? len->cu_seqlens[b] : 0;
}

/* Lane i of a quad holds word i of 4 chunks; afterwards it holds the 4 words of chunk i. */
SAC_FN void quad_transpose(uint32_t w[4]) {
    const int lane = lane_id();
#pragma unroll
    for (int x = 1; x <= 2; x *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & x) continue;
            const uint32_t kept = lane & x ? w[i + x] : w[i];
            const uint32_t got = __shfl_xor_sync(~0u, lane & x ? w[i] : w[i + x], x);
            w[i] = lane & x ? got : kept;
            w[i + x] = lane & x ? kept : got;
        }
}

/* The factor of a row that saw nothing, which becomes 0, whatever was summed. Not 0 itself: that may be a scale, and
 * leaves NaN as it is. */
#define SAW_NOTHING MINUS_INF

/* Four chunks of 8 columns of a 64-row accumulator, from `chunk` on, in the r-th of this thread's two rows and times
 * factor: each lane of the quad gets one of them, packed. All lanes must come. */
SAC_FN void pack_chunk(uint32_t w[4], const float *sums, int columns, int chunk, int r, float factor) {
    const uint32_t kept = factor == SAW_NOTHING ? 0 : ~0u;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = chunk + i < columns / 8 ? 4 * (chunk + i) + 2 * r : 0;
        w[i] = pack(sums[at] * factor, sums[at + 1] * factor) & kept;
    }
    quad_transpose(w);
}

/* Sums of a 64-row accumulator, `columns` wide: the r-th of this thread's two rows goes to `to`, times factor, if it is
 * there. All lanes of a quad must come. */
SAC_FN void store_sums(uint16_t *to, const float *sums, int columns, int r, float factor, int there) {
#pragma unroll
    for (int j = 0; j < columns / 8; j += 4) {
        uint32_t w[4];
        pack_chunk(w, sums, columns, j, r, factor);
        const int chunk = j + lane_id() % 4;
        ptx_st_global_u32x4_if(there && chunk < columns / 8, to + 8 * chunk, w[0], w[1], w[2], w[3]);
    }
}

#endif
