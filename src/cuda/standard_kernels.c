/* standard_kernels.c - standard calls x families of kernels.
 *
 * The one list of what is compiled beforehand. A new kind of call is a row of `kinds`, a new family of kernels a row of
 * `families`. Nothing with a modifier's text is standard, and fp32 is not: it is for checking.
 */
#include "cuda/standard_kernels.h"

#include <stdlib.h>

#include "cuda/attn_bwd_dq_convert_sm90.h"
#include "cuda/attn_bwd_dq_sm90.h"
#include "cuda/attn_bwd_sm90.h"
#include "cuda/attn_fwd_sm90.h"
#include "cuda/kernels/attn_fwd_sm90.h"
#include "cuda/mask_lists.h"
#include "cuda/nsa.h"

/* ---- the calls ---- */

static const sac_dtype dtypes[] = {SAC_BF16, SAC_F16};

static const int32_t head_dims[][2] = {{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}};

/* What makes another kernel of the same dtype and head dims. Causal masks, windows and lengths are data. */
typedef struct call_kind {
    int32_t seqlen_q;
    bool shared_keys, ragged, deterministic;
    int32_t kv_block; /* of a block mask; 0: none */
    bool shared_lists;
} call_kind;

static const call_kind kinds[] = {
    {.seqlen_q = 8192},
    {.seqlen_q = 1}, /* decoding: the keys are split */
    {.seqlen_q = 1, .shared_keys = true},
    {.seqlen_q = 8192, .ragged = true},
    {.seqlen_q = 8192, .kv_block = 128}, /* of lists alone */
    {.seqlen_q = 8192, .kv_block = 64},  /* likewise, as native sparse attention makes them */
    {.seqlen_q = 8192, .kv_block = 64, .shared_keys = true, .shared_lists = true}, /* each query its own */
    {.seqlen_q = 8192, .deterministic = true},
};

sac_attention_call sac_call_to_compile(sac_dtype dtype, int32_t head_dim, int32_t head_dim_v,
                                       int32_t seqlen_q, int32_t group, void *there) {
    enum { HEADS = 8, SEQLEN_K = 8192 };
    const sac_view view = {.data = there, .batch_stride = 1 << 20, .row_stride = 256, .head_stride = 1 << 12};
    return (sac_attention_call){.total_q = seqlen_q,
                                .total_k = SEQLEN_K,
                                .args = {.q = view,
                                         .k = view,
                                         .v = view,
                                         .out = view,
                                         .dout = view,
                                         .dq = view,
                                         .dk = view,
                                         .dv = view,
                                         .len_q.seqlen = seqlen_q,
                                         .len_k.seqlen = SEQLEN_K,
                                         .dtype = dtype,
                                         .batch = 1,
                                         .num_heads = HEADS,
                                         .num_kv_heads = HEADS / group,
                                         .group = group,
                                         .head_dim = head_dim,
                                         .head_dim_v = head_dim_v,
                                         .scale = 1}};
}

static char there[64] __attribute__((aligned(64)));

static sac_attention_call make_call(const call_kind *kind, sac_dtype dtype, int32_t head_dim,
                                    int32_t head_dim_v) {
    sac_attention_call call =
        sac_call_to_compile(dtype, head_dim, head_dim_v, kind->seqlen_q, kind->shared_keys ? 4 : 1, there);
    call.args.deterministic = kind->deterministic;
    if (kind->ragged) call.args.len_q.cu_seqlens = call.args.len_k.cu_seqlens = (const int32_t *)there;
    if (kind->kv_block)
        call.args.blocks = (sac_block_mask_args){.by_query.offsets = (const int64_t *)there,
                                                 .by_key.offsets = (const int64_t *)there,
                                                 .q_block = 128,
                                                 .kv_block = kind->kv_block};
    if (kind->shared_lists) {
        sac_block_mask_args *blocks = &call.args.blocks;
        blocks->by_query.bits = blocks->by_key.bits = (const uint32_t *)there;
        blocks->q_block = 16, blocks->part = 1;
        blocks->num_heads = call.args.num_kv_heads, blocks->heads_per_list = call.args.group;
    }
    return call;
}

/* ---- the families ---- */

