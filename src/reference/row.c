/* row.c - one row's scores: scale q.k, softcap, ALiBi, score_mod, in this order. */
#include "reference/row.h"

#include <math.h>

#include "mod/modifier.h"

static int32_t length_of(const sac_lengths *len, int32_t b) {
    if (len->seqused) return len->seqused[b];
    return len->cu_seqlens ? len->cu_seqlens[b + 1] - len->cu_seqlens[b] : len->seqlen;
}

sac_reference_head sac_reference_head_of(const sac_attention_call *call, int32_t b, int32_t h) {
    const sac_attention_args *args = &call->args;
    return (sac_reference_head){
        .call = call,
        .b = b,
        .h = h,
        .kv_head = args->group ? h / args->group : 0, /* a group of none: q has no heads */
        .q_row = args->len_q.cu_seqlens ? args->len_q.cu_seqlens[b] : 0,
        .k_row = args->len_k.cu_seqlens ? args->len_k.cu_seqlens[b] : 0,
        .q_len = length_of(&args->len_q, b),
        .k_len = length_of(&args->len_k, b),
    };
}

int64_t sac_reference_offset(const sac_view *view, int32_t b, int64_t row, int32_t h) {
    return b * view->batch_stride + row * view->row_stride + h * view->head_stride;
}

double sac_reference_dot(const double *a, const double *b, int32_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t d = 0; d < n; d++) sum += a[d] * b[d];
    return sum;
}

static double capped(const sac_attention_args *args, double scaled) {
    return args->softcap > 0 ? args->softcap * tanh(scaled / args->softcap) : scaled;
}

static double alibi(const sac_reference_head *head, int32_t i, int32_t j) {
    const sac_attention_args *args = &head->call->args;
    if (!args->alibi_slopes) return 0;
    double slope = args->alibi_slopes[head->b * args->alibi_batch_stride + head->h];
    return -slope * fabs((double)i + head->k_len - head->q_len - j);
}

/* What the score_mod is given. */
static double before_score_mod(const sac_reference_head *head, int32_t i, int32_t j, double scaled) {
    return capped(&head->call->args, scaled) + alibi(head, i, j);
}

static double score_of(const sac_reference_head *head, int32_t i, int32_t j, double scaled) {
    double score = before_score_mod(head, i, j, scaled);
    if (!head->call->score_mod) return score;
    float modified = (float)score; /* a score_mod computes in fp32, as its contract says */
    sac_score_row(head->call->score_mod, &modified, 1, head->b, head->h, i, j, &head->call->args.score_aux);
    return modified;
}

/* log of the sum of exp(score) over what the row sees and its sink. */
static double lse_of(const sac_reference_head *head, const sac_reference_scratch *scratch) {
    const float *sink = head->call->args.sink;
    double max = -INFINITY, sum = 0;
    bool sees_something = false;
    for (int32_t j = 0; j < head->k_len; j++) {
        if (!scratch->visible[j]) continue;
        if (scratch->score[j] > max) max = scratch->score[j];
        if (scratch->score[j] != -INFINITY) sees_something = true; /* NaN is something */
    }
    if (!sees_something) return -INFINITY;
    if (sink && sink[head->h] > max) max = sink[head->h];
    if (max == -INFINITY) max = 0; /* all NaN */
    for (int32_t j = 0; j < head->k_len; j++)
        if (scratch->visible[j]) sum += exp(scratch->score[j] - max);
    if (sink) sum += exp(sink[head->h] - max);
    return max + log(sum);
}

void sac_reference_row(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch) {
    const sac_attention_args *args = &head->call->args;
    sac_reference_visible(head, i, scratch->visible);
    sac_number_read(scratch->q, args->q.data, (sac_dtype)args->dtype,
                    sac_reference_offset(&args->q, head->b, head->q_row + i, head->h), args->head_dim);
    for (int32_t j = 0; j < head->k_len; j++) {
        if (!scratch->visible[j]) continue;
        int64_t offset = sac_reference_offset(&args->k, head->b, head->k_row + j, head->kv_head);
        sac_number_read(scratch->k, args->k.data, (sac_dtype)args->dtype, offset, args->head_dim);
        scratch->scaled[j] = args->scale * sac_reference_dot(scratch->q, scratch->k, args->head_dim);
        scratch->score[j] = score_of(head, i, j, scratch->scaled[j]);
    }
    scratch->lse = lse_of(head, scratch);
}

void sac_reference_row_grad(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch,
                            const saccade_aux *aux) {
    const sac_attention_args *args = &head->call->args;
    for (int32_t j = 0; j < head->k_len; j++) {
        if (!scratch->visible[j]) continue;
        if (head->call->score_mod) {
            float grad = (float)scratch->grad[j];
            float score = (float)before_score_mod(head, i, j, scratch->scaled[j]);
            sac_score_grad_row(head->call->score_mod, &grad, &score, 1, head->b, head->h, i, j, aux);
            scratch->grad[j] = grad;
        }
        if (args->softcap > 0) { /* d/dx c tanh(x / c) = 1 - tanh(x / c)^2 */
            double t = tanh(scratch->scaled[j] / args->softcap);
            scratch->grad[j] *= 1 - t * t;
        }
    }
}
