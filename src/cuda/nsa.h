/* nsa.h - the stages of native sparse attention on a GPU, as base/nsa_stages.h describes them. */
#ifndef SAC_CUDA_NSA_H
#define SAC_CUDA_NSA_H

#include "base/nsa_stages.h"
#include "cuda/attn_portable.h"
#include "cuda/cuda.h"

extern const sac_nsa_stages sac_nsa_cuda_stages;

/* Whoever wants the kernels that a job's stages would launch on such a device. */
typedef struct sac_nsa_visitor {
    sac_launch_fn launch;
    const sac_cuda_device *device;
} sac_nsa_visitor;

/* The kernels that the stages of ordinary calls launch, for standard_kernels.h. */
saccade_status sac_nsa_cuda_standard(const sac_nsa_visitor *visitor, int32_t dtype, int32_t head_dim,
                                     int32_t head_dim_v);

saccade_status sac_nsa_cuda_offsets(const sac_nsa_job *job, int32_t *cu_cmp, int32_t *cu_tiles);
saccade_status sac_nsa_cuda_compress(const sac_nsa_job *job, void *scratch);
size_t sac_nsa_cuda_lay_out_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward, void *memory,
                                  sac_block_mask_args *blocks);
saccade_status sac_nsa_cuda_make_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward,
                                       void *memory);
saccade_status sac_nsa_cuda_gate(const sac_nsa_job *job, const sac_view branch_out[SAC_NSA_NUM_BRANCHES],
                                 const sac_view *out);
saccade_status sac_nsa_cuda_gate_backward(const sac_nsa_job *job, const sac_nsa_gate_grads *grads);
saccade_status sac_nsa_cuda_query_grads(const sac_nsa_job *job, const sac_nsa_query_grads *grads,
                                        void *scratch);
saccade_status sac_nsa_cuda_key_grads(const sac_nsa_job *job, const sac_nsa_key_grads *keys,
                                      const sac_nsa_key_grads *values, void *scratch);

/* Bytes of scratch of the stages that have some, each on its own. */
size_t sac_nsa_cuda_compress_scratch(const sac_nsa_job *job);
size_t sac_nsa_cuda_query_grads_scratch(const sac_nsa_job *job);
size_t sac_nsa_cuda_key_grads_scratch(const sac_nsa_job *job);

/* ---- what the launchers share ---- */

/* The views that a kernel reads or writes: in pieces of 16 bytes if the rows of all of them allow it. */
typedef struct sac_nsa_views {
    const sac_view *const *list;
    int32_t count;
} sac_nsa_views;
#define SAC_NSA_VIEWS(...)                                                                                   \
    (sac_nsa_views) {                                                                                        \
        (const sac_view *const[]){__VA_ARGS__},                                                              \
            (int32_t)(sizeof((const sac_view *const[]){__VA_ARGS__}) / sizeof(sac_view *))                   \
    }

/* A kernel with DTYPE, HEAD_DIM, HEAD_DIM_V, ALIGNED and GATE. */
sac_kernel_spec sac_nsa_cuda_spec(const sac_nsa_args *args, const char *source, const char *entry,
                                  int32_t threads, sac_nsa_views views);

/* What the job's launches are for. */
const sac_cuda_device *sac_nsa_cuda_device(const sac_nsa_job *job);

/* Enters the job's device and launches there, or shows it to the visitor. */
saccade_status sac_nsa_cuda_launch(const sac_nsa_job *job, const sac_kernel_spec *spec, int64_t num_ctas,
                                   void **params);

/* sum = that of `count` parts of `size` floats. */
saccade_status sac_nsa_cuda_sum_parts(const sac_nsa_job *job, const float *part, int32_t count, int64_t size,
                                      float *sum);

/* Lanes that share a row (kernels/row_chunk.h), and the CTAs of a walk over all rows of so many heads. */
int32_t sac_nsa_cuda_row_lanes(const sac_nsa_args *args);
int64_t sac_nsa_cuda_walk_ctas(const sac_nsa_job *job, int32_t heads, int32_t threads);

#endif
