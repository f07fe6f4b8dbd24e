/* nsa_check.c - everything that is wrong with a call of native sparse attention, found before any work. */
#include "api/nsa_check.h"

#include "api/attention_check.h"
#include "base/tensor_check.h"
#include "base/dtype.h"
#include "base/error.h"

/* ---- parameters ---- */

static saccade_status check_range(const char *name, int32_t value, int32_t low, int32_t high) {
    if (value >= low && value <= high) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: %d, must lie in %d..%d", name, value, low, high);
}

static int32_t or_default(int32_t value, int32_t otherwise) { return value ? value : otherwise; }

static saccade_status check_rules(const saccade_nsa_params *p, sac_nsa_args *args) {
    SAC_TRY(check_range("score", (int32_t)p->score, 0, SACCADE_NSA_PROBABILITIES));
    SAC_TRY(check_range("select_per", (int32_t)p->select_per, 0, SACCADE_NSA_PER_GROUP));
    SAC_TRY(check_range("visibility", (int32_t)p->visibility, 0, SACCADE_NSA_STARTED));
    const bool per_query = args->query_tile == 1;
    args->score = or_default((int32_t)p->score, per_query ? SAC_NSA_PROBABILITIES : SAC_NSA_LOGITS);
    const bool group =
        p->select_per ? p->select_per == SACCADE_NSA_PER_GROUP : args->score == SAC_NSA_PROBABILITIES;
    args->heads_per_list = group ? sac_max(args->group, 1) : 1; /* a group may be of no head */
    args->num_lists = args->num_heads / args->heads_per_list;
    args->started = p->visibility == SACCADE_NSA_STARTED;
    return SACCADE_OK;
}

enum { MOST_TOP_K = 1024 }; /* nsa/select.c keeps a tile's best on its stack */

static saccade_status check_params(const saccade_nsa_params *p, sac_nsa_args *args) {
    args->block = or_default(p->block, 64);
    args->window = or_default(p->window, 512);
    args->query_tile = or_default(p->query_tile, 256);
    args->indices.top_k = or_default(p->top_k, 16);
    args->compressed_indices.top_k = p->compressed_top_k;
    args->initial_blocks = p->initial_blocks;
    args->local_blocks = p->local_blocks;
    SAC_TRY(check_range("block", args->block, 1, 1 << 20));
    SAC_TRY(check_range("window", args->window, 1, SAC_MAX_SEQLEN));
    SAC_TRY(check_range("query_tile", args->query_tile, 1, 256));
    SAC_TRY(check_range("top_k", args->indices.top_k, 1, MOST_TOP_K));
    SAC_TRY(check_range("compressed_top_k", args->compressed_indices.top_k, 0, MOST_TOP_K));
    SAC_TRY(check_range("initial_blocks", args->initial_blocks, 0, MOST_TOP_K));
    SAC_TRY(check_range("local_blocks", args->local_blocks, 0, MOST_TOP_K));
    /* The block of the tile's last query may be forced besides. */
    const int32_t forced = args->initial_blocks + sac_max(args->local_blocks, 1);
    if (forced > args->indices.top_k)
        return sac_fail(
            SACCADE_INVALID_ARGUMENT,
            "top_k: %d, but %d initial and %d local blocks (at least the query's own) are always selected",
            args->indices.top_k, args->initial_blocks, args->local_blocks);
    return check_rules(p, args);
}

/* ---- q, k, v ---- */

