/* attn_bwd_dq_convert_sm90.c - launch of kernels/attn_bwd_dq_convert_sm90.cu. */
#include "cuda/attn_bwd_dq_convert_sm90.h"

#include "base/error.h"
#include "cuda/attn_sm90.h"

enum { CONVERT_THREADS = 256 };

sac_kernel_spec sac_attn_bwd_dq_convert_sm90_spec(const sac_attention_args *args) {
    sac_kernel_spec spec = {.source = "cuda/kernels/attn_bwd_dq_convert_sm90.cu",
                            .entry = "attn_bwd_dq_convert_sm90",
                            .arch_specific = true,
                            .threads = CONVERT_THREADS};
    sac_kernel_define(&spec, "HEAD_DIM", args->head_dim);
    sac_kernel_define(&spec, "DTYPE", args->dtype);
    sac_kernel_define(&spec, "RAGGED", sac_sm90_ragged(args));
    sac_kernel_define(&spec, "PACK", args->blocks.by_query.bits != NULL);
    return spec;
}

saccade_status sac_attn_bwd_dq_convert_sm90(const sac_portable_job *job,
                                            const sac_attn_bwd_sm90_params *params) {
    const sac_kernel_spec spec = sac_attn_bwd_dq_convert_sm90_spec(&params->args);
    const int32_t lists = params->args.num_heads / params->pieces.heads;
    const int64_t groups = params->sum_rows / SAC_SUM_ROWS * lists, warps = CONVERT_THREADS / 32;
    return job->launch(job->ctx, job->device, &spec, (groups + warps - 1) / warps,
                       (void *[]){(void *)params});
}

/* The sums of dK or dV lie as those of a dQ whose heads are key heads and share no lists. */
static saccade_status convert_key_sums(const sac_portable_job *job,
                                       const sac_attn_bwd_sm90_params *of_queries, float *sums,
                                       const sac_view *grads, int32_t head_dim, float scale) {
    sac_attn_bwd_sm90_params params = *of_queries;
    if (!sums || !grads->data) return SACCADE_OK;
    params.args.dq = *grads;
    params.args.len_q = params.args.len_k;
    params.args.num_heads = params.args.num_kv_heads;
    params.args.head_dim = head_dim;
    params.args.scale = scale;
    params.args.blocks.by_query.bits = NULL;
    params.pieces = (sac_query_pieces){.heads = 1};
    params.sum_rows = params.key_sum_rows;
    params.dq_sum = sums;
    return sac_attn_bwd_dq_convert_sm90(job, &params);
}

saccade_status sac_attn_bwd_key_sums_convert_sm90(const sac_portable_job *job,
                                                  const sac_attn_bwd_sm90_params *params) {
    const sac_attention_args *args = &job->args;
    SAC_TRY(convert_key_sums(job, params, params->dk_sum, &args->dk, args->head_dim, args->scale));
    return convert_key_sums(job, params, params->dv_sum, &args->dv, args->head_dim_v, 1);
}
