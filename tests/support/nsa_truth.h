/* nsa_truth.h - native sparse attention by its definition: pair by pair, in fp64, sharing nothing with what it judges.
 *
 * The same formula in a problem's dtype is the measure of a fair error: PLAIN rounds whatever a straightforward
 * program would store to the dtype, and its sums to fp32.
 */
#ifndef TEST_NSA_TRUTH_H
#define TEST_NSA_TRUTH_H

#include "support/nsa_problem.h"

typedef enum nsa_precision { NSA_EXACT, NSA_PLAIN } nsa_precision;

/* What the branches visit: data to them, since selection is not differentiated. */
typedef struct nsa_choice {
    const double *indices;    /* shaped as NSA_INDICES */
    const double *compressed; /* (.., compressed_top_k), NULL: all */
} nsa_choice;

/* Fills k_cmp and v_cmp. */
void nsa_truth_compress(const nsa_problem *p, nsa_precision precision, nsa_results *r);

/* Fills scores, exactly, as they follow from these compressed keys; -inf behind the candidates. */
void nsa_truth_scores(const nsa_problem *p, const double *k_cmp, double *scores);

/* The blocks that these scores choose; the second for the compressed branch, NULL unless it is sparse. */
void nsa_truth_select(const nsa_problem *p, const double *scores, double *indices);
double *nsa_truth_select_compressed(const nsa_problem *p, const double *scores);

/* out, k_cmp, v_cmp and the three lse; with backward every gradient. */
void nsa_truth(const nsa_problem *p, nsa_precision precision, const nsa_choice *choice, bool backward,
               nsa_results *r);

/* out from three branches' outputs alone. */
void nsa_truth_gate(const nsa_problem *p, nsa_precision precision, double *const branch_out[3], double *out);

#endif