/* Of shared lists, which the Hopper backward walks up to some head_dim: there the portable kernels are not needed. */
static bool hopper_walks_both_ways(const sac_cuda_device *device, const sac_attention_call *call) {
    return device->compute_capability == 90 &&
           sac_max(call->args.head_dim, call->args.head_dim_v) <= SAC_SM90_MOST_GATHERED;
}

static saccade_status portable(const sac_cuda_device *device, const sac_attention_call *call,
                               sac_launch_fn visit) {
    sac_portable_job job = {.device = device, .launch = visit, .args = call->args};
    if (call->args.blocks.by_query.bits && hopper_walks_both_ways(device, call)) return SACCADE_OK;
    int32_t dtype = call->args.dtype, d = call->args.head_dim, dv = call->args.head_dim_v;
    sac_portable_plan_forward(device, call, there, &job.plan);
    if (sac_portable_serves_forward(dtype, d, dv, device->smem_bytes))
        SAC_TRY(sac_portable_launch_forward(&job));
    sac_portable_plan_backward(call, there, &job.plan);
    return sac_portable_serves_backward(dtype, d, dv, device->smem_bytes) ? sac_portable_launch_backward(&job)
                                                                          : SACCADE_OK;
}

static saccade_status hopper_forward(const sac_cuda_device *device, const sac_attention_call *call,
                                     sac_launch_fn visit) {
    if (device->compute_capability != 90) return SACCADE_OK;
    /* By itself, or, where no blocks are listed, the last of the branches of native sparse attention. */
    for (int form = 0; form < (call->args.blocks.by_query.offsets || call->args.head_dim_v > 128 ? 2 : 4);
         form++) {
        sac_kernel_spec spec;
        char *modifiers;
        const int32_t joined = form < 2 ? 0 : SAC_SM90_MOST_OTHERS + 1;
        saccade_status status = sac_attn_fwd_sm90_spec(call, joined, form % 2, &spec, &modifiers);
        if (status == SACCADE_OK) status = visit(NULL, device, &spec, 1, NULL);
        free(modifiers);
        if (status != SACCADE_OK) return status;
    }
    return SACCADE_OK;
}

static saccade_status hopper_backward(const sac_cuda_device *device, const sac_attention_call *call,
                                      sac_launch_fn visit) {
    if (device->compute_capability != 90) return SACCADE_OK;
    if (call->args.blocks.by_query.bits && !hopper_walks_both_ways(device, call)) return SACCADE_OK;
    const bool sums_dq = sac_attn_bwd_sm90_sums_dq(call);
    const sac_kernel_spec keys = sac_attn_bwd_sm90_spec(call, sums_dq);
    sac_kernel_spec dq = sac_attn_bwd_dq_convert_sm90_spec(&call->args);
    if (!sums_dq) sac_attn_bwd_dq_sm90_spec(call, false, &dq);
    SAC_TRY(visit(NULL, device, &keys, 1, NULL));
    return visit(NULL, device, &dq, 1, NULL);
}

static saccade_status (*const families[])(const sac_cuda_device *device, const sac_attention_call *call,
                                          sac_launch_fn visit) = {portable, hopper_forward, hopper_backward};

saccade_status sac_standard_kernels(int32_t compute_capability, sac_launch_fn visit) {
    const sac_cuda_device device = {.compute_capability = compute_capability,
                                    .num_sms = 132,
                                    .smem_bytes = sac_cuda_smem_of(compute_capability),
                                    .l2_bytes = 50 << 20};
    for (int i = 0; i < SAC_NUM_MASK_KERNELS; i++)
        if (i != SAC_MASK_CLASSIFY) SAC_TRY(visit(NULL, &device, &sac_mask_kernels[i], 1, NULL));
#define EACH(item, list) for (size_t item = 0; item < sizeof(list) / sizeof *(list); item++)
    const sac_nsa_visitor visitor = {visit, &device};
    EACH(t, dtypes)
    EACH(d, head_dims)
    SAC_TRY(sac_nsa_cuda_standard(&visitor, dtypes[t], head_dims[d][0], head_dims[d][1]));
    EACH(t, dtypes)
    EACH(d, head_dims)
    EACH(k, kinds) {
        sac_attention_call call = make_call(&kinds[k], dtypes[t], head_dims[d][0], head_dims[d][1]);
        EACH(f, families) SAC_TRY(families[f](&device, &call, visit));
    }
#undef EACH
    return SACCADE_OK;
}
