/* host.h - the stages of native sparse attention on host memory, as base/nsa_stages.h describes them. */
#ifndef SAC_NSA_HOST_H
#define SAC_NSA_HOST_H

#include "base/context.h"
#include "base/nsa_stages.h"

extern const sac_nsa_stages sac_nsa_host_stages;

/* Threads for a loop over so many elements of tensors. A team of them costs microseconds, and spins when it is done: a
 * few thousand elements are sooner done by one. */
static inline int sac_nsa_threads(const sac_nsa_job *job, int64_t elements) {
    return elements < 1 << 15 ? 1 : job->ctx->num_threads;
}

saccade_status sac_nsa_host_offsets(const sac_nsa_job *job, int32_t *cu_cmp, int32_t *cu_tiles);
saccade_status sac_nsa_host_compress(const sac_nsa_job *job, void *scratch);
saccade_status sac_nsa_host_score(const sac_nsa_job *job, float *scores, void *scratch);
saccade_status sac_nsa_host_select(const sac_nsa_job *job, void *scratch,
                                   void *const lists[SAC_NSA_NUM_BRANCHES]);
size_t sac_nsa_host_lay_out_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward, void *memory,
                                  sac_block_mask_args *blocks);
saccade_status sac_nsa_host_make_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward,
                                       void *memory);
saccade_status sac_nsa_host_gate(const sac_nsa_job *job, const sac_view branch_out[SAC_NSA_NUM_BRANCHES],
                                 const sac_view *out);
saccade_status sac_nsa_host_gate_backward(const sac_nsa_job *job, const sac_nsa_gate_grads *grads);
saccade_status sac_nsa_host_query_grads(const sac_nsa_job *job, const sac_nsa_query_grads *grads,
                                        void *scratch);
saccade_status sac_nsa_host_key_grads(const sac_nsa_job *job, const sac_nsa_key_grads *keys,
                                      const sac_nsa_key_grads *values, void *scratch);

/* Gates of so many rows from `row` of q on, of head h: (count, branches). data: the job. */
void sac_nsa_host_gates(const void *data, int32_t b, int64_t row, int32_t count, int32_t h, float *gates);

/* Scores of one tile's candidates, -inf for the blocks behind them up to max_cmp; gives their number. scratch: floats,
 * sac_nsa_score_floats of them. */
int32_t sac_nsa_score_tile(const sac_nsa_args *args, int32_t b, int32_t list, int32_t tile, float *scores,
                           float *scratch);
int64_t sac_nsa_score_floats(const sac_nsa_args *args);

#endif
