/* nsa_outer.cu - dw = the sum over compressed rows of mean x gradient, in parts that each take a stretch of the rows.
 * One CTA, one TILE x TILE piece of one head's dw. Grid: parts x heads x pieces, pieces fastest.
 * Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED, NUM_THREADS = TILE^2 / 16.
 */
#include "cuda/kernels/element.h"
#include "cuda/kernels/nsa_place.h"
#include "cuda/kernels/nsa_work.h"

enum { TILE = SAC_NSA_OUTER_TILE, SUMS = 4, ROWS = 16, THREADS_A_ROW = TILE / SUMS };

/* TILE columns of ROWS rows, zeroes where there is nothing. */
static __device__ void fill(const sac_nsa_args *args, const sac_nsa_outer *work, int32_t h, int64_t first,
                            int64_t end, int32_t i0, int32_t j0, float a[ROWS][TILE], float b[ROWS][TILE]) {
    for (int32_t n = threadIdx.x; n < ROWS * TILE; n += NUM_THREADS) {
        const int32_t r = n / TILE, c = n - r * TILE;
        const int64_t row = first + r;
        const bool used = row < end && nsa_first_token(args, row) >= 0;
        const nsa_place p = nsa_cmp_place(args, row);
        a[r][c] =
            used && i0 + c < work->dim ? work->a[(row * args->num_kv_heads + h) * work->dim + i0 + c] : 0;
        b[r][c] = used && j0 + c < work->dim ? element_load(view_row(&work->b, p.b, h, p.row) + j0 + c) : 0;
    }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, 2)
    nsa_outer(const __grid_constant__ sac_nsa_args args, const __grid_constant__ sac_nsa_outer work) {
    __shared__ float a[ROWS][TILE], b[ROWS][TILE];
    const int32_t tiles = sac_ceil_div(work.dim, TILE), piece = blockIdx.x % (tiles * tiles);
    const int32_t rest = blockIdx.x / (tiles * tiles), h = rest % args.num_kv_heads,
                  part = rest / args.num_kv_heads;
    const int32_t i0 = piece / tiles * TILE, j0 = piece % tiles * TILE;
    const int32_t i = threadIdx.x / THREADS_A_ROW * SUMS, j = threadIdx.x % THREADS_A_ROW * SUMS;
    const int64_t stretch = (args.cmp_rows + work.parts - 1) / work.parts, begin = part * stretch;
    const int64_t end = begin + stretch < args.cmp_rows ? begin + stretch : args.cmp_rows;
    float sum[SUMS][SUMS] = {{0}};
    for (int64_t first = begin; first < end; first += ROWS) {
        fill(&args, &work, h, first, end, i0, j0, a, b);
        __syncthreads();
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int x = 0; x < SUMS; x++)
#pragma unroll
                for (int y = 0; y < SUMS; y++) sum[x][y] += a[r][i + x] * b[r][j + y];
        __syncthreads();
    }
    float *to = work.part + ((int64_t)part * args.num_kv_heads + h) * work.dim * work.dim;
    for (int x = 0; x < SUMS; x++)
        for (int y = 0; y < SUMS; y++)
            if (i0 + i + x < work.dim && j0 + j + y < work.dim)
                to[(int64_t)(i0 + i + x) * work.dim + j0 + j + y] = sum[x][y];
}
