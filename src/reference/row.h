/* row.h - one query row of one head: which keys it sees, its scores, its LSE. Both passes start from it.
 *
 * The reference judges every other backend, so it shares no code with them: it reads the description of the
 * call (shared/attention_args.h) as data and decides visibility pair by pair from the definitions.
 */
#ifndef SAC_REFERENCE_ROW_H
#define SAC_REFERENCE_ROW_H

#include "base/attention_call.h"
#include "reference/number.h"

/* One sequence and one query head of a call. */
typedef struct sac_reference_head {
    const sac_attention_call *call;
    int32_t b, h, kv_head;
    int64_t q_row, k_row; /* first rows of the sequence in packed tensors, else 0 */
    int32_t q_len, k_len;
} sac_reference_head;

/* What one thread works with. Arrays over keys have k_len elements; only those of visible keys mean anything. */
typedef struct sac_reference_scratch {
    uint8_t *visible;
    double *scaled;          /* scale q.k */
    double *score;           /* after softcap, ALiBi and score_mod */
    double *grad;            /* dL/d score, then dL/d scaled */
    double *q, *k, *v;       /* one row each */
    double *out, *dout, *dq; /* one row each */
    double *dk, *dv;         /* (k_len, D), (k_len, Dv): sums over the group */
    double lse;              /* -inf: the row sees nothing */
} sac_reference_scratch;

sac_reference_head sac_reference_head_of(const sac_attention_call *call, int32_t b, int32_t h);

/* Fills visible for query i. */
void sac_reference_visible(const sac_reference_head *head, int32_t i, uint8_t *visible);

/* Fills visible, q, scaled, score and lse for query i. */
void sac_reference_row(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch);

/* From dL/d score of query i to dL/d scaled, in place; adds to the gradients in `aux`. */
void sac_reference_row_grad(const sac_reference_head *head, int32_t i, sac_reference_scratch *scratch,
                            const saccade_aux *aux);

/* Element offset of row i of the head `h` in a tensor. */
int64_t sac_reference_offset(const sac_view *view, int32_t b, int64_t row, int32_t h);

/* Sum of a[d] b[d]. */
double sac_reference_dot(const double *a, const double *b, int32_t n);

#endif
