/* lists.h - how every builder writes its lists: it states one block row, this lists them all and the transpose.
 *
 * Threads take pieces (a block row, or a part of its columns) and append what they find to a list of their own;
 * the pieces are then put in order. So a mask is evaluated once and memory follows what is listed. Rows that are
 * arithmetic are counted first, so that a mask that memory cannot hold is refused before any of it is touched.
 */
#ifndef SAC_MASK_LISTS_H
#define SAC_MASK_LISTS_H

#include "mask/block_mask.h"
#include "shared/mask_rows.h"

/* Where a piece's entries go. Memory running short is remembered, and reported once, at the end. */
typedef struct sac_entry_list {
    int32_t *entries;
    int64_t count, capacity;
    bool counts_only; /* nothing is written */
    bool out_of_memory;
} sac_entry_list;

/* Appends the blocks [begin, end), all of one kind; nothing when begin >= end. */
void sac_list_run(sac_entry_list *list, int32_t begin, int32_t end, int32_t kind);

/* Appends all that an analytic row lists. */
void sac_list_block_row(sac_entry_list *list, const sac_block_row *row);

typedef struct sac_mask_piece {
    int32_t b, h, row;
    int32_t begin, end; /* columns */
} sac_mask_piece;

/* Appends the key blocks of one piece in ascending order. */
typedef saccade_status (*sac_list_fn)(const void *rule, const sac_mask_piece *piece, sac_entry_list *list);

typedef struct sac_lister {
    sac_list_fn list;
    const void *rule;
    /* Worth threads, and able to list some columns of a row only. Otherwise the calling thread lists row by row,
     * in order, and `list` may fail with a message. */
    bool parallel;
    bool arithmetic; /* each row is worth listing twice; not parallel */
} sac_lister;

/* Fills the lists of mask (list_batch x list_heads of them) and their transpose. */
saccade_status sac_mask_list(saccade_context *ctx, saccade_block_mask *mask, const sac_lister *lister);

#endif
