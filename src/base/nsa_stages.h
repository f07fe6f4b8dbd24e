/* nsa_stages.h - the stages of native sparse attention, as one kind of device has them.
 *
 * src/nsa composes them; the host's are in src/nsa, a GPU's in src/cuda. All memory is given, on the job's device. A
 * device's stage queues its work on the context's stream: it allocates nothing, waits for nothing, reads nothing back.
 */
#ifndef SAC_BASE_NSA_STAGES_H
#define SAC_BASE_NSA_STAGES_H

#include <saccade/context.h>
#include <saccade/tensor.h>

#include "shared/nsa_args.h"

typedef enum sac_nsa_branch { SAC_NSA_CMP, SAC_NSA_SLC, SAC_NSA_WIN, SAC_NSA_NUM_BRANCHES } sac_nsa_branch;

/* What a stage works on: the whole call, or a range of its key/value heads, which is a call with fewer heads. */
typedef struct sac_nsa_job {
    saccade_context *ctx;
    DLDevice device;
    sac_nsa_args args;
    const struct sac_nsa_visitor *visitor; /* a GPU's: takes the place of its launches; mostly NULL */
} sac_nsa_job;

/* (rows, heads, 3) fp32, the last two contiguous. */
typedef struct sac_nsa_gate_values {
    float *data; /* NULL: absent */
    int64_t row_stride;
} sac_nsa_gate_values;

/* The gate's backward through one branch: branch_dout = gate * dout, and dgates of the branch = dout . branch_out,
 * where there is a w_gate that times the slope of the sigmoid.
 *
 * Or, where branch_dout has no data, what lets the branch's attention go back from dout itself: under
 * lse - log(gate) its probabilities carry the gate, and delta = dout . branch_out is what the dot product was. Not of
 * given gates, which need not be positive. */
typedef struct sac_nsa_gate_grads {
    sac_nsa_branch branch;
    sac_view dout, branch_out, branch_dout;
    sac_nsa_gate_values dgates; /* no data: not wanted */
    sac_row_view lse;
    float *gated_lse, *delta; /* (H, rows) */
} sac_nsa_gate_grads;

/* dq = the sum of the branches' and, where there is a w_gate, of what comes through it; dw_gate. */
typedef struct sac_nsa_query_grads {
    sac_view branch_dq[SAC_NSA_NUM_BRANCHES];
    sac_nsa_gate_values dgates;
    sac_view dq;    /* no data: not wanted */
    float *dw_gate; /* (H, 3, D) contiguous, or NULL: not wanted */
} sac_nsa_query_grads;

/* Gradients of keys, or of values: the selected and the window branch's, and each block's mean's shared out evenly over
 * the block's tokens; and of the mean's weights. */
typedef struct sac_nsa_key_grads {
    sac_view branch[SAC_NSA_NUM_BRANCHES]; /* the compressed one's has a row per block */
    int32_t parts;       /* of the compressed one's (sac_attention_call.grad_parts), which */
    int64_t part_stride; /* are added up in place */
    sac_view sum;        /* no data: not wanted */
    float *dw;           /* (Hkv, D, D) contiguous, or NULL: not wanted */
} sac_nsa_key_grads;

typedef struct sac_nsa_stages {
    bool reads_lse; /* select reads args.lse_cmp where sac_nsa_lse_serves */

    /* Bytes of scratch, aligned to 256, that any stage needs. */
    size_t (*scratch_bytes)(const sac_nsa_job *job, bool backward);

    /* Where each packed sequence's compressed keys and tiles start (B + 1 each); not called unless packed. */
    saccade_status (*offsets)(const sac_nsa_job *job, int32_t *cu_cmp, int32_t *cu_tiles);

    /* k_cmp and v_cmp: block means, times w_k and w_v. */
    saccade_status (*compress)(const sac_nsa_job *job, void *scratch);

    /* Every tile's scores, (B, lists, tiles, max_cmp) or packed (lists, tiles, max_cmp), -inf behind the candidates. */
    saccade_status (*score)(const sac_nsa_job *job, float *scores, void *scratch);

    /* indices, unless they have no data, and compressed_indices where the compressed branch is sparse; and of each
     * sparse branch the lists that a forward walks, as they were laid out. lists NULL: not wanted. */
    saccade_status (*select)(const sac_nsa_job *job, void *scratch, void *const lists[SAC_NSA_NUM_BRANCHES]);

    /* The lists that the attention of a sparse branch walks, by key too where a backward needs them: how they lie in
     * memory, which may be at no real address, and the bytes they take; then what stands in them. */
    size_t (*lay_out_lists)(const sac_nsa_job *job, sac_nsa_branch branch, bool backward, void *memory,
                            sac_block_mask_args *blocks);
    saccade_status (*make_lists)(const sac_nsa_job *job, sac_nsa_branch branch, bool backward, void *memory);

    /* out = the gated sum of three branches' outputs. */
    saccade_status (*gate)(const sac_nsa_job *job, const sac_view branch_out[SAC_NSA_NUM_BRANCHES],
                           const sac_view *out);
    saccade_status (*gate_backward)(const sac_nsa_job *job, const sac_nsa_gate_grads *grads);
    saccade_status (*query_grads)(const sac_nsa_job *job, const sac_nsa_query_grads *grads, void *scratch);
    saccade_status (*key_grads)(const sac_nsa_job *job, const sac_nsa_key_grads *keys,
                                const sac_nsa_key_grads *values, void *scratch);
} sac_nsa_stages;

#endif
