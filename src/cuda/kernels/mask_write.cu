/* mask_write.cu - the entries of each row, and a bit for each in its column. One warp, one row. */
#include "cuda/kernels/mask_chosen.h"

static __device__ void mark(const sac_mask_args *args, const sac_listed_row *row, int32_t block) {
    if (args->seen)
        atomicOr(&args->seen[sac_mask_group(args, row) + block], 1u << row->row % SAC_ROWS_A_GROUP);
}

static __device__ void write_chosen(const sac_mask_args *args, const sac_listed_row *row, int64_t at) {
    chosen_walk walk = chosen_walk_of(args, row);
    int32_t block;
    uint32_t bits;
    for (; chosen_next(args, &walk, &block, &bits); at++) {
        if (lane_index() != 0) continue;
        args->row_entries[at] = SAC_ENTRY(block, args->kind);
        if (args->row_bits) args->row_bits[at] = bits;
        mark(args, row, block);
    }
}

static __device__ void write_listed(const sac_mask_args *args, const sac_listed_row *row, int64_t at) {
    int32_t *to = args->row_entries + at;
    for (int32_t i = lane_index(); i - lane_index() < row->candidates; i += LANES) {
        const int32_t entry = i < row->candidates ? sac_mask_candidate(args, row, i) : 0;
        const uint32_t listed = __ballot_sync(ALL_LANES, entry != 0);
        if (entry) {
            to[lanes_before(listed)] = entry;
            mark(args, row, SAC_ENTRY_INDEX(entry));
        }
        to += __popc(listed);
    }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_write(const __grid_constant__ sac_mask_args args) {
    const int64_t index = warp_index();
    if (index >= (int64_t)args.batch * args.num_heads * args.rows) return;
    const int64_t begin = args.row_offsets[index];
    if (begin == args.row_offsets[index + 1])
        return; /* nothing, or a mask that is wrong: do not look at it */
    const sac_listed_row row = sac_listed_row_of(&args, index);
    args.source == SAC_MASK_CHOSEN ? write_chosen(&args, &row, begin) : write_listed(&args, &row, begin);
}
