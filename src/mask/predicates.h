/* predicates.h - the mask_mods of the built-in masks, native and as text for devices. */
#ifndef SAC_MASK_PREDICATES_H
#define SAC_MASK_PREDICATES_H

#include "mask/block_mask.h"

typedef enum sac_predicate {
    SAC_PREDICATE_BAND,           /* bounds: lo_off, hi_off of sac_band */
    SAC_PREDICATE_INTERVALS,      /* (q_len, 2): each query's first key and the one past its last */
    SAC_PREDICATE_PREFIX_LM,      /* prefix (batch or 1) */
    SAC_PREDICATE_DILATED,        /* distance, step */
    SAC_PREDICATE_BLOCK_DIAGONAL, /* q_size, kv_size */
    SAC_PREDICATE_EAGLE3,         /* q_len; lengths (batch or 1) */
    SAC_PREDICATE_DENSE,          /* batch, head and row strides; bytes */
    SAC_PREDICATE_BLOCKS,         /* geometry; row_offsets; row_entries; slots; bits: see predicates.c */
} sac_predicate;

typedef enum sac_ownership {
    SAC_COPIED,   /* into a buffer of the mask's */
    SAC_SHARED,   /* a buffer already: one more reference */
    SAC_BORROWED, /* outlives the mask_mod */
} sac_ownership;

/* A value for the next input of a predicate: `count` elements of its dtype. */
typedef struct sac_predicate_value {
    const void *data;
    int64_t count;
    sac_ownership ownership;
} sac_predicate_value;

/* Gives the mask its mask_mod, with one value for each input. */
saccade_status sac_mask_set_predicate(saccade_context *ctx, saccade_block_mask *mask, sac_predicate predicate,
                                      const sac_predicate_value *values);

/* Takes the mask_mod off again. */
void sac_mask_drop_predicate(saccade_block_mask *mask);

#endif
