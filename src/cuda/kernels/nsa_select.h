/* nsa_select.h - what crosses from nsa_select.c to the kernels that score compressed keys and choose the best. */
#ifndef SAC_KERNELS_NSA_SELECT_H
#define SAC_KERNELS_NSA_SELECT_H

#include "shared/nsa_args.h"

/* How the work is cut: a CTA takes some neighbouring tiles of one list. A tile has rows, which are held against every
 * compressed key and whose scores are summed: its queries in each head of the list, or one row, their mean. */
typedef struct sac_nsa_select_plan {
    int32_t rows_a_tile;
    int32_t tiles_a_cta; /* 1 where a tile has more rows than a CTA; its rows then come in several turns */
    int32_t turns;
    int32_t ctas_a_list; /* of one batch entry, by the bound of the lengths */
} sac_nsa_select_plan;

/* Where choices go as rows of a block list, each of as many entries as there are places: free ones list nothing. */
typedef struct sac_nsa_chosen_rows {
    int64_t *offsets; /* NULL: not wanted */
    int32_t *entries;
} sac_nsa_chosen_rows;

typedef struct sac_nsa_select_args {
    sac_nsa_args nsa;
    sac_nsa_select_plan plan;
    sac_nsa_chosen_rows rows, compressed_rows; /* of indices, and of compressed_indices */
    /* Of the lists of all batch entries, one behind the other: */
    float *means;  /* (tiles, D): each tile's mean query, summed over the list's heads */
    float *lse;    /* (tiles, rows_a_tile): where rows come in several turns */
    float *scores; /* (tiles, max_cmp); NULL: nobody asks for them */
} sac_nsa_select_args;

/* In shared memory, of each query tile of a CTA; beside it the places of its best blocks. */
enum { SAC_NSA_CHOOSER_BYTES = 48, SAC_NSA_PLACE_BYTES = 8 };

/* Which row of means and scores is a tile's. */
SAC_FN int64_t sac_nsa_tile_row(const sac_nsa_args *args, int32_t b, int32_t list, int32_t tile) {
    if (args->cu_tiles) return list * args->tiles + args->cu_tiles[b] + tile;
    return ((int64_t)b * args->num_lists + list) * args->max_tiles + tile;
}

#endif
