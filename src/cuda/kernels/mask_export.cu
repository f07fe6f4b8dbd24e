/* mask_export.cu - the lists of a mask as the kv_ or the q_ tensors of PyTorch's BlockMask. One warp, one row. */
#include "cuda/kernels/mask_exchange_args.h"
#include "cuda/kernels/warp.h"

/* A row of one list on its way. */
typedef struct written_row {
    int32_t *count, *indices; /* NULL: not there */
    int32_t written;
} written_row;

static __device__ written_row open_row(const sac_exchange_list *list, int32_t b, int32_t h, int32_t row) {
    written_row to;
    to.count = list->counts ? sac_exchange_count(list, b, h, row) : NULL;
    to.indices = list->indices ? sac_exchange_row(list, b, h, row) : NULL;
    to.written = 0;
    return to;
}

/* Appends the blocks of those lanes that have one, in their order. */
static __device__ void append(written_row *to, bool has_one, int32_t block) {
    const uint32_t listed = __ballot_sync(ALL_LANES, has_one);
    if (has_one && to->indices) to->indices[to->written + lanes_before(listed)] = block;
    to->written += __popc(listed);
}

static __device__ void close_row(const written_row *to, int32_t columns) {
    if (to->count && lane_index() == 0) *to->count = to->written;
    for (int32_t i = to->written + lane_index(); to->indices && i < columns; i += LANES) to->indices[i] = 0;
}

static __device__ bool counts_as_full(const sac_exchange_args *args, int32_t row, int32_t entry) {
    const bool cut = (row + 1) * (int64_t)args->row_block > args->row_len ||
                     (SAC_ENTRY_INDEX(entry) + 1) * (int64_t)args->column_block > args->column_len;
    return SAC_ENTRY_KIND(entry) == SAC_FULL && !(cut && args->cut_is_partial);
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_export(const __grid_constant__ sac_exchange_args args) {
    const int64_t index = warp_index();
    if (index >= (int64_t)args.batch * args.num_heads * args.rows) return;
    const int32_t row = (int32_t)(index % args.rows), head = (int32_t)(index / args.rows);
    const int32_t b = head / args.num_heads, h = head % args.num_heads;
    const int32_t list_b = args.list_batch == 1 ? 0 : b, list_h = args.list_heads == 1 ? 0 : h;
    const int64_t from = ((int64_t)list_b * args.list_heads + list_h) * args.rows + row;
    const int64_t begin = args.offsets[from], end = args.offsets[from + 1];

    written_row partial = open_row(&args.partial, b, h, row), full = open_row(&args.full, b, h, row);
    for (int64_t first = begin; first < end; first += LANES) {
        const int64_t i = first + lane_index();
        const int32_t entry = i < end ? args.entries[i] : 0;
        const bool as_full = entry && counts_as_full(&args, row, entry);
        append(&full, as_full, SAC_ENTRY_INDEX(entry));
        append(&partial, entry && !as_full, SAC_ENTRY_INDEX(entry));
    }
    close_row(&full, args.columns);
    close_row(&partial, args.columns);
}
