/* mask_transpose.cu - the lists by column: a counting sort in which every entry knows its place at once, whatever the
 * order in which warps run. Its place is where its column starts, and further by the rows above that list the column:
 * those of earlier groups, and those of its own group, bits of one word. One warp, one row. */
#include "cuda/kernels/mask_args.h"
#include "cuda/kernels/warp.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_transpose(const __grid_constant__ sac_mask_args args) {
    const int64_t index = warp_index();
    if (index >= (int64_t)args.batch * args.num_heads * args.rows) return;
    sac_listed_row row;
    const int64_t head = index / args.rows;
    row.b = (int32_t)(head / args.num_heads);
    row.h = (int32_t)(head % args.num_heads);
    row.row = (int32_t)(index % args.rows);
    const int64_t group = sac_mask_group(&args, &row), end = args.row_offsets[index + 1];
    const uint32_t above = (1u << row.row % SAC_ROWS_A_GROUP) - 1;
    for (int64_t i = args.row_offsets[index] + lane_index(); i < end; i += LANES) {
        const int32_t entry = args.row_entries[i], column = SAC_ENTRY_INDEX(entry);
        const int64_t place = args.col_offsets[head * args.columns + column] + args.before[group + column] +
                              __popc(args.seen[group + column] & above);
        args.col_entries[place] = SAC_ENTRY(row.row, SAC_ENTRY_KIND(entry));
        if (args.col_bits) args.col_bits[place] = args.row_bits[i];
    }
}