/* The three are what one dense causal call over them would be. */
static saccade_status check_inputs(const sac_nsa_inputs *in, sac_nsa_call *call, saccade_request *request) {
    const saccade_nsa_params *p = in->params;
    const saccade_attention_params dense = {.has_scale = p->has_scale,
                                            .scale = p->scale,
                                            .causal = SACCADE_CAUSAL_TOP_LEFT,
                                            .cu_seqlens_q = p->cu_seqlens,
                                            .cu_seqlens_k = p->cu_seqlens,
                                            .max_seqlen_q = p->max_seqlen,
                                            .max_seqlen_k = p->max_seqlen,
                                            .deterministic = p->deterministic,
                                            .backend = p->backend};
    sac_attention_inputs inputs = {.q = in->t->q,
                                   .k = in->t->k,
                                   .v = in->t->v,
                                   .out = in->out,
                                   .params = &dense,
                                   .shapes_only = in->shapes_only,
                                   .inputs_only = true,
                                   .one_length = true};
    SAC_TRY(sac_attention_check(&inputs, &call->whole, request));
    const sac_attention_args *a = &call->whole.args;
    if (in->t->q->shape[in->t->q->ndim - 3] != in->t->k->shape[in->t->k->ndim - 3])
        return sac_fail(
            SACCADE_INVALID_ARGUMENT, "k: %lld tokens, q has %lld: native sparse attention is self-attention",
            (long long)in->t->k->shape[in->t->k->ndim - 3], (long long)in->t->q->shape[in->t->q->ndim - 3]);
    if (a->dtype == SAC_F64)
        return sac_fail(SACCADE_UNSUPPORTED,
                        "q: dtype is fp64; native sparse attention takes bf16, fp16, fp32");
    if (call->whole.device.device_type != kDLCPU && call->whole.device.device_type != kDLCUDA)
        return sac_fail(SACCADE_UNSUPPORTED, "q: is on %s; native sparse attention reads host or CUDA memory",
                        sac_device_text(call->whole.device));
    request->block_mask = true;
    sac_nsa_args *args = &call->args;
    args->q = a->q;
    args->k = a->k;
    args->v = a->v;
    args->len = a->len_q;
    args->dtype = a->dtype;
    args->batch = a->batch;
    args->num_heads = a->num_heads;
    args->num_kv_heads = a->num_kv_heads;
    args->group = a->group;
    args->head_dim = a->head_dim;
    args->head_dim_v = a->head_dim_v;
    args->scale = a->scale;
    return SACCADE_OK;
}

/* ---- the other tensors ---- */

static saccade_status check_spec(const sac_nsa_inputs *in, const DLTensor *t, sac_tensor_spec spec,
                                 const int64_t *extent) {
    spec.device = in->t->q->device;
    spec.without_data = in->shapes_only;
    for (int d = 0; d < spec.ndim; d++) spec.extent[d] = extent[d];
    return sac_tensor_check(t, &spec);
}

static saccade_status check(const sac_nsa_inputs *in, const DLTensor *t, const char *name, DLDataType dtype,
                            int ndim, const int64_t *extent, bool written) {
    const sac_tensor_spec spec = {.name = name, .dtype = dtype, .ndim = ndim, .written = written};
    return check_spec(in, t, spec, extent);
}

static saccade_status check_contiguous(const sac_nsa_inputs *in, const DLTensor *t, const char *name,
                                       DLDataType dtype, int ndim, const int64_t *extent, bool written) {
    const sac_tensor_spec spec = {
        .name = name, .dtype = dtype, .ndim = ndim, .written = written, .contiguous = true};
    return check_spec(in, t, spec, extent);
}

static saccade_status check_weights(const sac_nsa_inputs *in, sac_nsa_call *call) {
    const saccade_nsa_tensors *t = in->t;
    sac_nsa_args *args = &call->args;
    const DLDataType dtype = t->q->dtype;
    const int64_t d = args->head_dim, dv = args->head_dim_v, kv_heads = args->num_kv_heads;
    if (t->w_k) SAC_TRY(check_contiguous(in, t->w_k, "w_k", dtype, 3, (int64_t[]){kv_heads, d, d}, false));
    if (t->w_v) SAC_TRY(check_contiguous(in, t->w_v, "w_v", dtype, 3, (int64_t[]){kv_heads, dv, dv}, false));
    if (t->w_gate)
        SAC_TRY(
            check_contiguous(in, t->w_gate, "w_gate", dtype, 3, (int64_t[]){args->num_heads, 3, d}, false));
    if (t->w_gate && t->gates)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "gates: given beside w_gate; one of them decides");
    if (t->gates) {
        const int packed = args->len.cu_seqlens != NULL;
        const int64_t extent[] = {t->q->shape[0], t->q->shape[1], packed ? 3 : t->q->shape[2], 3};
        SAC_TRY(check(in, t->gates, "gates", dtype, packed ? 3 : 4, extent, false));
    }
    args->w_k = sac_tensor_place(t->w_k, in->shapes_only);
    args->w_v = sac_tensor_place(t->w_v, in->shapes_only);
    args->w_gate = sac_tensor_place(t->w_gate, in->shapes_only);
    args->gates = sac_view_of(t->gates);
    args->gates.data = sac_tensor_place(t->gates, in->shapes_only);
    return SACCADE_OK;
}

/* (B, n, Hkv, dim), or packed (n, Hkv, dim). */
static saccade_status check_compressed(const sac_nsa_inputs *in, const sac_nsa_call *call, const DLTensor *t,
                                       const char *name, int64_t dim) {
    const sac_nsa_args *args = &call->args;
    if (args->len.cu_seqlens)
        return check(in, t, name, in->t->q->dtype, 3, (int64_t[]){args->cmp_rows, args->num_kv_heads, dim},
                     true);
    return check(in, t, name, in->t->q->dtype, 4,
                 (int64_t[]){args->batch, args->max_cmp, args->num_kv_heads, dim}, true);
}

