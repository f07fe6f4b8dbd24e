/* nsa_gate.c - launches of what walks the rows of all query heads: the gate, its backward, and dq. */
#include "cuda/kernels/nsa_work.h"
#include "cuda/nsa.h"

enum { THREADS = 256 };

static saccade_status walk(const sac_nsa_job *job, const sac_kernel_spec *spec, const void *work) {
    if (job->args.rows == 0) return SACCADE_OK;
    return sac_nsa_cuda_launch(job, spec, sac_nsa_cuda_walk_ctas(job, job->args.num_heads, spec->threads),
                               (void *[]){(void *)&job->args, (void *)work});
}

saccade_status sac_nsa_cuda_gate(const sac_nsa_job *job, const sac_view branch_out[SAC_NSA_NUM_BRANCHES],
                                 const sac_view *out) {
    const sac_nsa_gate_work work = {.branch_out = {branch_out[0], branch_out[1], branch_out[2]}, .out = *out};
    const sac_kernel_spec spec =
        sac_nsa_cuda_spec(&job->args, "cuda/kernels/nsa_gate.cu", "nsa_gate", THREADS,
                          SAC_NSA_VIEWS(&job->args.q, &branch_out[0], &branch_out[1], &branch_out[2], out));
    return walk(job, &spec, &work);
}

saccade_status sac_nsa_cuda_gate_backward(const sac_nsa_job *job, const sac_nsa_gate_grads *g) {
    const sac_nsa_gate_bwd_work work = {.dout = g->dout,
                                        .branch_out = g->branch_out,
                                        .branch_dout = g->branch_dout,
                                        .dgates = g->dgates.data,
                                        .dgates_row_stride = g->dgates.row_stride,
                                        .lse = g->lse,
                                        .gated_lse = g->gated_lse,
                                        .delta = g->delta,
                                        .branch = (int32_t)g->branch};
    sac_kernel_spec spec =
        sac_nsa_cuda_spec(&job->args, "cuda/kernels/nsa_gate_bwd.cu", "nsa_gate_bwd", THREADS,
                          SAC_NSA_VIEWS(&job->args.q, &g->dout, &g->branch_out, &g->branch_dout));
    sac_kernel_define(&spec, "FOLDED", !g->branch_dout.data);
    return walk(job, &spec, &work);
}

/* ---- dq and dw_gate ---- */

/* Lanes of a row keep to one head: each such group of lanes leaves one part of its head's dw_gate. */
static int64_t num_parts(const sac_nsa_job *job) {
    const int64_t rows_a_cta = THREADS / sac_nsa_cuda_row_lanes(&job->args);
    return sac_nsa_cuda_walk_ctas(job, job->args.num_heads, THREADS) * rows_a_cta / job->args.num_heads;
}

size_t sac_nsa_cuda_query_grads_scratch(const sac_nsa_job *job) {
    const sac_nsa_args *args = &job->args;
    if (!args->w_gate) return 0;
    return (size_t)(num_parts(job) * args->num_heads * 3 * args->head_dim) * sizeof(float);
}

saccade_status sac_nsa_cuda_query_grads(const sac_nsa_job *job, const sac_nsa_query_grads *g, void *scratch) {
    const sac_nsa_args *args = &job->args;
    if (!g->dq.data && !g->dw_gate) return SACCADE_OK;
    const sac_nsa_query_grads_work work = {.branch_dq = {g->branch_dq[0], g->branch_dq[1], g->branch_dq[2]},
                                           .dq = g->dq,
                                           .dgates = g->dgates.data,
                                           .dgates_row_stride = g->dgates.row_stride,
                                           .dw_part = g->dw_gate ? scratch : NULL};
    const sac_kernel_spec spec = sac_nsa_cuda_spec(
        args, "cuda/kernels/nsa_query_grads.cu", "nsa_query_grads", THREADS,
        SAC_NSA_VIEWS(&args->q, &g->branch_dq[0], &g->branch_dq[1], &g->branch_dq[2], &g->dq));
    saccade_status status = walk(job, &spec, &work);
    if (status != SACCADE_OK || !g->dw_gate) return status;
    const int64_t size = (int64_t)args->num_heads * 3 * args->head_dim;
    return sac_nsa_cuda_sum_parts(job, scratch, (int32_t)num_parts(job), size, g->dw_gate);
}
