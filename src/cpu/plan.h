/* plan.h - how a call is cut into pieces of work, and what memory the pieces share. */
#ifndef SAC_CPU_PLAN_H
#define SAC_CPU_PLAN_H

#include "base/context.h"
#include "cpu/kernels.h"

/* The query tiles of a call, numbered: heaviest first within a sequence, heads of one tile next to each other. */
typedef struct sac_cpu_plan {
    const sac_cpu_kernels *kernels;
    int32_t heads_per_tile;
    int32_t head_tiles; /* num_heads / heads_per_tile */
    int32_t kv_tile;
    int32_t row_block;         /* no query tile crosses a multiple of it; 0: no such limit */
    sac_range queries;         /* of each sequence; begins where a row_block does */
    const int64_t *first_tile; /* (B + 1) number of each sequence's first tile, then of all */
    int64_t num_tiles;
} sac_cpu_plan;

/* first_tile: room for B + 1 numbers. */
sac_cpu_plan sac_cpu_plan_make(const saccade_context *ctx, const sac_attention_call *call, bool backward,
                               int64_t *first_tile);

/* Calls of a kernel per thread that keep all threads busy to the end. */
enum { SAC_CPU_CALLS_PER_THREAD = 8 };

/* How many tiles of neighbouring heads to give to one call of a kernel, of which there shall be min_calls at least.
 * Such tiles follow each other in number. Divides the tiles of a group. */
int sac_cpu_tiles_together(const saccade_context *ctx, const sac_attention_call *call, bool backward,
                           int64_t min_calls);

/* Row tiles of sequence b: what each head has of them. */
int32_t sac_cpu_row_tiles(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b);

/* The tile of these rows and of heads_per_tile heads from h on. */
sac_cpu_tile sac_cpu_tile_of(const sac_cpu_plan *plan, const sac_attention_args *args, int32_t b, int32_t h,
                             int32_t row_tile);

sac_cpu_tile sac_cpu_tile_at(const sac_cpu_plan *plan, const sac_attention_args *args, int64_t index);

/* Rows of the outputs that no tile writes: unused rows of each sequence and what follows the last one. */
void sac_cpu_clear_unused(const sac_attention_call *call, const sac_view *view, int32_t num_heads,
                          int32_t head_dim, const sac_lengths *len, int64_t total_rows);
void sac_cpu_clear_unused_lse(const sac_attention_call *call);

#endif
