/* mask_tiles.cu - asks a mask_mod that is the same for every head, once for all of them, which tiles it hides, and
 * which it leaves whole. One warp, one tile; a lane asks about its own key for one query after the other. */
#include <modifiers.h>

#include "cuda/kernels/mask_tiles.h"
#include "cuda/kernels/warp.h"
#include "shared/tile_walk.h"

/* Queries asked about between two looks at whether the tile is known to be PARTIAL. */
enum { QUERIES_A_LOOK = 16 };

static __device__ int32_t classify(const saccade_aux *aux, const sac_band *band, int32_t b, sac_range q,
                                   sac_range k) {
    bool some = false, every = true;
    for (int32_t first = k.begin; first < k.end; first += LANES) {
        const int32_t kv_idx = first + lane_index();
        const sac_range key = {kv_idx, kv_idx + 1};
        sac_range seeing = sac_band_queries_any(band, key);
        if (kv_idx >= k.end) seeing.end = seeing.begin;
        for (int32_t begin = q.begin; begin < q.end; begin += QUERIES_A_LOOK) {
            const int32_t low = sac_max(begin, seeing.begin);
            const int32_t end = sac_min(sac_min(begin + QUERIES_A_LOOK, q.end), seeing.end);
#pragma unroll 4
            for (int32_t i = low; i < end; i++) {
                const bool visible = sac_mask_mod(b, 0, i, kv_idx, aux);
                some |= visible;
                every &= visible;
            }
            if (__any_sync(ALL_LANES, some) && !__all_sync(ALL_LANES, every)) return SAC_PARTIAL;
        }
    }
    return __any_sync(ALL_LANES, some) ? SAC_FULL : SAC_NONE;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_tiles(const __grid_constant__ sac_attention_args args,
               const __grid_constant__ sac_mask_tiles tiles) {
    const int64_t index = warp_index();
    const int32_t kv_tile = (int32_t)(index % tiles.kv_tiles);
    const int64_t row = index / tiles.kv_tiles;
    const int32_t b = (int32_t)(row / tiles.q_tiles);
    if (b >= args.batch) return;
    const sac_sequence sequence = sac_sequence_of(&args, b);
    const sac_band band = sac_band_make(&args.band, sequence.q_len, sequence.k_len);
    const int32_t rows = sac_rows_of(&args.len_q, b), q_tile = (int32_t)(row % tiles.q_tiles);
    sac_range q = sac_tile_rows_short_first(q_tile, rows, tiles.q_tile);
    q.end = sac_min(q.end, sequence.q_len);
    if (q.begin >= q.end) return;
    const sac_range any = sac_band_keys_any(&band, q);
    const int32_t begin = any.begin + kv_tile * tiles.kv_tile;
    const sac_range k = {begin, sac_min(begin + tiles.kv_tile, any.end)};
    const int32_t kind = classify(&args.mask_aux, &band, b, q, k);
    if (lane_index() == 0) tiles.kinds[index] = (uint8_t)kind;
}
