/* mask_chosen.h - the blocks that the tiles of one row chose, merged: ascending, each once, with a bit for each tile
 * that chose it. One warp; lane l walks the choice of the row's l-th tile, which is ascending, with -1 behind its end.
 */
#ifndef SAC_KERNELS_MASK_CHOSEN_H
#define SAC_KERNELS_MASK_CHOSEN_H

#include "cuda/kernels/mask_args.h"
#include "cuda/kernels/warp.h"

#define NO_BLOCK 0x7fffffff

typedef struct chosen_walk {
    const int32_t *next; /* this lane's */
    int32_t left, head;  /* places from next on; the block at hand, or NO_BLOCK */
    uint32_t absent;     /* lanes without a tile */
    bool fine;           /* blocks are numbered and ascend as they must */
} chosen_walk;

SAC_FN void chosen_step(const sac_mask_args *args, chosen_walk *w) {
    const int32_t before = w->head;
    w->head = w->left-- > 0 ? *w->next++ : -1;
    w->fine &= w->head < args->columns && (w->head == -1 || w->head > before);
    if (w->head < 0 || !w->fine) w->head = NO_BLOCK;
}

SAC_FN chosen_walk chosen_walk_of(const sac_mask_args *args, const sac_listed_row *row) {
    const int32_t tiles = args->cu_tiles ? args->cu_tiles[row->b + 1] - args->cu_tiles[row->b] : args->tiles;
    const int32_t tile = row->row * args->tiles_a_row + lane_index();
    const bool present = lane_index() < args->tiles_a_row && tile < tiles;
    chosen_walk w = {args->tensor, 0, -1, ~__ballot_sync(ALL_LANES, present), true};
    if (present) {
        const int64_t first = args->cu_tiles ? args->cu_tiles[row->b] : 0;
        w.next +=
            row->b * args->batch_stride + row->h * args->head_stride + (first + tile) * args->row_stride;
        w.left = args->tensor_size;
    }
    chosen_step(args, &w);
    return w;
}

/* False at the end. *bits: the tiles that chose the block; those that do not exist do no harm and are among them, so
 * that all bits mean everybody. */
SAC_FN bool chosen_next(const sac_mask_args *args, chosen_walk *w, int32_t *block, uint32_t *bits) {
    *block = __reduce_min_sync(ALL_LANES, w->head);
    if (*block == NO_BLOCK) return false;
    const bool here = w->head == *block;
    *bits = __ballot_sync(ALL_LANES, here) | w->absent;
    if (here) chosen_step(args, w);
    return true;
}

#endif