static saccade_status check_indices(const sac_nsa_inputs *in, sac_nsa_call *call) {
    sac_nsa_args *args = &call->args;
    const int64_t lists = args->num_lists, top_k = args->indices.top_k;
    const int64_t tiles = args->len.cu_seqlens ? args->tiles : args->max_tiles;
    const int64_t packed[] = {lists, tiles, top_k}, dense[] = {args->batch, lists, tiles, top_k};
    const bool is_packed = args->len.cu_seqlens != NULL;
    SAC_TRY(check_contiguous(in, in->t->indices, "indices", SACCADE_I32, is_packed ? 3 : 4,
                             is_packed ? packed : dense, true));
    args->indices.data = sac_tensor_data(in->t->indices);
    args->indices.list_stride = tiles * top_k;
    args->indices.batch_stride = is_packed ? 0 : lists * tiles * top_k;
    return SACCADE_OK;
}

/* What the backward walks is the caller's: each list ascending, within its sequence, and -1 behind its end. Indices on
 * a device cannot be read back; there a block that is out of order or out of its sequence ends the list. */
static saccade_status check_chosen(const sac_nsa_args *args) {
    int64_t first_tile = 0;
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t len = sac_length_of(&args->len, b), tiles = sac_ceil_div(len, args->query_tile);
        const int32_t blocks = sac_ceil_div(len, args->block), top_k = args->indices.top_k;
        for (int64_t row = 0; row < (int64_t)args->num_lists * tiles; row++) {
            const int64_t list = row / tiles, tile = row % tiles;
            const int32_t *slots = args->indices.data + b * args->indices.batch_stride +
                                   list * args->indices.list_stride + (first_tile + tile) * top_k;
            for (int32_t i = 0; i < top_k; i++) {
                const int32_t before = i ? slots[i - 1] : -1;
                const bool ended = slots[i] == -1, goes_on = i == 0 || before >= 0;
                if (ended || (goes_on && slots[i] > before && slots[i] < blocks)) continue;
                return sac_fail(
                    SACCADE_INVALID_ARGUMENT,
                    "indices: sequence %d, list %lld, tile %lld has %d after %d; blocks must ascend "
                    "in 0..%d, with -1 behind the last",
                    b, (long long)list, (long long)tile, slots[i], before, blocks - 1);
            }
        }
        if (args->len.cu_seqlens) first_tile += tiles;
    }
    return SACCADE_OK;
}

static saccade_status check_lse(const sac_nsa_inputs *in, const DLTensor *t, const char *name,
                                sac_row_view *view) {
    const int64_t *q = in->t->q->shape;
    if (in->t->q->ndim == 3)
        SAC_TRY(check(in, t, name, SACCADE_F32, 2, (int64_t[]){q[1], q[0]}, true));
    else
        SAC_TRY(check(in, t, name, SACCADE_F32, 3, (int64_t[]){q[0], q[2], q[1]}, true));
    *view = sac_row_view_of(t);
    return SACCADE_OK;
}

/* The branches read compressed keys and values, and write their outputs, where the caller wants them saved. */
static bool saved_unaligned(const sac_nsa_inputs *in, const sac_nsa_call *call) {
    const sac_nsa_args *args = &call->args;
    const int32_t bytes = in->t->q->dtype.bits / 8;
    bool unaligned = sac_rows_unaligned(&args->k_cmp, args->batch, args->num_kv_heads, bytes) ||
                     sac_rows_unaligned(&args->v_cmp, args->batch, args->num_kv_heads, bytes);
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++)
        unaligned |= sac_rows_unaligned(&call->branch_out[branch], args->batch, args->num_heads, bytes);
    return unaligned;
}

static saccade_status check_like(const sac_nsa_inputs *in, const DLTensor *t, const char *name,
                                 const DLTensor *like, int64_t last, bool written, sac_view *view) {
    int64_t extent[4] = {0};
    if (!t && written) return SACCADE_OK; /* not wanted */
    for (int d = 0; d < like->ndim; d++) extent[d] = like->shape[d];
    extent[like->ndim - 1] = last;
    SAC_TRY(check(in, t, name, like->dtype, like->ndim, extent, written));
    *view = sac_view_of(t);
    return SACCADE_OK;
}

