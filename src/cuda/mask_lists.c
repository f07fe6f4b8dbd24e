/* mask_lists.c - the memory of block lists on a device, and the launches that fill it. */
#include "cuda/mask_lists.h"

#include "cuda/attn_portable.h"

enum { LANES = 32, THREADS = SAC_MASK_THREADS, THREADS_OF_OFFSETS = 1024 };

const sac_kernel_spec sac_mask_kernels[SAC_NUM_MASK_KERNELS] = {
#define KERNEL(name, num_threads)                                                                            \
    { .source = "cuda/kernels/" name ".cu", .entry = name, .threads = (num_threads) }
    [SAC_MASK_VALUES] = KERNEL("mask_values", THREADS),
    [SAC_MASK_CLASSIFY] = KERNEL("mask_classify", THREADS),
    [SAC_MASK_COUNT] = KERNEL("mask_count", THREADS),
    [SAC_MASK_OFFSETS] = KERNEL("mask_offsets", THREADS_OF_OFFSETS),
    [SAC_MASK_WRITE] = KERNEL("mask_write", THREADS),
    [SAC_MASK_COLUMNS] = KERNEL("mask_columns", THREADS),
    [SAC_MASK_TRANSPOSE] = KERNEL("mask_transpose", THREADS),
    [SAC_MASK_IMPORT] = KERNEL("mask_import", THREADS),
    [SAC_MASK_EXPORT] = KERNEL("mask_export", THREADS),
#undef KERNEL
};

/* NULL for none, so that args say what is wanted. */
static void *carve(void *memory, size_t *used, bool wanted, int64_t count, size_t size) {
    return wanted ? sac_carve(memory, used, (size_t)count * size) : NULL;
}

size_t sac_mask_lists_lay_out(sac_mask_args *args, const sac_mask_room *room, void *memory, size_t *cleared) {
    const int64_t heads = (int64_t)args->batch * args->num_heads, rows = heads * args->rows;
    const int64_t columns = heads * args->columns,
                  grouped = columns * sac_ceil_div(args->rows, SAC_ROWS_A_GROUP);
    const int64_t kinds = rows * sac_ceil_div(args->columns, SAC_KINDS_A_WORD), capacity = room->capacity;
    const bool by_key = room->by_key;
    size_t used = 0;
    args->capacity = capacity;
    args->state = carve(memory, &used, true, 1, sizeof *args->state);
    args->seen = carve(memory, &used, by_key, grouped, sizeof *args->seen);
    args->kinds = carve(memory, &used, room->kinds, kinds, sizeof *args->kinds);
    *cleared = used;
    args->before = carve(memory, &used, by_key, grouped, sizeof *args->before);
    args->values = carve(memory, &used, room->values > 0, room->values, sizeof *args->values);
    args->row_offsets = carve(memory, &used, true, rows + 1, sizeof *args->row_offsets);
    args->col_offsets = carve(memory, &used, by_key, columns + 1, sizeof *args->col_offsets);
    args->row_entries = carve(memory, &used, true, capacity, sizeof *args->row_entries);
    args->col_entries = carve(memory, &used, by_key, capacity, sizeof *args->col_entries);
    args->row_bits = carve(memory, &used, room->bits, capacity, sizeof *args->row_bits);
    args->col_bits = carve(memory, &used, room->bits && by_key, capacity, sizeof *args->col_bits);
    return used;
}

/* A mask's arguments on their way. */
typedef struct launcher {
    saccade_context *ctx;
    const sac_cuda_device *device;
    sac_mask_args args;
} launcher;

static saccade_status launch(launcher *l, sac_mask_kernel kernel, int64_t items, int64_t items_a_cta) {
    return sac_kernel_launch(l->ctx, l->device, &sac_mask_kernels[kernel],
                             (items + items_a_cta - 1) / items_a_cta, (void *[]){&l->args});
}

static saccade_status launch_offsets(launcher *l, int64_t *offsets, int64_t n) {
    return sac_kernel_launch(l->ctx, l->device, &sac_mask_kernels[SAC_MASK_OFFSETS], 1,
                             (void *[]){&l->args, &offsets, &n});
}

saccade_status sac_mask_lists_launch(saccade_context *ctx, const sac_cuda_device *device,
                                     const sac_mask_args *args) {
    launcher l = {ctx, device, *args};
    const int64_t heads = (int64_t)args->batch * args->num_heads, warps = THREADS / LANES;
    const int64_t rows = heads * args->rows, columns = heads * args->columns;
    saccade_status status = launch(&l, SAC_MASK_COUNT, rows, warps);
    if (status == SACCADE_OK) status = launch_offsets(&l, args->row_offsets, rows);
    if (status == SACCADE_OK) status = launch(&l, SAC_MASK_WRITE, rows, warps);
    if (status != SACCADE_OK || !args->seen) return status;
    status = launch(&l, SAC_MASK_COLUMNS, columns, THREADS);
    if (status == SACCADE_OK) status = launch_offsets(&l, args->col_offsets, columns);
    return status == SACCADE_OK ? launch(&l, SAC_MASK_TRANSPOSE, rows, warps) : status;
}
