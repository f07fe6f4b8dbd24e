/* forward.c - out = sum of exp(score - lse) v over the visible keys. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "reference/reference.h"
#include "reference/scratch.h"

static void forward_row(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch) {
    const sac_attention_args *args = &head->call->args;
    sac_reference_row(head, i, scratch);
    if (scratch->lse == -INFINITY) return;
    memset(scratch->out, 0, (size_t)args->head_dim_v * sizeof(double));
    for (int32_t j = 0; j < head->k_len; j++) {
        if (!scratch->visible[j]) continue;
        int64_t offset = sac_reference_offset(&args->v, head->b, head->k_row + j, head->kv_head);
        sac_number_read(scratch->v, args->v.data, (sac_dtype)args->dtype, offset, args->head_dim_v);
        double p = exp(scratch->score[j] - scratch->lse);
        for (int32_t d = 0; d < args->head_dim_v; d++) scratch->out[d] += p * scratch->v[d];
    }
    sac_number_write(args->out.data, (sac_dtype)args->dtype,
                     sac_reference_offset(&args->out, head->b, head->q_row + i, head->h), scratch->out,
                     args->head_dim_v);
    const sac_row_view *lse = &args->lse;
    if (lse->data)
        lse->data[head->b * lse->batch_stride + head->h * lse->head_stride +
                  (head->q_row + i) * lse->row_stride] = (float)scratch->lse;
}

saccade_status sac_reference_forward(saccade_context *ctx, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    SAC_TRY(sac_reference_ready(ctx, call, false));
    sac_reference_clear(call, &args->out, args->num_heads, args->head_dim_v, &args->len_q, call->total_q);
    sac_reference_clear_lse(call);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(sac_reference_threads(ctx, call))
    for (int32_t b = 0; b < args->batch; b++)
        for (int32_t h = 0; h < args->num_heads; h++) {
            sac_reference_head head = sac_reference_head_of(call, b, h);
            sac_reference_scratch scratch = sac_reference_scratch_of(call, omp_get_thread_num());
            for (int32_t i = 0; i < head.q_len; i++) forward_row(&head, i, &scratch);
        }
    return SACCADE_OK;
}
