/* nsa_standard.c - the stages of a call that is like most, run for the sake of the kernels they would launch. */
#include "base/error.h"
#include "cuda/nsa.h"
#include "cuda/nsa_select.h"

enum { HEADS = 32, KV_HEADS = 8, TOKENS = 8192, BLOCK = 64, TOP_K = 16, BOTH_PARTS = 2 };

/* Only which pointers are there matters, and that rows start at multiples of 16 bytes. */
static char there[64] __attribute__((aligned(64)));

/* One choice for 256 queries by logits, or each query its own by probabilities. */
static sac_nsa_args args_of(int32_t dtype, int32_t head_dim, int32_t head_dim_v, bool per_query) {
    const int32_t group = HEADS / KV_HEADS, tile = per_query ? 1 : 256,
                  heads_per_list = per_query ? group : 1;
    const sac_view view = {.data = there, .batch_stride = 1 << 20, .row_stride = 256, .head_stride = 1 << 12};
    return (sac_nsa_args){.q = view,
                          .k = view,
                          .v = view,
                          .k_cmp = view,
                          .v_cmp = view,
                          .w_gate = there,
                          .indices = {.data = (int32_t *)there, .top_k = TOP_K},
                          .lse_cmp.data = per_query ? (float *)there : NULL,
                          .len.seqlen = TOKENS,
                          .dtype = dtype,
                          .batch = 1,
                          .num_heads = HEADS,
                          .num_kv_heads = KV_HEADS,
                          .group = group,
                          .head_dim = head_dim,
                          .head_dim_v = head_dim_v,
                          .block = BLOCK,
                          .query_tile = tile,
                          .score = per_query ? SAC_NSA_PROBABILITIES : SAC_NSA_LOGITS,
                          .num_lists = HEADS / heads_per_list,
                          .heads_per_list = heads_per_list,
                          .rows = TOKENS,
                          .cmp_rows = TOKENS / BLOCK,
                          .max_cmp = TOKENS / BLOCK,
                          .tiles = TOKENS / tile,
                          .max_tiles = TOKENS / tile,
                          .scale = 1};
}

static saccade_status forward(const sac_nsa_job *job) {
    const sac_view branches[] = {job->args.q, job->args.q, job->args.q};
    int32_t *offsets = (int32_t *)there;
    SAC_TRY(sac_nsa_cuda_offsets(job, offsets, offsets));
    SAC_TRY(sac_nsa_cuda_compress(job, there));
    SAC_TRY(sac_nsa_cuda_select(job, there, NULL));
    return sac_nsa_cuda_gate(job, branches, &job->args.q);
}

static saccade_status backward(const sac_nsa_job *job) {
    const sac_view view = job->args.q;
    const sac_nsa_gate_values dgates = {.data = (float *)there, .row_stride = 3 * HEADS};
    const sac_nsa_gate_grads gate = {.dout = view, .branch_out = view, .branch_dout = view, .dgates = dgates};
    const sac_nsa_query_grads queries = {
        .branch_dq = {view, view, view}, .dq = view, .dgates = dgates, .dw_gate = (float *)there};
    const sac_nsa_key_grads keys = {
        .branch = {view, view, view}, .sum = view, .parts = BOTH_PARTS, .part_stride = 1 << 20};
    const sac_nsa_gate_grads folded = {.dout = view, .branch_out = view, .dgates = dgates};
    SAC_TRY(sac_nsa_cuda_gate_backward(job, &gate));
    SAC_TRY(sac_nsa_cuda_gate_backward(job, &folded));
    SAC_TRY(sac_nsa_cuda_query_grads(job, &queries, there));
    return sac_nsa_cuda_key_grads(job, &keys, &keys, there);
}

saccade_status sac_nsa_cuda_standard(const sac_nsa_visitor *visitor, int32_t dtype, int32_t head_dim,
                                     int32_t head_dim_v) {
    for (int per_query = 0; per_query < 2; per_query++) {
        const sac_nsa_job job = {.args = args_of(dtype, head_dim, head_dim_v, per_query), .visitor = visitor};
        SAC_TRY(forward(&job));
        SAC_TRY(backward(&job));
    }
    return SACCADE_OK;
}
