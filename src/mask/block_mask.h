/* block_mask.h - a block mask inside the library: two compressed lists and the mask_mod that decides PARTIAL.
 *
 * Invariant: where a mask has a mask_mod, that mask_mod is the mask: false throughout a block that is not listed,
 * true throughout a FULL one, neither throughout a PARTIAL one. So the predicate of a combination is the
 * combination of the predicates, and a mask can be looked up, drawn and tested pair by pair.
 */
#ifndef SAC_MASK_BLOCK_MASK_H
#define SAC_MASK_BLOCK_MASK_H

#include <saccade/block_mask.h>
#include <stdatomic.h>

#include "shared/attention_args.h"

enum { SAC_NUM_BLOCK_KINDS = 4 }; /* 0: not listed */

struct saccade_block_mask {
    atomic_int references;
    saccade_mask_shape shape; /* defaults filled in; batch and num_heads at least 1 */
    int32_t num_q_blocks, num_kv_blocks;
    int32_t list_batch, list_heads; /* each 1, shared by all, or the shape's */
    int32_t period;
    int32_t diagonals_from; /* key blocks from this one on are listed as DIAGONAL, or not at all */
    DLDevice device;        /* where the lists lie; not the host: in memory of the caller's */
    void *device_state;     /* what building found there (saccade/device_mask.h); NULL on the host */
    int64_t count[SAC_NUM_BLOCK_KINDS]; /* listed blocks by kind; -1: known to the device alone */
    int64_t *row_offsets, *col_offsets; /* (list_batch * list_heads * rows + 1); buffers, as the next */
    int32_t *row_entries, *col_entries; /* by query block; by key block */
    saccade_modifier *mask_mod;         /* NULL: the call's */
    saccade_aux aux;                    /* its values; data owned below */
    void *owned[SACCADE_MAX_AUX];       /* (num_aux) buffers; NULL: borrowed */
};

/* The lists as backends walk them. */
sac_block_mask_args sac_block_mask_view(const saccade_block_mask *mask);

/* May a call of these sizes on this device use the mask? Its batch and num_heads may be 1 and broadcast; q_len and
 * kv_len must be those it was made for; a mask on the host serves any device. INVALID_ARGUMENT otherwise. */
saccade_status sac_block_mask_check(const saccade_block_mask *mask, DLDevice device, int64_t batch,
                                    int64_t num_heads, int64_t q_len, int64_t kv_len);

/* INVALID_ARGUMENT where the lists of a mask (called `name` in the message) lie on a device: the host cannot `what`. */
saccade_status sac_mask_on_host(const saccade_block_mask *mask, const char *name, const char *what);

/* A mask of that shape, checked, defaults filled in, without lists or mask_mod. */
saccade_status sac_mask_new(const saccade_context *ctx, saccade_block_mask **mask,
                            const saccade_mask_shape *shape);

/* The end of every builder: hands the mask over, or destroys it and passes the failure on. */
saccade_status sac_mask_finish(saccade_block_mask **result, saccade_block_mask *mask, saccade_status status);

/* The tokens of one block; the last one may be shorter than the others. */
sac_range sac_mask_queries(const saccade_block_mask *mask, int32_t row);
sac_range sac_mask_keys(const saccade_block_mask *mask, int32_t column);

/* Where `index` stands among the entries of a row; -1 when it is not listed. */
int64_t sac_block_list_find(const sac_block_list *list, int64_t row, int32_t index);

/* Which row of row_offsets holds the key blocks of query block `row`. */
int64_t sac_mask_row_index(const saccade_block_mask *mask, int32_t b, int32_t h, int32_t row);

#endif
