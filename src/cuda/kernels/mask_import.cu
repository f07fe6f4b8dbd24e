/* mask_import.cu - the kind of every block, from the kv_ tensors of PyTorch's BlockMask. One warp, one row. */
#include "cuda/kernels/mask_exchange_args.h"
#include "cuda/kernels/warp.h"

static __device__ void report(const sac_exchange_args *args, sac_mask_problem problem, int64_t row) {
    atomicMax((unsigned long long *)&args->state->problem, SAC_MASK_PROBLEM(problem, row));
}

/* kinds: those of this row. A block that is there already stands in both lists, or twice in one. */
static __device__ void read_list(const sac_exchange_args *args, const sac_exchange_list *list, int32_t kind,
                                 int64_t index, uint32_t *kinds) {
    if (!list->counts) return;
    const int32_t row = (int32_t)(index % args->rows), head = (int32_t)(index / args->rows);
    const int32_t b = head / args->num_heads, h = head % args->num_heads;
    const int32_t count = *sac_exchange_count(list, b, h, row);
    if (count < 0 || count > args->columns) return report(args, SAC_MASK_BAD_COUNT, index);
    const int32_t *indices = sac_exchange_row(list, b, h, row);
    for (int32_t i = lane_index(); i < count; i += LANES) {
        const int32_t column = indices[i];
        if (column < 0 || column >= args->columns) return report(args, SAC_MASK_BAD_BLOCK, index);
        const int shift = 2 * (column % SAC_KINDS_A_WORD);
        const uint32_t before = atomicOr(&kinds[column / SAC_KINDS_A_WORD], (uint32_t)kind << shift);
        if (before >> shift & 3) return report(args, SAC_MASK_BAD_BLOCK, index);
    }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_import(const __grid_constant__ sac_exchange_args args) {
    const int64_t index = warp_index();
    if (index >= (int64_t)args.batch * args.num_heads * args.rows) return;
    uint32_t *kinds = args.kinds + index * sac_ceil_div(args.columns, SAC_KINDS_A_WORD);
    read_list(&args, &args.partial, SAC_PARTIAL, index, kinds);
    read_list(&args, &args.full, SAC_FULL, index, kinds);
}
