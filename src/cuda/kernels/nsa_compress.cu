/* nsa_compress.cu - block means of keys and values. The lanes of a row take one compressed row of one head and add up
 * its tokens in order. Grid: rows of both sides, ceil each to whole CTAs, keys first.
 * Needs DTYPE HEAD_DIM HEAD_DIM_V ALIGNED NUM_THREADS.
 */
#include "cuda/kernels/row_chunk.h"
#include "cuda/kernels/nsa_place.h"
#include "cuda/kernels/nsa_work.h"

enum { ROWS_A_CTA = NUM_THREADS / ROW_LANES, LOADS_AHEAD = DTYPE == 0 ? 8 : 16 };

SAC_FN void add_token(chunk *sum, raw_chunk raw) {
    const chunk token = raw_floats(raw);
    chunk_add(sum, 1, &token);
}

static __device__ chunk block_sum(const element *token, int64_t row_stride, int32_t block) {
    chunk sum = chunk_zero();
    int32_t i = 0;
    for (; i + LOADS_AHEAD <= block; i += LOADS_AHEAD) {
        raw_chunk ahead[LOADS_AHEAD];
#pragma unroll
        for (int n = 0; n < LOADS_AHEAD; n++) ahead[n] = raw_load(token + (i + n) * row_stride);
#pragma unroll
        for (int n = 0; n < LOADS_AHEAD; n++) add_token(&sum, ahead[n]);
    }
    for (; i < block; i++) add_token(&sum, raw_load(token + i * row_stride));
    return sum;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS, 2)
    nsa_compress(const __grid_constant__ sac_nsa_args args, const __grid_constant__ sac_nsa_means keys,
                 const __grid_constant__ sac_nsa_means values) {
    const int64_t ctas_a_side = gridDim.x / 2, cta = blockIdx.x % ctas_a_side;
    const sac_nsa_means *side = blockIdx.x < ctas_a_side ? &keys : &values;
    const int64_t index = cta * ROWS_A_CTA + threadIdx.x / ROW_LANES;
    const int64_t row = index / args.num_kv_heads;
    const int32_t h = (int32_t)(index - row * args.num_kv_heads), column = chunk_column();
    if (row >= args.cmp_rows || column >= side->dim) return;
    const int64_t first = nsa_first_token(&args, row);
    if (first < 0) return;

    const nsa_place to = nsa_cmp_place(&args, row);
    chunk mean =
        block_sum(view_row(&side->tokens, to.b, h, first) + column, side->tokens.row_stride, args.block);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) mean.x[i] /= (float)args.block;
    if (side->fp32)
        chunk_store_floats(side->fp32 + index * side->dim + column, &mean);
    else if (side->compressed.data)
        chunk_store(view_row(&side->compressed, to.b, h, to.row) + column, &mean);
}
