/* plan.h - how a call is cut into pieces of work, and what memory the pieces share. */
#ifndef SAC_CPU_PLAN_H
#define SAC_CPU_PLAN_H

#include "base/context.h"
#include "cpu/kernels.h"

/* The bundles of a call's query tiles, numbered: heaviest first within a sequence, heads of the same rows next to each
 * other. */
typedef struct sac_cpu_plan {
    const sac_cpu_kernels *kernels;
    int32_t heads_per_tile, tile_rows; /* tile_rows: of each head, at most */
    int32_t together; /* tiles that a bundle may have: no more where sequences are known to be shorter */
    int32_t head_tiles, row_tiles; /* and has, at most */
    int32_t bundle_heads, bundle_rows;
    int32_t row_block; /* no bundle crosses a multiple of it; 0: no such limit */
    int32_t kv_tile;
    int32_t head_bundles;        /* num_heads / bundle_heads */
    const int64_t *first_bundle; /* (B + 1) number of each sequence's first bundle, then of all */
    int64_t num_bundles;
} sac_cpu_plan;

/* Bundles of one tile each, however many there are. */
#define SAC_CPU_SINGLE_TILES INT64_MAX

/* Pieces of work that keep all threads busy to the end. */
static inline int64_t sac_cpu_pieces(const saccade_context *ctx) {
    return ctx->num_threads > 1 ? 8 * (int64_t)ctx->num_threads : 1;
}

/* How the tiles are bundled, so that there are min_bundles at least, or single tiles. Nothing is numbered yet, and
 * nothing behind a pointer read. */
sac_cpu_plan sac_cpu_plan_make(const saccade_context *ctx, const sac_attention_call *call, bool backward,
                               int64_t min_bundles);

/* first_bundle: room for B + 1 numbers. */
void sac_cpu_plan_number(sac_cpu_plan *plan, const sac_attention_args *args, int64_t *first_bundle);

/* Bundles of rows in sequence b: what each head has of them. */
int32_t sac_cpu_row_bundles(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b);

/* These rows, bundle_rows at most, of the plan's bundle_heads heads from h on; and the index-th rows of sequence b. */
sac_cpu_bundle sac_cpu_bundle_rows(const sac_cpu_plan *plan, int32_t b, int32_t h, sac_range q);
sac_cpu_bundle sac_cpu_bundle_of(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b,
                                 int32_t h, int32_t index);

sac_cpu_bundle sac_cpu_bundle_at(const sac_cpu_plan *plan, const sac_attention_args *args, int64_t index);

/* Rows of the outputs that no tile writes: unused rows of each sequence and what follows the last one. */
void sac_cpu_clear_unused(const sac_attention_call *call, const sac_view *view, int32_t num_heads,
                          int32_t head_dim, const sac_lengths *len, int64_t total_rows);
void sac_cpu_clear_unused_lse(const sac_attention_call *call);

#endif
