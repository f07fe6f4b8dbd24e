/* attn_bwd_delta.cu - before the backward pass: delta = rowsum(out * dout) - dlse of each row and head, zeros where
 * gradients are summed, and each part's share of dsink = -sum over rows of exp(sink - lse) delta.
 *
 * One CTA, ROWS_PER_CTA rows of one head; as many lanes a row as it has chunks of 16 bytes, and the loads of some
 * rows are on their way together. Grid: heads x parts, heads fastest. Needs DTYPE HEAD_DIM HEAD_DIM_V ROWS_PER_CTA
 * ALIGNED NUM_THREADS, and DELTA_IS_THERE: the row sums have been left in delta by attn_bwd_dq_portable.cu, out is
 * not looked at.
 */
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/element.h"

#define CHUNK (16 / (int)sizeof(element))
#define CHUNKS ((HEAD_DIM_V + CHUNK - 1) / CHUNK)
#define ROW_LANES (CHUNKS > 16 ? 32 : CHUNKS > 8 ? 16 : 8)

enum { NUM_WARPS = NUM_THREADS / 32, ROWS_AT_ONCE = NUM_THREADS / ROW_LANES, ROWS_AHEAD = 4 };

SAC_FN int row_lane(void) { return threadIdx.x % ROW_LANES; }

/* Over lanes that lie side by side; every one of them has the sum. */
SAC_FN float lane_sum(float x, int lanes) {
#pragma unroll
    for (int other = lanes / 2; other > 0; other /= 2) x += __shfl_xor_sync(0xffffffff, x, other);
    return x;
}

typedef union chunk {
    uint4 whole;
    pair pairs[CHUNK / 2];
    element elements[CHUNK];
} chunk;

/* In one access where rows are aligned to it. */
SAC_FN chunk load_chunk(const element *p) {
    chunk c;
#if ALIGNED
    c.whole = *(const uint4 *)p;
#else
#pragma unroll
    for (int i = 0; i < CHUNK; i++) c.elements[i] = p[i];
#endif
    return c;
}

/* This lane's part of a row. */
SAC_FN float row_dot(const sac_attention_args *args, row_place place, int32_t h) {
    const int32_t b = args->len_q.cu_seqlens ? 0 : place.b;
    const element *out = view_row(&args->out, b, h, place.index);
    const element *dout = view_row(&args->dout, b, h, place.index);
    float sum = 0;
#pragma unroll
    for (int d = row_lane() * CHUNK; d < HEAD_DIM_V; d += ROW_LANES * CHUNK) {
        const chunk x = load_chunk(out + d), y = load_chunk(dout + d);
#pragma unroll
        for (int i = 0; i < CHUNK / 2; i++) {
            const float2 a = pair_floats(x.pairs[i]), c = pair_floats(y.pairs[i]);
            sum += a.x * c.x + a.y * c.y;
        }
    }
    return sum;
}

/* Delta of a row, from its sum; its share of dsink. */
SAC_FN float finish_row(const sac_attention_args *args, const sac_portable_plan *plan, row_place place,
                        int64_t row, int32_t h, float sum) {
    const int32_t b = args->len_q.cu_seqlens ? 0 : place.b;
    float delta = 0, dsink = 0;
    if (place.used) {
        delta = sum;
        if (args->dlse.data) delta -= *row_value(&args->dlse, b, h, place.index);
        if (args->dsink) {
            const float lse = *row_value(&args->lse, b, h, place.index);
            if (lse > -INFINITE) dsink = -ptx_exp2(LOG2_E * (args->sink[h] - lse)) * delta;
        }
    }
    if (row_lane() > 0) return 0;
    plan->delta[h * plan->total_q + row] = delta;
    return dsink;
}

/* The place some rows behind another: fewer than a sequence may lie between, or more. Packed rows are mostly of the same
 * one, which spares the search. */
SAC_FN row_place place_behind(const sac_attention_args *args, row_place place, int64_t row, int32_t rows) {
    const sac_lengths *len = &args->len_q;
    if (len->cu_seqlens && (!place.used || row >= len->cu_seqlens[place.b + 1]))
        return row_place_of(len, args->batch, row);
    place.index += rows;
    while (!len->cu_seqlens && place.index >= len->seqlen) place.index -= len->seqlen, place.b++;
    const int64_t first = len->cu_seqlens ? len->cu_seqlens[place.b] : 0;
    place.used = place.index - first < sac_length_of(len, place.b);
    return place;
}

/* This CTA's share of the zeros. The last come first: what the next kernel adds to first is then still in the L2. */
SAC_FN void put_zeros(const sac_portable_plan *plan) {
    const int64_t behind = plan->zero_chunks - blockIdx.x * plan->zero_share;
    uint4 *to = (uint4 *)plan->zeros;
    for (int64_t i = threadIdx.x; i < plan->zero_share && i < behind; i += NUM_THREADS)
        to[behind - 1 - i] = make_uint4(0, 0, 0, 0);
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_bwd_delta(const __grid_constant__ sac_attention_args args,
                   const __grid_constant__ sac_portable_plan plan) {
    __shared__ float warp_dsink[NUM_WARPS];
    const int32_t h = blockIdx.x % args.num_heads, part = blockIdx.x / args.num_heads;
    const int64_t first_row = (int64_t)part * ROWS_PER_CTA;
    const row_place first = row_place_of(&args.len_q, args.batch, first_row);
    float dsink = 0;
    put_zeros(&plan);
    for (int done = 0; done < ROWS_PER_CTA; done += ROWS_AHEAD * ROWS_AT_ONCE) {
        row_place place[ROWS_AHEAD];
        float dot[ROWS_AHEAD];
#pragma unroll
        for (int i = 0; i < ROWS_AHEAD; i++) {
            const int32_t rows = done + i * ROWS_AT_ONCE + threadIdx.x / ROW_LANES;
            dot[i] = 0;
            place[i].used = 0;
            if (rows >= ROWS_PER_CTA || first_row + rows >= plan.total_q) continue;
            place[i] = place_behind(&args, first, first_row + rows, rows);
            if (place[i].used)
                dot[i] = DELTA_IS_THERE ? plan.delta[h * plan.total_q + first_row + rows]
                                        : row_dot(&args, place[i], h);
        }
#pragma unroll
        for (int i = 0; i < ROWS_AHEAD; i++) {
            const int32_t rows = done + i * ROWS_AT_ONCE + threadIdx.x / ROW_LANES;
            const float sum = DELTA_IS_THERE ? dot[i] : lane_sum(dot[i], ROW_LANES);
            __syncwarp(); /* every lane has read what was there */
            if (rows < ROWS_PER_CTA && first_row + rows < plan.total_q)
                dsink += finish_row(&args, &plan, place[i], first_row + rows, h, sum);
        }
    }
    if (!args.dsink) return;
    dsink = lane_sum(dsink, 32);
    if (threadIdx.x % 32 == 0) warp_dsink[threadIdx.x / 32] = dsink;
    __syncthreads();
    if (threadIdx.x > 0) return;
    float sum = 0;
    for (int i = 0; i < NUM_WARPS; i++) sum += warp_dsink[i];
    plan.dsink_part[(int64_t)h * plan.num_dsink_parts + part] = sum;
}
