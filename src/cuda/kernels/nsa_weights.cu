/* nsa_weights.cu - compressed rows through the weights of their head: forward, compressed = means * w; backward, the
 * gradient of the means = that of the compressed rows * w^T. One CTA, ROWS rows of one head; one thread, one column of
 * all of them at a time. Grid: heads x ceil(cmp_rows / ROWS), heads fastest.
 * Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED NUM_THREADS.
 */
#include "cuda/kernels/element.h"
#include "cuda/kernels/nsa_place.h"
#include "cuda/kernels/nsa_work.h"

enum { ROWS = SAC_NSA_WEIGHT_ROWS, MOST_DIMS = 256 };

SAC_FN void element_store(element *p, float x) {
#if DTYPE == 0
    *p = x;
#else
    *p = (element)pair_make(x, 0);
#endif
}

/* In fp32, or in the view. */
SAC_FN float load(const sac_nsa_args *args, const sac_nsa_weights *work, int64_t row, int32_t h, int32_t i) {
    if (!work->transposed) return work->rows[(row * args->num_kv_heads + h) * work->dim + i];
    const nsa_place p = nsa_cmp_place(args, row);
    return element_load(view_row(&work->compressed, p.b, h, p.row) + i);
}
SAC_FN void store(const sac_nsa_args *args, const sac_nsa_weights *work, int64_t row, int32_t h, int32_t i,
                  float x) {
    if (work->transposed) {
        work->rows[(row * args->num_kv_heads + h) * work->dim + i] = x;
        return;
    }
    const nsa_place p = nsa_cmp_place(args, row);
    element_store(view_row(&work->compressed, p.b, h, p.row) + i, x);
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    nsa_weights(const __grid_constant__ sac_nsa_args args, const __grid_constant__ sac_nsa_weights work) {
    __shared__ float in[MOST_DIMS][ROWS];
    const int32_t h = blockIdx.x % args.num_kv_heads, dim = work.dim;
    const int64_t first = blockIdx.x / args.num_kv_heads * (int64_t)ROWS;
    for (int32_t n = threadIdx.x; n < ROWS * dim; n += NUM_THREADS) {
        const int32_t r = n / dim, i = n - r * dim;
        /* Rows of no sequence are not looked at, and give zeroes that nobody reads. */
        const bool used = first + r < args.cmp_rows && nsa_first_token(&args, first + r) >= 0;
        in[i][r] = used ? load(&args, &work, first + r, h, i) : 0;
    }
    __syncthreads();
    const element *w = (const element *)work.w + (int64_t)h * dim * dim;
    const int32_t along = work.transposed ? 1 : dim, across = work.transposed ? dim : 1;
    for (int32_t j = threadIdx.x; j < dim; j += NUM_THREADS) {
        float sum[ROWS] = {0};
        for (int32_t i = 0; i < dim; i++) {
            const float x = element_load(w + i * along + j * across);
#pragma unroll
            for (int r = 0; r < ROWS; r++) sum[r] += x * in[i][r];
        }
        for (int r = 0; r < ROWS; r++)
            if (first + r < args.cmp_rows && nsa_first_token(&args, first + r) >= 0)
                store(&args, &work, first + r, h, j, sum[r]);
    }
}