static saccade_status check_saved(const sac_nsa_inputs *in, sac_nsa_call *call) {
    static const char *const names[] = {"lse_cmp", "lse_slc", "lse_win"}, *const out_names[] = {"out_cmp",
                                                                                                "out_slc",
                                                                                                "out_win"};
    const saccade_nsa_tensors *t = in->t;
    const DLTensor *lse[] = {t->lse_cmp, t->lse_slc, t->lse_win},
                   *out[] = {t->out_cmp, t->out_slc, t->out_win};
    const bool needed = in->purpose == SAC_NSA_FOR_BACKWARD && !in->shapes_only;
    if (t->k_cmp || needed) SAC_TRY(check_compressed(in, call, t->k_cmp, "k_cmp", call->args.head_dim));
    if (t->v_cmp || needed) SAC_TRY(check_compressed(in, call, t->v_cmp, "v_cmp", call->args.head_dim_v));
    if (t->indices || needed) SAC_TRY(check_indices(in, call));
    for (int branch = 0; branch < SAC_NSA_NUM_BRANCHES; branch++) {
        if (lse[branch] || needed) SAC_TRY(check_lse(in, lse[branch], names[branch], &call->lse[branch]));
        SAC_TRY(check_like(in, out[branch], out_names[branch], t->q, call->args.head_dim_v, true,
                           &call->branch_out[branch]));
    }
    call->args.k_cmp = sac_view_of(t->k_cmp);
    call->args.v_cmp = sac_view_of(t->v_cmp);
    return SACCADE_OK;
}

static saccade_status check_weight_grad(const sac_nsa_inputs *in, const DLTensor *grad, const char *name,
                                        const DLTensor *of, const char *of_name, float **data) {
    if (!grad) return SACCADE_OK;
    if (!of) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is given, but there is no %s", name, of_name);
    SAC_TRY(check_contiguous(in, grad, name, SACCADE_F32, of->ndim, of->shape, true));
    *data = sac_tensor_data(grad);
    return SACCADE_OK;
}

static saccade_status check_grads(const sac_nsa_inputs *in, sac_nsa_call *call) {
    const saccade_nsa_grads *g = in->grads;
    const saccade_nsa_tensors *t = in->t;
    sac_attention_args *a = &call->whole.args;
    if (!g) return SACCADE_OK;
    if (!in->shapes_only || g->dout)
        SAC_TRY(check_like(in, g->dout, "dout", t->q, a->head_dim_v, false, &a->dout));
    call->dout_unaligned = sac_rows_unaligned(&a->dout, a->batch, a->num_heads, t->q->dtype.bits / 8);
    SAC_TRY(check_like(in, g->dq, "dq", t->q, a->head_dim, true, &a->dq));
    SAC_TRY(check_like(in, g->dk, "dk", t->k, a->head_dim, true, &a->dk));
    SAC_TRY(check_like(in, g->dv, "dv", t->v, a->head_dim_v, true, &a->dv));
    SAC_TRY(check_weight_grad(in, g->dw_k, "dw_k", t->w_k, "w_k", &call->dw_k));
    SAC_TRY(check_weight_grad(in, g->dw_v, "dw_v", t->w_v, "w_v", &call->dw_v));
    SAC_TRY(check_weight_grad(in, g->dw_gate, "dw_gate", t->w_gate, "w_gate", &call->dw_gate));
    call->dgates.row_stride = (int64_t)a->num_heads * 3;
    return check_weight_grad(in, g->dgates, "dgates", t->gates, "gates", &call->dgates.data);
}

/* Sizes that follow from the lengths. */
static void count(sac_nsa_call *call) {
    sac_nsa_args *args = &call->args;
    args->max_cmp = args->len.seqlen / args->block;
    args->max_tiles = sac_ceil_div(args->len.seqlen, args->query_tile);
    args->rows = call->whole.total_q;
    if (args->len.cu_seqlens) {
        args->cmp_rows = args->rows / args->block;
        args->tiles = args->rows / args->query_tile + args->batch;
    } else {
        args->cmp_rows = (int64_t)args->batch * args->max_cmp;
        args->tiles = (int64_t)args->batch * args->max_tiles;
    }
}

saccade_status sac_nsa_check(const sac_nsa_inputs *in, sac_nsa_call *call, saccade_request *request) {
    *call = (sac_nsa_call){.backward = in->purpose == SAC_NSA_FOR_BACKWARD};
    SAC_TRY(check_inputs(in, call, request));
    SAC_TRY(check_params(in->params, &call->args));
    count(call);
    SAC_TRY(check_weights(in, call));
    SAC_TRY(check_saved(in, call));
    request->unaligned |= saved_unaligned(in, call);
    SAC_TRY(check_grads(in, call));
    const bool on_host = call->whole.device.device_type == kDLCPU;
    return call->backward && !in->shapes_only && on_host ? check_chosen(&call->args) : SACCADE_OK;
}
