/* nsa_stages.c - the stages of native sparse attention by themselves, for whoever composes them otherwise. */
#include <omp.h>

#include "api/attention_check.h"
#include "api/nsa_check.h"
#include "api/tensor_check.h"
#include "api/workspace.h"
#include "base/context.h"
#include "base/error.h"

/* A checked call with memory for the offsets of packed sequences and the scratch of scoring. */
typedef struct stage {
    sac_nsa_call call;
    sac_workspace workspace;
    float *scratch;
} stage;

static size_t offset_bytes(const sac_nsa_args *args) {
    return args->len.cu_seqlens ? ((size_t)args->batch + 1) * sizeof(int32_t) : 0;
}

static saccade_status begin(saccade_context *ctx, const sac_nsa_inputs *in, stage *s) {
    saccade_status status = sac_nsa_prepare(ctx, in, &s->call);
    if (status != SACCADE_OK) return status;
    sac_nsa_args *args = &s->call.args;
    const size_t offsets = offset_bytes(args);
    const size_t floats = (size_t)ctx->num_threads * (size_t)(args->max_cmp + sac_nsa_scratch_floats(args));
    status =
        sac_workspace_get(ctx, s->call.backend, s->call.whole.device, 2 * offsets + floats * sizeof(float),
                          in->params->workspace, in->params->workspace_bytes, &s->workspace);
    if (status != SACCADE_OK) return status;
    char *memory = s->workspace.data;
    s->scratch = (float *)(memory + 2 * offsets);
    if (!args->len.cu_seqlens) return SACCADE_OK;
    int32_t *cu_cmp = (int32_t *)memory, *cu_tiles = (int32_t *)(memory + offsets);
    sac_nsa_offsets(args, cu_cmp, cu_tiles);
    args->cu_cmp = cu_cmp;
    args->cu_tiles = cu_tiles;
    return SACCADE_OK;
}

static void end(saccade_context *ctx, const stage *s) {
    sac_workspace_release(ctx, s->call.backend, s->call.whole.device, &s->workspace);
}

static const saccade_nsa_params default_params;

static sac_nsa_inputs inputs_of(const saccade_nsa_tensors *t, DLTensor *out,
                                const saccade_nsa_params *params) {
    return (sac_nsa_inputs){
        .t = t, .out = out, .params = params ? params : &default_params, .purpose = SAC_NSA_FOR_STAGE};
}

static saccade_status need(const saccade_nsa_tensors *t, bool k_cmp, bool v_cmp, bool indices) {
    const char *missing = k_cmp && !t->k_cmp       ? "k_cmp"
                          : v_cmp && !t->v_cmp     ? "v_cmp"
                          : indices && !t->indices ? "indices"
                                                   : NULL;
    return missing ? sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", missing) : SACCADE_OK;
}

saccade_status saccade_nsa_compress(saccade_context *ctx, const saccade_nsa_tensors *t,
                                    const saccade_nsa_params *params) {
    sac_nsa_inputs in = inputs_of(t, NULL, params);
    stage s;
    saccade_status status = begin(ctx, &in, &s);
    if (status != SACCADE_OK) return status;
    status = need(t, true, true, false);
    if (status == SACCADE_OK) sac_nsa_compress(&s.call.args, ctx->num_threads);
    end(ctx, &s);
    return status;
}

saccade_status saccade_nsa_select(saccade_context *ctx, const saccade_nsa_tensors *t,
                                  const saccade_nsa_params *params) {
    sac_nsa_inputs in = inputs_of(t, NULL, params);
    stage s;
    saccade_status status = begin(ctx, &in, &s);
    if (status != SACCADE_OK) return status;
    status = need(t, true, false, true);
    s.call.args.compressed_indices.top_k = 0; /* of the compressed branch alone, and not asked for here */
    if (status == SACCADE_OK) sac_nsa_select(&s.call.args, s.scratch, ctx->num_threads);
    end(ctx, &s);
    return status;
}

static void score_all(const stage *s, float *scores, int64_t tiles, int32_t num_threads) {
    const sac_nsa_args *args = &s->call.args;
    const int64_t each = args->max_cmp + sac_nsa_scratch_floats(args);
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t count = sac_ceil_div(sac_length_of(&args->len, b), args->query_tile);
        const int64_t first = args->cu_tiles ? args->cu_tiles[b] : (int64_t)b * args->num_lists * tiles;
#pragma omp parallel for num_threads(num_threads) schedule(dynamic)
        for (int64_t i = 0; i < (int64_t)count * args->num_lists; i++) {
            const int32_t list = (int32_t)(i % args->num_lists), tile = (int32_t)(i / args->num_lists);
            sac_nsa_score_tile(args, b, list, tile, scores + (first + list * tiles + tile) * args->max_cmp,
                               s->scratch + omp_get_thread_num() * each);
        }
    }
}

saccade_status saccade_nsa_score_blocks(saccade_context *ctx, const saccade_nsa_tensors *t, DLTensor *scores,
                                        const saccade_nsa_params *params) {
    sac_nsa_inputs in = inputs_of(t, NULL, params);
    stage s;
    saccade_status status = begin(ctx, &in, &s);
    if (status != SACCADE_OK) return status;
    const sac_nsa_args *args = &s.call.args;
    const bool packed = args->len.cu_seqlens != NULL;
    const int64_t tiles = packed ? s.call.whole.total_q / args->query_tile + args->batch : args->max_tiles;
    sac_tensor_spec spec = {.name = "scores",
                            .dtype = SACCADE_F32,
                            .device = t->q->device,
                            .ndim = packed ? 3 : 4,
                            .extent = {args->batch, args->num_lists, tiles, args->max_cmp},
                            .written = true,
                            .contiguous = true};
    for (int d = 0; packed && d < 3; d++) spec.extent[d] = spec.extent[d + 1];
    status = need(t, true, false, false);
    if (status == SACCADE_OK) status = sac_tensor_check(scores, &spec);
    if (status == SACCADE_OK) score_all(&s, sac_tensor_data(scores), tiles, ctx->num_threads);
    end(ctx, &s);
    return status;
}

saccade_status saccade_nsa_gate(saccade_context *ctx, const saccade_nsa_tensors *t, const DLTensor *out_cmp,
                                const DLTensor *out_slc, const DLTensor *out_win, DLTensor *out,
                                const saccade_nsa_params *params) {
    static const char *const names[] = {"out_cmp", "out_slc", "out_win"};
    const DLTensor *branches[] = {out_cmp, out_slc, out_win};
    sac_nsa_inputs in = inputs_of(t, out, params);
    stage s;
    if (!out) return sac_fail(SACCADE_INVALID_ARGUMENT, "out: is NULL");
    saccade_status status = begin(ctx, &in, &s);
    if (status != SACCADE_OK) return status;
    sac_view views[SAC_NSA_NUM_BRANCHES];
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES && status == SACCADE_OK; branch++) {
        sac_tensor_spec spec = {
            .name = names[branch], .dtype = out->dtype, .device = out->device, .ndim = out->ndim};
        for (int d = 0; d < out->ndim; d++) spec.extent[d] = out->shape[d];
        status = sac_tensor_check(branches[branch], &spec);
        if (status == SACCADE_OK) views[branch] = sac_view_of(branches[branch]);
    }
    if (status == SACCADE_OK)
        sac_nsa_gate(&s.call.args, views, &s.call.whole.args.out, s.call.whole.total_q, ctx->num_threads);
    end(ctx, &s);
    return status;
}
