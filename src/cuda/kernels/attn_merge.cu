/* attn_merge.cu - joins the partial results of a row, each over its own part of the keys:
 *   lse = log(sum exp(lse_s)),  out = sum exp(lse_s - lse) out_s.   Empty parts have lse_s = -inf.
 * The sink joins here, if the row sees any key: it counts once, not once a part.
 * One warp, one row of one head. Grid: ceil(H * total_q / warps). Needs DTYPE HEAD_DIM_V ALIGNED.
 */
#include "cuda/kernels/schedule.h"
#include "cuda/kernels/element.h"

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    attn_merge(const __grid_constant__ sac_attention_args args,
               const __grid_constant__ sac_portable_plan plan) {
    const int64_t i = (int64_t)blockIdx.x * (NUM_THREADS / 32) + threadIdx.x / 32,
                  rows = args.num_heads * plan.total_q;
    if (i >= rows) return;
    const int32_t h = (int32_t)(i / plan.total_q);
    const int64_t row = i - h * plan.total_q;
    const row_place place = row_place_of(&args.len_q, args.batch, row);
    if (!place.used) return; /* attn_fill.cu's */
    const int32_t b = args.len_q.cu_seqlens ? 0 : place.b;
    const int32_t num_splits = plan.schedule.num_splits;

    float max = -INFINITE, sum = 0;
    for (int s = 0; s < num_splits; s++) max = fmaxf(max, plan.partial_lse[s * rows + i]);
    const float subtract = max == -INFINITE ? 0 : max;
    for (int s = 0; s < num_splits; s++)
        sum += ptx_exp2(LOG2_E * (plan.partial_lse[s * rows + i] - subtract));
    if (args.sink && sum != 0) sum += ptx_exp2(LOG2_E * (args.sink[h] - subtract));
    const float inverse = sum == 0 ? 0 : 1 / sum;
    if (threadIdx.x % 32 == 0 && args.lse.data)
        *row_value(&args.lse, b, h, place.index) = sum == 0 ? -INFINITE : subtract + LN_2 * log2f(sum);

    element *to = view_row(&args.out, b, h, place.index);
    for (int d = threadIdx.x % 32 * 2; d < HEAD_DIM_V; d += 64) {
        float2 x = make_float2(0, 0);
        for (int s = 0; s < num_splits; s++) {
            float weight = ptx_exp2(LOG2_E * (plan.partial_lse[s * rows + i] - subtract)) * inverse;
            float2 y = *(const float2 *)(plan.partial_out + (s * rows + i) * HEAD_DIM_V + d);
            x.x += weight * y.x;
            x.y += weight * y.y;
        }
        pair_store(to + d, x.x, x.y);
    }
}
