/* stages.h - the stages of native sparse attention on host memory, each by itself. */
#ifndef SAC_NSA_STAGES_H
#define SAC_NSA_STAGES_H

#include <saccade/context.h>

#include "shared/nsa_args.h"

typedef enum sac_nsa_branch { SAC_NSA_CMP, SAC_NSA_SLC, SAC_NSA_WIN, SAC_NSA_NUM_BRANCHES } sac_nsa_branch;

/* Where each sequence's compressed keys and tiles start; nothing when the sequences are not packed. */
void sac_nsa_offsets(const sac_nsa_args *args, int32_t *cu_cmp, int32_t *cu_tiles);

/* k_cmp and v_cmp: block means, times w_k and w_v. */
void sac_nsa_compress(const sac_nsa_args *args, int32_t num_threads);

/* Adds the gradients of k_cmp and v_cmp to dk_sum, dv_sum ((rows of k, Hkv, D), (.., Dv), fp32), and, unless NULL,
 * to dw_k and dw_v (fp32). */
typedef struct sac_nsa_compress_grads {
    sac_view dk_cmp, dv_cmp; /* dtype */
    float *dk_sum, *dv_sum;
    float *dw_k, *dw_v;
} sac_nsa_compress_grads;
void sac_nsa_compress_backward(const sac_nsa_args *args, const sac_nsa_compress_grads *grads,
                               int32_t num_threads);

/* Scores of one tile's candidates, -inf for the blocks behind them up to max_cmp; gives their number. scratch: floats,
 * sac_nsa_scratch_floats of them. */
int32_t sac_nsa_score_tile(const sac_nsa_args *args, int32_t b, int32_t list, int32_t tile, float *scores,
                           float *scratch);
int64_t sac_nsa_scratch_floats(const sac_nsa_args *args);

/* Fills indices, unless they have no data, and compressed_indices where the compressed branch is sparse. scratch: for each thread max_cmp floats
 * and sac_nsa_scratch_floats. */
void sac_nsa_select(const sac_nsa_args *args, float *scratch, int32_t num_threads);

/* The lists that the attention of a sparse branch walks. offsets (B * num_lists * max_tiles + 1), entries: as many as
 * indices has. */
sac_block_list sac_nsa_lists(const sac_nsa_args *args, const sac_nsa_indices *indices, int64_t *offsets,
                             int32_t *entries);

/* out = the gated sum of three branches' outputs. rows: of the tensors, padding included. */
void sac_nsa_gate(const sac_nsa_args *args, const sac_view branch[SAC_NSA_NUM_BRANCHES], const sac_view *out,
                  int64_t rows, int32_t num_threads);

/* The gate's backward through one branch: branch_dout = gate * dout; dgates, dw_gate and dq_sum ((rows, H, D)) get
 * what the gate itself passes on. dgates and dw_gate may be NULL. */
typedef struct sac_nsa_gate_grads {
    sac_view dout, branch_out, branch_dout;
    sac_nsa_branch branch;
    float *dw_gate; /* (H, 3, D) fp32 */
    float *dgates;  /* (rows, H, 3) fp32 */
    float *dq_sum;
} sac_nsa_gate_grads;
void sac_nsa_gate_backward(const sac_nsa_args *args, const sac_nsa_gate_grads *grads, int64_t rows,
                           int32_t num_threads);

#endif
