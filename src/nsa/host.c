/* host.c - the host's stages in one table. */
#include "nsa/host.h"

/* Each thread scores a tile: its scores, and what scoring itself needs. */
static size_t scratch_bytes(const sac_nsa_job *job, bool backward) {
    (void)backward;
    return (size_t)job->ctx->num_threads * (size_t)(job->args.max_cmp + sac_nsa_score_floats(&job->args)) *
           sizeof(float);
}

const sac_nsa_stages sac_nsa_host_stages = {
    .scratch_bytes = scratch_bytes,
    .offsets = sac_nsa_host_offsets,
    .compress = sac_nsa_host_compress,
    .score = sac_nsa_host_score,
    .select = sac_nsa_host_select,
    .lay_out_lists = sac_nsa_host_lay_out_lists,
    .make_lists = sac_nsa_host_make_lists,
    .gate = sac_nsa_host_gate,
    .gate_backward = sac_nsa_host_gate_backward,
    .query_grads = sac_nsa_host_query_grads,
    .key_grads = sac_nsa_host_key_grads,
};
