/* attn_bwd_diagonal_sm90.c - launch of kernels/attn_bwd_diagonal_sm90.cu, and which key blocks are left to it. */
#include "cuda/attn_bwd_diagonal_sm90.h"

#include "cuda/attn_sm90.h"
#include "mask/block_mask.h"

int32_t sac_attn_bwd_diagonals_from(const sac_attention_call *call) {
    const bool has_some = call->args.blocks.period && call->grad_parts <= 1;
    return has_some ? call->block_mask->diagonals_from : call->args.blocks.num_kv_blocks;
}
bool sac_attn_bwd_has_diagonals(const sac_attention_call *call) {
    return sac_attn_bwd_diagonals_from(call) < call->args.blocks.num_kv_blocks;
}

/* The lanes that share a key hold 16 columns each. */
enum { DIAGONAL_THREADS = 128, DIAGONAL_CTAS = 4 };
static int32_t key_lanes_of(const sac_attention_args *args) {
    const int32_t panels = sac_ceil_div(sac_max(args->head_dim, args->head_dim_v), 64);
    return panels <= 2 ? 4 * panels : 16;
}

sac_kernel_spec sac_attn_bwd_diagonal_sm90_spec(const sac_attention_call *call, bool sum_dq) {
    sac_kernel_spec spec = {.source = "cuda/kernels/attn_bwd_diagonal_sm90.cu",
                            .entry = "attn_bwd_diagonal_sm90",
                            .arch_specific = true,
                            .threads = DIAGONAL_THREADS};
    sac_sm90_define(&spec, call);
    sac_kernel_define(&spec, "KEY_LANES", key_lanes_of(&call->args));
    sac_kernel_define(&spec, "NUM_THREADS", DIAGONAL_THREADS);
    sac_kernel_define(&spec, "MIN_CTAS", DIAGONAL_CTAS);
    sac_kernel_define(&spec, "SUM_DQ", sum_dq);
    return spec;
}

saccade_status sac_attn_bwd_diagonal_sm90(const sac_portable_job *job, const sac_attention_call *call,
                                          const sac_attn_bwd_sm90_params *common) {
    const sac_attention_args *args = &job->args;
    sac_attn_bwd_sm90_params params = *common;
    const int32_t rows = DIAGONAL_THREADS / key_lanes_of(args), from = sac_attn_bwd_diagonals_from(call);
    const int32_t blocks = sac_min(sac_blocks_a_period(&args->blocks), args->blocks.num_kv_blocks - from);
    const int64_t tiles_a_period = (int64_t)blocks * sac_ceil_div(args->blocks.kv_block, rows);
    params.diagonals_from = from;
    sac_kernel_spec spec = sac_attn_bwd_diagonal_sm90_spec(call, params.dq_sum != NULL);
    spec.modifiers = job->modifiers;
    return job->launch(job->ctx, job->device, &spec, tiles_a_period * args->num_kv_heads * args->batch,
                       (void *[]){&params});
}
