/* nsa_means.cu - the mean query of each tile, summed over the heads that share a list: what the rule "logits" holds
 * against the compressed keys. One CTA, one tile of one list.
 *
 * Needs, from nsa_select.c: DTYPE HEAD_DIM NUM_THREADS ALIGNED.
 *
 * A thread adds up 8 columns of every ROWS_AT_ONCE-th row; those sums are added in the order of the threads. So the
 * order depends on the tile alone, never on what follows it. */
#include "cuda/kernels/element.h"
#include "cuda/kernels/nsa_select.h"

enum {
    COLUMNS = 8, /* a thread */
    THREADS_A_ROW = HEAD_DIM / COLUMNS,
    ROWS_AT_ONCE = NUM_THREADS / THREADS_A_ROW,
};

typedef struct __align__(16) eight {
    element x[COLUMNS];
}
eight;

SAC_FN void add_eight(float (&sum)[COLUMNS], const element *from) {
#if ALIGNED
    const eight row = *(const eight *)from;
    for (int c = 0; c < COLUMNS; c++) sum[c] += element_load(&row.x[c]);
#else
    for (int c = 0; c < COLUMNS; c++) sum[c] += element_load(from + c);
#endif
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_means(const __grid_constant__ sac_nsa_select_args args) {
    __shared__ float sums[ROWS_AT_ONCE][HEAD_DIM];
    const sac_nsa_args *nsa = &args.nsa;
    const int32_t tile = blockIdx.x % nsa->max_tiles, head = blockIdx.x / nsa->max_tiles;
    const int32_t b = head / nsa->num_lists, list = head % nsa->num_lists;
    const int32_t begin = tile * nsa->query_tile;
    const int32_t end = sac_min(begin + nsa->query_tile, sac_length_of(&nsa->len, b));
    if (begin >= end) return;
    const int64_t first = nsa->len.cu_seqlens ? nsa->len.cu_seqlens[b] : 0;
    const int row = threadIdx.x / THREADS_A_ROW, column = threadIdx.x % THREADS_A_ROW * COLUMNS;
    float sum[COLUMNS] = {};
    if (row < ROWS_AT_ONCE)
        for (int32_t h = list * nsa->heads_per_list; h < (list + 1) * nsa->heads_per_list; h++)
#pragma unroll 4
            for (int32_t i = begin + row; i < end; i += ROWS_AT_ONCE)
                add_eight(sum, view_row(&nsa->q, b, h, first + i) + column);
    for (int c = 0; row < ROWS_AT_ONCE && c < COLUMNS; c++) sums[row][column + c] = sum[c];
    __syncthreads();
    float *to = args.means + sac_nsa_tile_row(nsa, b, list, tile) * HEAD_DIM;
    for (int c = threadIdx.x; c < HEAD_DIM; c += NUM_THREADS) {
        float total = 0;
        for (int r = 0; r < ROWS_AT_ONCE; r++) total += sums[r][c];
        to[c] = total / (float)(end - begin);
    }
}
