/* portable_plan.h - how the portable kernels divide a call into CTAs; beside sac_attention_args, their parameters. */
#ifndef SAC_KERNELS_PORTABLE_PLAN_H
#define SAC_KERNELS_PORTABLE_PLAN_H

#include "shared/types.h" /* first: NVRTC has no stdint.h */
#include "shared/attention_args.h"

/* CTAs of one kernel: a section of heads after the other, so that the keys and values of a section stay in L2;
 * inside a section the tiles with the most work first (a late start of a long tile is a tail), heads fastest. */
typedef struct sac_schedule {
    int32_t num_tiles;  /* of each head: by the bound of the lengths */
    int32_t num_heads;  /* batch * heads, of queries or of keys, as the kernel walks them */
    int32_t section;    /* heads in a section */
    int32_t num_splits; /* parts of the keys, forward only; else 1 */
    int32_t last_tile_first;
    int32_t pad;
} sac_schedule;

enum { SAC_ZERO_CHUNK = 16 }; /* bytes */

typedef struct sac_portable_plan {
    sac_schedule schedule;
    int64_t total_q, total_k; /* rows of the packed tensors; batch * seqlen when not packed */
    float *partial_out;       /* (num_splits, H, total_q, Dv): num_splits above 1 */
    float *partial_lse;       /* (num_splits, H, total_q) */
    float *delta;             /* (H, total_q): rowsum(out * dout) - dlse */
    float *dq_sum; /* (H, total_q, D rounded up to 16), see dq_sum.h; or NULL: dq is not summed across CTAs */
    void *zeros;   /* what must be zeros before key tiles add to it: by the kernel that makes delta */
    int64_t zero_chunks, zero_share; /* all, and each of its CTAs' */
    float *dsink_part;               /* (H, num_dsink_parts) */
    int32_t num_dsink_parts;
    int32_t pack;         /* heads that share a tile of queries, see pack.h */
    int32_t pack_inverse; /* SAC_PACK_INVERSE */
    int32_t pad;
} sac_portable_plan;

#endif
