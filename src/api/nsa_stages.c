/* nsa_stages.c - the stages of native sparse attention by themselves, for whoever composes them otherwise. */
#include "api/attention_check.h"
#include "api/nsa_check.h"
#include "base/tensor_check.h"
#include "api/workspace.h"
#include "base/context.h"
#include "base/error.h"

/* A checked call with memory for the offsets of packed sequences and the stage's scratch. */
typedef struct stage {
    sac_nsa_call call;
    const sac_nsa_stages *stages;
    sac_nsa_job job;
    sac_workspace workspace;
    void *scratch;
} stage;

enum { ALIGNMENT = 64 };

/* Of both. */
static size_t offset_bytes(const sac_nsa_args *args) {
    const size_t bytes = 2 * ((size_t)args->batch + 1) * sizeof(int32_t);
    return args->len.cu_seqlens ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : 0;
}

static void end(const stage *s) {
    sac_workspace_release(s->job.ctx, s->call.backend[0], s->job.device, &s->workspace);
}

static saccade_status begin(saccade_context *ctx, const sac_nsa_inputs *in, stage *s) {
    SAC_TRY(sac_nsa_prepare(ctx, in, &s->call));
    s->stages = sac_nsa_stages_on(s->call.whole.device);
    s->job = (sac_nsa_job){.ctx = ctx, .device = s->call.whole.device, .args = s->call.args};
    sac_nsa_args *args = &s->job.args;
    const size_t offsets = offset_bytes(args);
    SAC_TRY(sac_workspace_get(ctx, s->call.backend[0], s->job.device,
                              offsets + s->stages->scratch_bytes(&s->job, false), in->params->workspace,
                              in->params->workspace_bytes, &s->workspace));
    s->scratch = (char *)s->workspace.data + offsets;
    if (!args->len.cu_seqlens) return SACCADE_OK;
    int32_t *cu_cmp = s->workspace.data, *cu_tiles = cu_cmp + args->batch + 1;
    args->cu_cmp = cu_cmp;
    args->cu_tiles = cu_tiles;
    const saccade_status status = s->stages->offsets(&s->job, cu_cmp, cu_tiles);
    if (status != SACCADE_OK) end(s);
    return status;
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
    if (status == SACCADE_OK) status = s.stages->compress(&s.job, s.scratch);
    end(&s);
    return status;
}

saccade_status saccade_nsa_select(saccade_context *ctx, const saccade_nsa_tensors *t,
                                  const saccade_nsa_params *params) {
    sac_nsa_inputs in = inputs_of(t, NULL, params);
    stage s;
    saccade_status status = begin(ctx, &in, &s);
    if (status != SACCADE_OK) return status;
    status = need(t, true, false, true);
    s.job.args.compressed_indices.top_k = 0; /* of the compressed branch alone, and not asked for here */
    if (status == SACCADE_OK) status = s.stages->select(&s.job, s.scratch, NULL);
    end(&s);
    return status;
}

saccade_status saccade_nsa_score_blocks(saccade_context *ctx, const saccade_nsa_tensors *t, DLTensor *scores,
                                        const saccade_nsa_params *params) {
    sac_nsa_inputs in = inputs_of(t, NULL, params);
    stage s;
    saccade_status status = begin(ctx, &in, &s);
    if (status != SACCADE_OK) return status;
    const sac_nsa_args *args = &s.job.args;
    const bool packed = args->len.cu_seqlens != NULL;
    const int64_t tiles = packed ? args->tiles : args->max_tiles;
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
    if (status == SACCADE_OK) status = s.stages->score(&s.job, sac_tensor_data(scores), s.scratch);
    end(&s);
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
    if (status == SACCADE_OK) status = s.stages->gate(&s.job, views, &s.call.whole.args.out);
    end(&s);
    return status;
}
