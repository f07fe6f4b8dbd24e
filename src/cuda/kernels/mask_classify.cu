/* mask_classify.cu - the kind of every block, by asking its mask_mod. One warp, one block; a lane asks about its own
 * key for one query after the other, so that what the mask_mod reads by key stays in registers. */
#include <modifiers.h>

#include "cuda/kernels/mask_args.h"
#include "cuda/kernels/warp.h"

/* Queries asked about between two looks at whether the block is known to be PARTIAL. */
enum { QUERIES_A_LOOK = 16 };

static __device__ int32_t classify(const saccade_aux *aux, const sac_listed_row *row, sac_range q,
                                   sac_range k) {
    bool some = false, every = true;
    for (int32_t j = k.begin; j < k.end; j += LANES) {
        const int32_t kv_idx = j + lane_index();
        for (int32_t begin = q.begin; begin < q.end; begin += QUERIES_A_LOOK) {
            const int32_t end = sac_min(begin + QUERIES_A_LOOK, q.end);
            if (kv_idx < k.end) {
#pragma unroll 4
                for (int32_t i = begin; i < end; i++) {
                    const bool visible = sac_mask_mod(row->b, row->h, i, kv_idx, aux);
                    some |= visible;
                    every &= visible;
                }
            }
            if (__any_sync(ALL_LANES, some) && !__all_sync(ALL_LANES, every)) return SAC_PARTIAL;
        }
    }
    return __any_sync(ALL_LANES, some) ? SAC_FULL : SAC_NONE;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_classify(const __grid_constant__ sac_mask_args args, const __grid_constant__ saccade_aux aux) {
    const int64_t block = warp_index(), rows = (int64_t)args.batch * args.num_heads * args.rows;
    if (block >= rows * args.columns) return;
    const sac_listed_row row = sac_listed_row_of(&args, block / args.columns);
    const int32_t column = (int32_t)(block % args.columns);
    sac_range k = {column * args.kv_block, sac_min(args.kv_len - column * args.kv_block, args.kv_block)};
    k.end += k.begin;
    const int32_t kind = classify(&aux, &row, sac_mask_row_queries(&args, row.row), k);
    const int64_t words = sac_ceil_div(args.columns, SAC_KINDS_A_WORD);
    if (lane_index() == 0 && kind)
        atomicOr(&args.kinds[row.index * words + column / SAC_KINDS_A_WORD],
                 (uint32_t)kind << 2 * (column % SAC_KINDS_A_WORD));
}
