/* backward.c - gradients by the textbook formula, from scores computed afresh in fp64:
 *
 *     p = exp(score - lse)          dp = dout . v          delta = sum of p dp
 *     dscore = p (dp - delta + dlse)          dsink = exp(sink - lse) (-delta + dlse)
 *     dv += p dout          dq += scale dscaled k          dk += scale dscaled q
 *
 * where dscaled is dscore taken back through score_mod and softcap.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "reference/reference.h"
#include "reference/scratch.h"

/* Leaves p in scratch->score, dscore in scratch->grad; returns what the row adds to dsink. */
static double softmax_grad(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch) {
    const sac_attention_args *args = &head->call->args;
    const sac_row_view *dlse_view = &args->dlse;
    double delta = 0, dlse = 0;
    if (dlse_view->data)
        dlse = dlse_view->data[head->b * dlse_view->batch_stride + head->h * dlse_view->head_stride +
                               (head->q_row + i) * dlse_view->row_stride];
    for (int32_t j = 0; j < head->k_len; j++) {
        if (!scratch->visible[j]) continue;
        int64_t offset = sac_reference_offset(&args->v, head->b, head->k_row + j, head->kv_head);
        sac_number_read(scratch->v, args->v.data, (sac_dtype)args->dtype, offset, args->head_dim_v);
        scratch->score[j] = exp(scratch->score[j] - scratch->lse);
        scratch->grad[j] = sac_reference_dot(scratch->dout, scratch->v, args->head_dim_v);
        delta += scratch->score[j] * scratch->grad[j];
    }
    for (int32_t j = 0; j < head->k_len; j++)
        if (scratch->visible[j]) scratch->grad[j] = scratch->score[j] * (scratch->grad[j] - delta + dlse);
    return args->sink ? exp(args->sink[head->h] - scratch->lse) * (dlse - delta) : 0;
}

/* Returns what the row adds to dsink. */
static double backward_row(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch,
                           const saccade_aux *aux) {
    const sac_attention_args *args = &head->call->args;
    int32_t dim = args->head_dim, dim_v = args->head_dim_v;
    sac_reference_row(head, i, scratch);
    if (scratch->lse == -INFINITY) return 0;
    sac_number_read(scratch->dout, args->dout.data, (sac_dtype)args->dtype,
                    sac_reference_offset(&args->dout, head->b, head->q_row + i, head->h), dim_v);
    double dsink = softmax_grad(head, i, scratch);
    sac_reference_row_grad(head, i, scratch, aux);

    memset(scratch->dq, 0, (size_t)dim * sizeof(double));
    for (int32_t j = 0; j < head->k_len; j++) {
        if (!scratch->visible[j]) continue;
        int64_t offset = sac_reference_offset(&args->k, head->b, head->k_row + j, head->kv_head);
        double p = scratch->score[j], dscaled = args->scale * scratch->grad[j];
        double *dk = scratch->dk + (size_t)j * (size_t)dim, *dv = scratch->dv + (size_t)j * (size_t)dim_v;
        sac_number_read(scratch->k, args->k.data, (sac_dtype)args->dtype, offset, dim);
        for (int32_t d = 0; d < dim; d++) scratch->dq[d] += dscaled * scratch->k[d];
        for (int32_t d = 0; d < dim; d++) dk[d] += dscaled * scratch->q[d];
        for (int32_t d = 0; d < dim_v; d++) dv[d] += p * scratch->dout[d];
    }
    if (args->dq.data)
        sac_number_write(args->dq.data, (sac_dtype)args->dtype,
                         sac_reference_offset(&args->dq, head->b, head->q_row + i, head->h), scratch->dq,
                         dim);
    return dsink;
}

/* A modifier adds to fp32 gradients. Emptying them into doubles after each row keeps long sums exact. */
static void collect_aux_grad(const saccade_aux *aux, double *sums) {
    for (int slot = 0; slot < SACCADE_MAX_AUX; slot++) {
        if (!aux->tensor[slot].grad) continue;
        int64_t size = aux->tensor[slot].count;
        for (int64_t i = 0; i < size; i++) *sums++ += aux->tensor[slot].grad[i];
        memset(aux->tensor[slot].grad, 0, (size_t)size * sizeof(float));
    }
}

