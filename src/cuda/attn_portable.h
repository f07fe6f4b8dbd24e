/* attn_portable.h - the portable kernels' host side: one variant, one plan, one launch path for all of them. */
#ifndef SAC_CUDA_ATTN_PORTABLE_H
#define SAC_CUDA_ATTN_PORTABLE_H

#include "base/backend.h"
#include "cuda/cuda.h"
#include "cuda/kernels/portable_plan.h"

/* sac_kernel_launch, or what a test does instead where there is no GPU. */
typedef saccade_status (*sac_launch_fn)(saccade_context *ctx, const sac_cuda_device *device,
                                        const sac_kernel_spec *spec, int64_t num_ctas, void **params);

/* A call on its way through several kernels. */
typedef struct sac_portable_job {
    saccade_context *ctx;
    const sac_cuda_device *device;
    sac_launch_fn launch;
    sac_attention_args args; /* the call's, its block mask on the device */
    sac_portable_plan plan;
    char *modifiers; /* device text of the call's modifiers, or NULL */
} sac_portable_job;

/* Is there a tile for these head dimensions on a device with this much shared memory? */
bool sac_portable_serves_forward(int32_t dtype, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes);
bool sac_portable_serves_backward(int32_t dtype, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes);

/* Bytes of workspace, and where in it (at `workspace`, which may be NULL) the plan's arrays lie. */
size_t sac_portable_plan_forward(const sac_cuda_device *device, const sac_attention_call *call,
                                 void *workspace, sac_portable_plan *plan);
size_t sac_portable_plan_backward(const sac_attention_call *call, void *workspace, sac_portable_plan *plan);

saccade_status sac_portable_launch_forward(sac_portable_job *job);
saccade_status sac_portable_launch_backward(sac_portable_job *job);

/* Steps of the backward pass, in their order, for backends with kernels of their own for the rest. */
size_t sac_portable_plan_rows(const sac_attention_call *call, void *workspace, sac_portable_plan *plan);
/* What the kernel that finishes delta fills with zeros: whole multiples of 16 bytes; NULL: nothing. */
void sac_portable_plan_zeros(sac_portable_plan *plan, void *zeros, size_t bytes);
saccade_status sac_portable_clear_zeros(const sac_portable_job *job); /* where that kernel does not run */
saccade_status sac_portable_clear_daux(sac_portable_job *job);
/* Is rowsum(out * dout) too coarse, so that delta has to be rowsum(P * dP)? */
bool sac_portable_delta_from_scores(const sac_attention_args *args);
/* delta, less dlse, and dsink. is_there: plan.delta holds rowsum(P * dP). */
saccade_status sac_portable_finish_delta(sac_portable_job *job, bool is_there);
/* Is anything wanted that is summed over queries: dk, dv, gradients of aux tensors? */
bool sac_portable_walks_queries(const sac_attention_args *args);
saccade_status sac_portable_fill_grads(sac_portable_job *job); /* zeroes where no sequence has a row */

/* What every kernel of a job is told: DTYPE, HEAD_DIM, HEAD_DIM_V, ALIGNED. */
sac_kernel_spec sac_portable_spec(const sac_portable_job *job, const char *source, const char *entry,
                                  int32_t threads);
/* Does anything but a positive scale happen to scores? */
bool sac_portable_transforms(const sac_attention_args *args);

/* And those that look at scores: TRANSFORM and the HAS_ flags, with the modifiers' text. Beside them each has a
 * PACK. */
void sac_portable_define_scores(const sac_portable_job *job, sac_kernel_spec *spec);

/* Heads of a group that share a tile of q_tile rows, where a block mask leaves it few queries of each; else 1. */
int32_t sac_portable_pack(const sac_attention_args *args, int32_t q_tile);
/* Tells the plan and the kernel. */
void sac_portable_define_pack(sac_portable_job *job, sac_kernel_spec *spec, int32_t pack);

/* One CTA a tile and `pack` heads; heads that share an L2's worth of keys and values (or of queries) together. */
sac_schedule sac_portable_schedule(const sac_portable_job *job, bool by_query, int32_t tile, int32_t pack);
int64_t sac_portable_num_ctas(const sac_schedule *schedule);

/* Rows that belong to no sequence become 0 (and lse -inf). */
saccade_status sac_portable_fill(const sac_portable_job *job, const sac_view *view, const sac_row_view *lse,
                                 bool of_queries, int32_t num_heads, int32_t head_dim);

/* Does every row begin at a multiple of 16 bytes? */
bool sac_view_is_aligned(const sac_view *view, int32_t element_bytes);

/* The next `bytes` of a workspace, aligned to 256. */
void *sac_carve(void *workspace, size_t *used, size_t bytes);

extern const sac_backend sac_cuda_portable_backend;

#endif
