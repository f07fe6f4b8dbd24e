/* attn_bwd_delta.cu - before the backward pass: delta = rowsum(out * dout) - dlse of each row and head, zeroes for
 * the sums of dQ, and each part's share of dsink = -sum over rows of exp(sink - lse) delta.
 *
 * One CTA, ROWS_PER_CTA rows of one head; one warp, some rows at a time, whose loads are on their way together. Grid: heads x parts, heads fastest.
 * Needs DTYPE HEAD_DIM HEAD_DIM_V ROWS_PER_CTA ALIGNED NUM_THREADS, and DELTA_IS_THERE: the row sums have been left in
 * delta by attn_bwd_dq_portable.cu, out is not looked at.
 */
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/dq_sum.h"
#include "cuda/kernels/element.h"

enum { NUM_WARPS = NUM_THREADS / 32, ROWS_AT_ONCE = 4 };

SAC_FN float warp_sum(float x) {
#pragma unroll
    for (int other = 16; other > 0; other /= 2) x += __shfl_xor_sync(0xffffffff, x, other);
    return x;
}

/* Neighbours at p, in one access where rows are aligned to it. */
SAC_FN float2 load_pair(const element *p) {
#if ALIGNED
    return pair_floats(*(const pair *)p);
#else
    return make_float2(element_load(p), element_load(p + 1));
#endif
}

/* This lane's part of a row. */
SAC_FN float row_dot(const sac_attention_args *args, row_place place, int32_t h) {
    int32_t b = args->len_q.cu_seqlens ? 0 : place.b;
    const element *out = view_row(&args->out, b, h, place.index);
    const element *dout = view_row(&args->dout, b, h, place.index);
    float sum = 0;
#pragma unroll
    for (int d = threadIdx.x % 32 * 2; d < HEAD_DIM_V; d += 64) {
        float2 x = load_pair(out + d), y = load_pair(dout + d);
        sum += x.x * y.x + x.y * y.y;
    }
    return sum;
}

/* Delta of a row, from its dot product; its share of dsink; zeroes for its dQ. */
SAC_FN float finish_row(const sac_attention_args *args, const sac_portable_plan *plan, row_place place,
                        int64_t row, int32_t h, float dot) {
    const int32_t b = args->len_q.cu_seqlens ? 0 : place.b;
    float delta = 0, dsink = 0;
    if (place.used) {
        delta = DELTA_IS_THERE ? plan->delta[h * plan->total_q + row] : dot;
        if (args->dlse.data) delta -= *row_value(&args->dlse, b, h, place.index);
        const float lse = *row_value(&args->lse, b, h, place.index);
        if (args->dsink && lse > -INFINITE) dsink = -ptx_exp2(LOG2_E * (args->sink[h] - lse)) * delta;
    }
    __syncwarp(); /* every lane has read it */
    if (threadIdx.x % 32 == 0) plan->delta[h * plan->total_q + row] = delta;
    if (plan->dq_sum)
        for (int d = threadIdx.x % 32; d < DQ_SUM_PITCH; d += 32)
            plan->dq_sum[(h * plan->total_q + row) * DQ_SUM_PITCH + d] = 0;
    return dsink;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_bwd_delta(const __grid_constant__ sac_attention_args args,
                   const __grid_constant__ sac_portable_plan plan) {
    __shared__ float warp_dsink[NUM_WARPS];
    const int32_t h = blockIdx.x % args.num_heads, part = blockIdx.x / args.num_heads,
                  warp = threadIdx.x / 32;
    float dsink = 0;
    for (int first = warp; first < ROWS_PER_CTA; first += ROWS_AT_ONCE * NUM_WARPS) {
        row_place place[ROWS_AT_ONCE];
        float dot[ROWS_AT_ONCE];
        const int64_t first_row = (int64_t)part * ROWS_PER_CTA + first;
#pragma unroll
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            const int64_t row = first_row + i * NUM_WARPS;
            const int there = first + i * NUM_WARPS < ROWS_PER_CTA && row < plan.total_q;
            place[i] = row_place_of(&args.len_q, args.batch, there ? row : 0);
            dot[i] = 0;
            if (there && place[i].used && !DELTA_IS_THERE) dot[i] = row_dot(&args, place[i], h);
        }
#pragma unroll
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            const int64_t row = first_row + i * NUM_WARPS;
            if (first + i * NUM_WARPS >= ROWS_PER_CTA || row >= plan.total_q) break;
            dsink += finish_row(&args, &plan, place[i], row, h, warp_sum(dot[i]));
        }
    }
    if (!args.dsink) return;
    if (threadIdx.x % 32 == 0) warp_dsink[warp] = dsink;
    __syncthreads();
    if (threadIdx.x > 0) return;
    float sum = 0;
    for (int i = 0; i < NUM_WARPS; i++) sum += warp_dsink[i];
    plan.dsink_part[(int64_t)h * plan.num_dsink_parts + part] = sum;
}
