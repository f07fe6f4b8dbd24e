/* heads.c - pointers moved to the first head of a range, numbers of heads to those in it. */
#include "nsa/heads.h"

#include "base/context.h"
#include "nsa/rows.h"

/* Rows of query heads that a part has at most, where it has several key/value heads. On a GPU far more than fill it,
 * and with 128 dimensions half a GB of each tensor. The host touches a fresh workspace page by page, and reads better
 * what a cache still has: as many as keep its threads busy. */
enum { MOST_ROWS = 1 << 21, MOST_HOST_ROWS = 1 << 17 };

int32_t sac_nsa_heads_at_once(const sac_nsa_call *call) {
    const sac_nsa_args *args = &call->args;
    if (call->kv_heads_at_once) return sac_min(call->kv_heads_at_once, args->num_kv_heads);
    if (call->sums && call->whole.device.device_type == kDLCPU) return args->num_kv_heads;
    const int64_t rows = args->rows * args->group;
    const int64_t most = call->whole.device.device_type == kDLCPU ? MOST_HOST_ROWS : MOST_ROWS;
    const int64_t fit = rows ? most / rows : args->num_kv_heads;
    return fit < 1 ? 1 : fit < args->num_kv_heads ? (int32_t)fit : args->num_kv_heads;
}

static void move_view(sac_view *view, int64_t head, int32_t dtype) {
    if (view->data)
        view->data = (char *)view->data + head * view->head_stride * (int64_t)sac_dtype_bytes(dtype);
}

static void move_weights(const void **weights, int64_t elements, int32_t dtype) {
    if (*weights) *weights = (const char *)*weights + elements * (int64_t)sac_dtype_bytes(dtype);
}

static void move_floats(float **data, int64_t floats) {
    if (*data) *data += floats;
}

sac_nsa_call sac_nsa_part(const sac_nsa_call *call, int32_t first) {
    sac_nsa_call part = *call;
    sac_nsa_args *args = &part.args;
    sac_attention_args *whole = &part.whole.args;
    const int32_t head = first * args->group, list = head / args->heads_per_list, dtype = args->dtype;
    sac_view *of_queries[] = {&args->q, &args->gates, &whole->out, &whole->dout, &whole->dq};
    sac_view *of_keys[] = {&args->k, &args->v, &args->k_cmp, &args->v_cmp, &whole->dk, &whole->dv};
    for (size_t i = 0; i < sizeof of_queries / sizeof *of_queries; i++) move_view(of_queries[i], head, dtype);
    for (size_t i = 0; i < sizeof of_keys / sizeof *of_keys; i++) move_view(of_keys[i], first, dtype);
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        move_floats(&part.lse[branch].data, head * part.lse[branch].head_stride);
        move_view(&part.branch_out[branch], head, dtype);
    }

    const int64_t w_k = (int64_t)first * args->head_dim * args->head_dim,
                  w_v = (int64_t)first * args->head_dim_v * args->head_dim_v,
                  w_gate = (int64_t)head * 3 * args->head_dim;
    move_weights(&args->w_k, w_k, dtype);
    move_weights(&args->w_v, w_v, dtype);
    move_weights(&args->w_gate, w_gate, dtype);
    move_floats(&part.dw_k, w_k);
    move_floats(&part.dw_v, w_v);
    move_floats(&part.dw_gate, w_gate);
    move_floats(&part.dgates.data, (int64_t)head * 3);

    if (args->indices.data) args->indices.data += list * args->indices.list_stride;
    args->num_kv_heads = sac_min(sac_nsa_heads_at_once(call), args->num_kv_heads - first);
    args->num_heads = args->num_kv_heads * args->group;
    args->num_lists = args->num_heads / args->heads_per_list;
    return part;
}
