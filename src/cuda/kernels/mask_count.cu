/* mask_count.cu - how many blocks each row lists. One warp, one row. */
#include "cuda/kernels/mask_chosen.h"

/* Is this lane's index one that may stand there: a block, or -1, above all that stand before it? *highest is the
 * greatest so far and is raised. */
static __device__ bool index_is_fine(const sac_mask_args *args, int32_t index, int32_t *highest) {
    int32_t reached = index;
    for (int step = 1; step < LANES; step *= 2) {
        const int32_t other = __shfl_up_sync(ALL_LANES, reached, step);
        if (lane_index() >= step) reached = sac_max(reached, other);
    }
    int32_t previous = __shfl_up_sync(ALL_LANES, reached, 1);
    previous = lane_index() == 0 ? *highest : sac_max(previous, *highest);
    *highest = sac_max(*highest, __shfl_sync(ALL_LANES, reached, LANES - 1));
    return index == -1 || (index > previous && index < args->columns);
}

static __device__ void report_bad_index(const sac_mask_args *args, const sac_listed_row *row) {
    atomicMax((unsigned long long *)&args->state->problem, SAC_MASK_PROBLEM(SAC_MASK_BAD_INDEX, row->index));
}

static __device__ int32_t count_indices(const sac_mask_args *args, const sac_listed_row *row) {
    const int32_t *indices =
        args->tensor + row->b * args->batch_stride + row->h * args->head_stride + row->row * args->row_stride;
    int32_t count = 0, highest = -1;
    bool fine = true;
    for (int32_t i = lane_index(); i - lane_index() < row->candidates; i += LANES) {
        const int32_t index = i < row->candidates ? indices[i] : -1;
        fine &= index_is_fine(args, index, &highest);
        count += __popc(__ballot_sync(ALL_LANES, index != -1));
    }
    if (!fine) report_bad_index(args, row);
    return count;
}

static __device__ int32_t count_chosen(const sac_mask_args *args, const sac_listed_row *row) {
    chosen_walk walk = chosen_walk_of(args, row);
    int32_t count = 0, block;
    uint32_t bits;
    while (chosen_next(args, &walk, &block, &bits)) count++;
    if (!walk.fine) report_bad_index(args, row);
    return count;
}

static __device__ int32_t count_kinds(const sac_mask_args *args, const sac_listed_row *row) {
    int32_t count = 0;
    for (int32_t i = lane_index(); i - lane_index() < row->candidates; i += LANES)
        count +=
            __popc(__ballot_sync(ALL_LANES, i < row->candidates && sac_mask_candidate(args, row, i) != 0));
    return count;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_count(const __grid_constant__ sac_mask_args args) {
    const int64_t index = warp_index();
    if (index >= (int64_t)args.batch * args.num_heads * args.rows) return;
    const sac_listed_row row = sac_listed_row_of(&args, index);
    const int32_t count = args.source == SAC_MASK_INDICES  ? count_indices(&args, &row)
                          : args.source == SAC_MASK_CHOSEN ? count_chosen(&args, &row)
                          : args.source == SAC_MASK_KINDS  ? count_kinds(&args, &row)
                                                           : row.candidates;
    if (lane_index() == 0) args.row_offsets[index] = count;
}
