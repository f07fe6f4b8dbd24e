/* nsa_stages.c - a GPU's stages in one table. */
#include "cuda/nsa.h"
#include "cuda/nsa_select.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t scratch_bytes(const sac_nsa_job *job, bool backward) {
    const size_t forward = larger(sac_nsa_cuda_compress_scratch(job), sac_nsa_cuda_select_scratch(job));
    if (!backward) return forward;
    return larger(forward,
                  larger(sac_nsa_cuda_query_grads_scratch(job), sac_nsa_cuda_key_grads_scratch(job)));
}

const sac_nsa_stages sac_nsa_cuda_stages = {
    .reads_lse = true,
    .scratch_bytes = scratch_bytes,
    .offsets = sac_nsa_cuda_offsets,
    .compress = sac_nsa_cuda_compress,
    .score = sac_nsa_cuda_score,
    .select = sac_nsa_cuda_select,
    .lay_out_lists = sac_nsa_cuda_lay_out_lists,
    .make_lists = sac_nsa_cuda_make_lists,
    .gate = sac_nsa_cuda_gate,
    .gate_backward = sac_nsa_cuda_gate_backward,
    .query_grads = sac_nsa_cuda_query_grads,
    .key_grads = sac_nsa_cuda_key_grads,
};