static void write_aux_grad(const saccade_aux *aux, const double *sums) {
    for (int slot = 0; slot < SACCADE_MAX_AUX; slot++) {
        if (!aux->tensor[slot].grad) continue;
        int64_t size = aux->tensor[slot].count;
        for (int64_t i = 0; i < size; i++) aux->tensor[slot].grad[i] = (float)*sums++;
    }
}

/* One key head: its group of query heads one after another, so that dk and dv are their sums. */
static void backward_group(const sac_attention_call *call, int32_t b, int32_t kv_head,
                           sac_reference_scratch *scratch, double *shared) {
    const sac_attention_args *args = &call->args;
    size_t dim = (size_t)args->head_dim, dim_v = (size_t)args->head_dim_v;
    int64_t heads = (int64_t)args->batch * args->num_heads;
    sac_reference_head head = sac_reference_head_of(call, b, kv_head * args->group);
    memset(scratch->dk, 0, (size_t)head.k_len * dim * sizeof(double));
    memset(scratch->dv, 0, (size_t)head.k_len * dim_v * sizeof(double));
    for (int32_t g = 0; g < args->group; g++) {
        head = sac_reference_head_of(call, b, kv_head * args->group + g);
        double *dsink = &shared[(int64_t)b * args->num_heads + head.h];
        for (int32_t i = 0; i < head.q_len; i++) {
            *dsink += backward_row(&head, i, scratch, &args->score_aux);
            collect_aux_grad(&args->score_aux, shared + heads);
        }
    }
    for (int32_t j = 0; j < head.k_len; j++) {
        int64_t row = head.k_row + j;
        if (args->dk.data)
            sac_number_write(args->dk.data, (sac_dtype)args->dtype,
                             sac_reference_offset(&args->dk, b, row, kv_head), scratch->dk + (size_t)j * dim,
                             args->head_dim);
        if (args->dv.data)
            sac_number_write(args->dv.data, (sac_dtype)args->dtype,
                             sac_reference_offset(&args->dv, b, row, kv_head),
                             scratch->dv + (size_t)j * dim_v, args->head_dim_v);
    }
}

static void write_dsink(const sac_attention_args *args, const double *sums) {
    if (!args->dsink) return;
    for (int32_t h = 0; h < args->num_heads; h++) {
        double sum = 0;
        for (int32_t b = 0; b < args->batch; b++) sum += sums[(int64_t)b * args->num_heads + h];
        args->dsink[h] = (float)sum;
    }
}

static void clear_gradients(const sac_attention_call *call, double *shared) {
    const sac_attention_args *args = &call->args;
    sac_reference_clear(call, &args->dq, args->num_heads, args->head_dim, &args->len_q, call->total_q);
    sac_reference_clear(call, &args->dk, args->num_kv_heads, args->head_dim, &args->len_k, call->total_k);
    sac_reference_clear(call, &args->dv, args->num_kv_heads, args->head_dim_v, &args->len_k, call->total_k);
    memset(shared, 0, sac_reference_shared_doubles(call) * sizeof(double));
    for (int slot = 0; slot < SACCADE_MAX_AUX; slot++)
        if (args->score_aux.tensor[slot].grad)
            memset(args->score_aux.tensor[slot].grad, 0,
                   (size_t)args->score_aux.tensor[slot].count * sizeof(float));
}

saccade_status sac_reference_backward(saccade_context *ctx, const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    double *shared = call->workspace;
    SAC_TRY(sac_reference_ready(ctx, call, true));
    clear_gradients(call, shared);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(sac_reference_threads(ctx, call))
    for (int32_t b = 0; b < args->batch; b++)
        for (int32_t kv_head = 0; kv_head < args->num_kv_heads; kv_head++) {
            sac_reference_scratch scratch = sac_reference_scratch_of(call, omp_get_thread_num());
            backward_group(call, b, kv_head, &scratch, shared);
        }
    write_dsink(args, shared);
    write_aux_grad(&args->score_aux, shared + (int64_t)args->batch * args->num_heads);
    return SACCADE_OK;
}
