/* mask_write.cu - the entries of each row, and a bit for each in its column. One warp, one row. */
#include "cuda/kernels/mask_args.h"
#include "cuda/kernels/warp.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_write(const __grid_constant__ sac_mask_args args) {
    const int64_t index = warp_index();
    if (index >= (int64_t)args.batch * args.num_heads * args.rows) return;
    const int64_t begin = args.row_offsets[index];
    if (begin == args.row_offsets[index + 1])
        return; /* nothing, or a mask that is wrong: do not look at it */
    const sac_listed_row row = sac_listed_row_of(&args, index);
    uint32_t *seen = args.seen + sac_mask_group(&args, &row);
    int32_t *to = args.row_entries + begin;
    for (int32_t i = lane_index(); i - lane_index() < row.candidates; i += LANES) {
        const int32_t entry = i < row.candidates ? sac_mask_candidate(&args, &row, i) : 0;
        const uint32_t listed = __ballot_sync(ALL_LANES, entry != 0);
        if (entry) {
            to[lanes_before(listed)] = entry;
            atomicOr(&seen[SAC_ENTRY_INDEX(entry)], 1u << row.row % SAC_ROWS_A_GROUP);
        }
        to += __popc(listed);
    }
}
