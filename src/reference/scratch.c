/* scratch.c - the workspace: first what all threads share, then an equal part for each thread. */
#include "reference/scratch.h"

#include <math.h>
#include <string.h>

#include "reference/reference.h"

size_t sac_reference_shared_doubles(const sac_attention_call *call) {
    size_t count = (size_t)call->args.batch * (size_t)call->args.num_heads;
    for (int slot = 0; slot < SACCADE_MAX_AUX; slot++)
        if (call->args.score_aux.tensor[slot].grad) count += (size_t)call->args.score_aux.tensor[slot].count;
    return count;
}

int sac_reference_threads(const saccade_context *ctx, const sac_attention_call *call) {
    int64_t items = (int64_t)call->args.batch * call->args.num_kv_heads;
    for (int slot = 0; slot < SACCADE_MAX_AUX; slot++)
        if (call->args.score_aux.tensor[slot].grad) return 1;
    return items < 1 ? 1 : items < ctx->num_threads ? (int)items : ctx->num_threads;
}

/* Lays the arrays one after another from `base` (NULL: only measures) and returns their length in doubles. */
static size_t lay_out(const sac_attention_args *args, double *base, sac_reference_scratch *scratch) {
    size_t keys = (size_t)args->len_k.seqlen, dim = (size_t)args->head_dim, dim_v = (size_t)args->head_dim_v;
    struct {
        double **array;
        size_t length;
    } parts[] = {{&scratch->scaled, keys},   {&scratch->score, keys},     {&scratch->grad, keys},
                 {&scratch->q, dim},         {&scratch->k, dim},          {&scratch->dq, dim},
                 {&scratch->v, dim_v},       {&scratch->dout, dim_v},     {&scratch->out, dim_v},
                 {&scratch->dk, keys * dim}, {&scratch->dv, keys * dim_v}};
    size_t length = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (base) *parts[i].array = base + length;
        length += parts[i].length;
    }
    if (base) scratch->visible = (uint8_t *)(base + length);
    return length + (keys + sizeof(double) - 1) / sizeof(double);
}

sac_reference_scratch sac_reference_scratch_of(const sac_attention_call *call, int thread) {
    sac_reference_scratch scratch = {0};
    size_t part = lay_out(&call->args, NULL, &scratch);
    lay_out(&call->args,
            (double *)call->workspace + sac_reference_shared_doubles(call) + part * (size_t)thread, &scratch);
    return scratch;
}

size_t sac_reference_workspace(saccade_context *ctx, const sac_attention_call *call, bool backward) {
    sac_reference_scratch measured;
    size_t part = lay_out(&call->args, NULL, &measured);
    size_t threads = (size_t)sac_reference_threads(ctx, call);
    (void)backward; /* one layout for both passes */
    return (sac_reference_shared_doubles(call) + part * threads) * sizeof(double);
}

void sac_reference_clear(const sac_attention_call *call, const sac_view *view, int32_t num_heads,
                         int32_t head_dim, const sac_lengths *len, int64_t total_rows) {
    if (!view->data) return;
    size_t size = sac_number_size((sac_dtype)call->args.dtype);
    int32_t batch = len->cu_seqlens ? 1 : call->args.batch;
    int64_t rows = len->cu_seqlens ? total_rows : len->seqlen;
    for (int32_t b = 0; b < batch; b++)
        for (int64_t row = 0; row < rows; row++)
            for (int32_t h = 0; h < num_heads; h++) {
                int64_t offset = sac_reference_offset(view, b, row, h) * (int64_t)size;
                memset((char *)view->data + offset, 0, (size_t)head_dim * size);
            }
}

void sac_reference_clear_lse(const sac_attention_call *call) {
    const sac_row_view *lse = &call->args.lse;
    const sac_lengths *len = &call->args.len_q;
    if (!lse->data) return;
    int32_t batch = len->cu_seqlens ? 1 : call->args.batch;
    int64_t rows = len->cu_seqlens ? call->total_q : len->seqlen;
    for (int32_t b = 0; b < batch; b++)
        for (int32_t h = 0; h < call->args.num_heads; h++)
            for (int64_t row = 0; row < rows; row++)
                lse->data[b * lse->batch_stride + h * lse->head_stride + row * lse->row_stride] = -INFINITY;
}
