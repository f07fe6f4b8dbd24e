/* nsa_work.h - one computation of native sparse attention: its inputs and room for its results. */
#ifndef NSA_WORK_H
#define NSA_WORK_H

#include <saccade/nsa.h>

#include "gpu.h"
#include "workload.h"

/* What OUT may get, in this order. */
typedef enum nsa_result {
    NSA_OUT,
    NSA_INDICES,
    NSA_LSE_CMP,
    NSA_LSE_SLC,
    NSA_LSE_WIN,
    NSA_K_CMP,
    NSA_V_CMP,
    NSA_DQ,
    NSA_DK,
    NSA_DV,
    NSA_DW_K,
    NSA_DW_V,
    NSA_DW_GATE,
    NSA_DGATES,
    NSA_NUM_RESULTS
} nsa_result;

const char *nsa_result_name(nsa_result result);

typedef struct nsa_work {
    workload dense; /* the same q, k, v, causal; the file, the context, dout; --stats compares with it */
    saccade_nsa_params params;
    const DLTensor *w_k, *w_v, *w_gate, *gates;
    DLTensor *result[NSA_NUM_RESULTS]; /* NULL: not wanted */
    int64_t block, window, query_tile, top_k;
    int64_t num_lists; /* what shares a selection: a head, or a group */
    gpu_copies *gpu;   /* NULL: all on the host */
} nsa_work;

/* Opens IN and makes room for results. Returns the exit code, after a message unless EXIT_OK; nsa_work_close in any
 * case. */
int nsa_work_open(nsa_work *work, attention_options *options, const saccade_nsa_params *params);
void nsa_work_close(nsa_work *work);

/* To their end, also on a GPU; the results are there until they are fetched. */
saccade_status nsa_work_forward(nsa_work *work);
saccade_status nsa_work_backward(nsa_work *work);
saccade_status nsa_work_fetch(nsa_work *work);

/* One sequence: its first row in q, k, v, its length, and its first tile in the rows of indices. */
typedef struct nsa_sequence {
    int64_t row, len, tile;
} nsa_sequence;
int64_t nsa_work_sequences(const nsa_work *work);
nsa_sequence nsa_work_sequence(const nsa_work *work, int64_t b);

/* The top_k blocks of the tile that query i lies in, -1 behind the last. */
const int32_t *nsa_work_blocks(const nsa_work *work, int64_t b, int64_t head, int64_t i);

#endif
