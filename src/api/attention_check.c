/* attention_check.c - everything that is wrong with an attention call whatever the backend, found before any work. */
#include "api/attention_check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/tensor_check.h"
#include "base/dtype.h"
#include "base/error.h"
#include "mask/block_mask.h"
#include "mod/modifier.h"

sac_view sac_view_of(const DLTensor *t) {
    sac_view view = {0};
    if (!t) return view;
    int row = t->ndim == 4;
    view.data = sac_tensor_data(t);
    view.batch_stride = row ? sac_tensor_stride(t, 0) : 0;
    view.row_stride = sac_tensor_stride(t, row);
    view.head_stride = sac_tensor_stride(t, row + 1);
    return view;
}

sac_row_view sac_row_view_of(const DLTensor *t) {
    sac_row_view view = {0};
    if (!t) return view;
    int head = t->ndim == 3;
    view.data = sac_tensor_data(t);
    view.batch_stride = head ? sac_tensor_stride(t, 0) : 0;
    view.head_stride = sac_tensor_stride(t, head);
    view.row_stride = sac_tensor_stride(t, head + 1);
    return view;
}

static bool dtype_of(DLDataType dtype, int32_t *code) {
    static const struct {
        uint8_t type, bits;
        sac_dtype code;
    } known[] = {
        {kDLFloat, 32, SAC_F32}, {kDLFloat, 16, SAC_F16}, {kDLBfloat, 16, SAC_BF16}, {kDLFloat, 64, SAC_F64}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (dtype.code != known[i].type || dtype.bits != known[i].bits || dtype.lanes != 1) continue;
        *code = (int32_t)known[i].code;
        return true;
    }
    return false;
}

/* ---- q, k, v ---- */

static saccade_status check_heads(sac_attention_args *args) {
    if (args->num_kv_heads == 0 && args->num_heads != 0)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "k: 0 heads, but q has %d", args->num_heads);
    if (args->num_kv_heads && args->num_heads % args->num_kv_heads)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "q: %d heads are not a multiple of k's %d", args->num_heads,
                        args->num_kv_heads);
    args->group = args->num_kv_heads ? args->num_heads / args->num_kv_heads : 1;
    return SACCADE_OK;
}

static saccade_status check_count(const char *name, const char *what, int64_t count) {
    if (count <= INT32_MAX) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: %" PRId64 " %s, at most %d are allowed", name, count, what,
                    INT32_MAX);
}

static saccade_status check_rows(const char *name, int64_t rows, bool packed) {
    if (!packed && rows > SAC_MAX_SEQLEN)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: %" PRId64 " tokens a sequence, at most %d are allowed",
                        name, rows, SAC_MAX_SEQLEN);
    return SACCADE_OK;
}

/* What messages call the extents of q, and those of k and v: dense, packed. */
static const char *const q_letters[2][4] = {{"B", "Nq", "H", "D"}, {"Tq", "H", "D"}};
static const char *const kv_letters[2][4] = {{"B", "Nk", "Hkv", "Dv"}, {"Tk", "Hkv", "Dv"}};

static saccade_status check_qkv(const sac_attention_inputs *in, sac_attention_call *call) {
    sac_attention_args *args = &call->args;
    bool packed = in->params->cu_seqlens_q != NULL;
    int ndim = packed ? 3 : 4;
    if (!in->q) return sac_fail(SACCADE_INVALID_ARGUMENT, "q: is NULL");
    if (!in->k) return sac_fail(SACCADE_INVALID_ARGUMENT, "k: is NULL");
    if (!in->v) return sac_fail(SACCADE_INVALID_ARGUMENT, "v: is NULL");
    if (!dtype_of(in->q->dtype, &args->dtype))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "q: dtype is %s, expected bf16, fp16 or fp32",
                        sac_dtype_text(in->q->dtype));
    sac_tensor_spec spec = {.name = "q",
                            .dtype = in->q->dtype,
                            .device = in->q->device,
                            .ndim = ndim,
                            .extent = {-1, -1, -1, -1},
                            .letters = q_letters[packed],
                            .without_data = in->shapes_only};
    SAC_TRY(sac_tensor_check(in->q, &spec));
    const int64_t *q = in->q->shape + ndim - 3; /* rows, heads, head_dim */
    spec.name = "k";
    spec.letters = kv_letters[packed];
    spec.extent[0] = packed ? -1 : in->q->shape[0];
    spec.extent[ndim - 1] = q[2];
    SAC_TRY(sac_tensor_check(in->k, &spec));
    const int64_t *k = in->k->shape + ndim - 3;
    spec.name = "v";
    for (int d = 0; d < ndim - 1; d++) spec.extent[d] = in->k->shape[d];
    spec.extent[ndim - 1] = -1;
    SAC_TRY(sac_tensor_check(in->v, &spec));

    int64_t batch = packed ? 0 : in->q->shape[0];
    SAC_TRY(check_count("q", "batch entries", batch));
    SAC_TRY(check_count("q", "heads", q[1]));
    SAC_TRY(check_count("k", "heads", k[1]));
    SAC_TRY(check_count("q", "elements a head", q[2]));
    SAC_TRY(check_count("v", "elements a head", in->v->shape[ndim - 1]));
    SAC_TRY(check_rows("q", q[0], packed));
    SAC_TRY(check_rows("k", k[0], packed));
    args->batch = (int32_t)batch;
    args->num_heads = (int32_t)q[1];
    args->num_kv_heads = (int32_t)k[1];
    args->head_dim = (int32_t)q[2];
    args->head_dim_v = (int32_t)in->v->shape[ndim - 1];
    if (args->head_dim == 0) return sac_fail(SACCADE_INVALID_ARGUMENT, "q: head_dim is 0");
    args->len_q.seqlen = packed ? 0 : (int32_t)q[0];
    args->len_k.seqlen = packed ? 0 : (int32_t)k[0];
    call->total_q = packed ? q[0] : batch * q[0];
    call->total_k = packed ? k[0] : batch * k[0];
    call->device = in->q->device;
    args->q = sac_view_of(in->q);
    args->k = sac_view_of(in->k);
    args->v = sac_view_of(in->v);
    return check_heads(args);
}

/* ---- lengths ---- */

/* One side's lengths as the caller gave them. */
typedef struct length_inputs {
    const char *cu_name, *used_name, *max_name, *tokens_name;
    const DLTensor *cu_seqlens, *seqused;
    int32_t max_seqlen;
    int64_t tokens; /* of the packed tensor */
} length_inputs;

static bool on_host(DLDevice device) { return device.device_type == kDLCPU; }

static saccade_status check_cu_seqlens(const length_inputs *in, const int32_t *cu, int32_t batch,
                                       int32_t *longest) {
    if (cu[0] != 0)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: starts at %d, must start at 0", in->cu_name, cu[0]);
    *longest = 0;
    for (int32_t b = 0; b < batch; b++) {
        if (cu[b + 1] < cu[b])
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: decreases from %d to %d at entry %d", in->cu_name,
                            cu[b], cu[b + 1], b + 1);
        if (cu[b + 1] - cu[b] > *longest) *longest = cu[b + 1] - cu[b];
    }
    if (cu[batch] > in->tokens)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: ends at %d, but %s has %" PRId64 " tokens",
                        in->cu_name, cu[batch], in->tokens_name, in->tokens);
    if (in->max_seqlen && in->max_seqlen < *longest)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is %d, but the longest sequence has %d tokens",
                        in->max_name, in->max_seqlen, *longest);
    if (*longest > SAC_MAX_SEQLEN)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: a sequence of %d tokens, at most %d are allowed",
                        in->cu_name, *longest, SAC_MAX_SEQLEN);
    return SACCADE_OK;
}

static saccade_status check_seqused(const length_inputs *in, const sac_lengths *len, int32_t batch) {
    for (int32_t b = 0; b < batch; b++) {
        int32_t room = len->cu_seqlens ? len->cu_seqlens[b + 1] - len->cu_seqlens[b] : len->seqlen;
        if (len->seqused[b] < 0 || len->seqused[b] > room)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: entry %d is %d, must lie in 0..%d", in->used_name,
                            b, len->seqused[b], room);
    }
    return SACCADE_OK;
}

/* Contents are checked where the host can read them; on a device they are trusted, and max_seqlen stands in. */
static saccade_status check_lengths(const length_inputs *in, sac_attention_call *call, bool shapes_only,
                                    sac_lengths *len) {
    int32_t batch = call->args.batch;
    bool readable = on_host(call->device) && !shapes_only;
    sac_tensor_spec spec = {.name = in->cu_name,
                            .dtype = SACCADE_I32,
                            .device = call->device,
                            .ndim = 1,
                            .extent = {(int64_t)batch + 1},
                            .without_data = shapes_only};
    if (in->cu_seqlens) {
        SAC_TRY(sac_tensor_check(in->cu_seqlens, &spec));
        len->cu_seqlens = sac_tensor_place(in->cu_seqlens, shapes_only);
        len->seqlen = in->max_seqlen;
        if (readable) SAC_TRY(check_cu_seqlens(in, len->cu_seqlens, batch, &len->seqlen));
        if (!on_host(call->device) && in->max_seqlen <= 0 && in->tokens > 0)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "%s: is %d; %s lies in device memory, so a bound of the longest "
                            "sequence is needed",
                            in->max_name, in->max_seqlen, in->cu_name);
        if (!readable && (in->max_seqlen <= 0 || in->max_seqlen > in->tokens))
            len->seqlen = (int32_t)(in->tokens < SAC_MAX_SEQLEN ? in->tokens : SAC_MAX_SEQLEN);
    }
    if (in->seqused) {
        spec.name = in->used_name;
        spec.extent[0] = batch;
        SAC_TRY(sac_tensor_check(in->seqused, &spec));
        len->seqused = sac_tensor_place(in->seqused, shapes_only);
        if (readable && batch) SAC_TRY(check_seqused(in, len, batch));
    }
    return SACCADE_OK;
}

static saccade_status check_both_lengths(const sac_attention_inputs *in, sac_attention_call *call) {
    const saccade_attention_params *p = in->params;
    const char *const cu_q = in->one_length ? "cu_seqlens" : "cu_seqlens_q";
    if (!p->cu_seqlens_q != !p->cu_seqlens_k)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL, but the other cu_seqlens is given",
                        p->cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q");
    if (p->cu_seqlens_q) {
        static const char *const letters[] = {"B + 1"};
        const DLTensor *cu = p->cu_seqlens_q;
        SAC_TRY(sac_tensor_check(cu, &(sac_tensor_spec){.name = cu_q,
                                                        .dtype = SACCADE_I32,
                                                        .device = call->device,
                                                        .ndim = 1,
                                                        .extent = {-1},
                                                        .letters = letters,
                                                        .without_data = in->shapes_only}));
        if (cu->shape[0] < 1 || cu->shape[0] > INT32_MAX)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "%s: %" PRId64
                            " entries, 1 to %d are allowed: where each sequence begins, and the end",
                            cu_q, cu->shape[0], INT32_MAX);
        call->args.batch = (int32_t)(cu->shape[0] - 1);
    }
    const char *const max_q = in->one_length ? "max_seqlen" : "max_seqlen_q";
    length_inputs q = {cu_q,         "seqused_q",     max_q,        "q", p->cu_seqlens_q,
                       p->seqused_q, p->max_seqlen_q, call->total_q};
    length_inputs k = {"cu_seqlens_k",  "seqused_k",  "max_seqlen_k",  "k",
                       p->cu_seqlens_k, p->seqused_k, p->max_seqlen_k, call->total_k};
    SAC_TRY(check_lengths(&q, call, in->shapes_only, &call->args.len_q));
    return check_lengths(&k, call, in->shapes_only, &call->args.len_k);
}

/* ---- outputs and gradients ---- */

static saccade_status check_like(const DLTensor *t, const char *name, const DLTensor *like, int64_t last,
                                 bool written, bool without_data) {
    sac_tensor_spec spec = {.name = name,
                            .dtype = like->dtype,
                            .device = like->device,
                            .ndim = like->ndim,
                            .written = written,
                            .without_data = without_data};
    for (int d = 0; d < like->ndim; d++) spec.extent[d] = like->shape[d];
    spec.extent[like->ndim - 1] = last;
    return sac_tensor_check(t, &spec);
}

static saccade_status check_lse(const DLTensor *t, const char *name, const sac_attention_inputs *in,
                                bool written) {
    bool packed = in->q->ndim == 3;
    const int64_t *q = in->q->shape;
    sac_tensor_spec spec = {.name = name,
                            .dtype = SACCADE_F32,
                            .device = in->q->device,
                            .ndim = packed ? 2 : 3,
                            .written = written,
                            .without_data = in->shapes_only};
    if (packed) {
        spec.extent[0] = q[1];
        spec.extent[1] = q[0];
    } else {
        spec.extent[0] = q[0];
        spec.extent[1] = q[2];
        spec.extent[2] = q[1];
    }
    return sac_tensor_check(t, &spec);
}

static saccade_status check_vector(const DLTensor *t, const char *name, const sac_attention_inputs *in,
                                   int64_t extent, bool written) {
    sac_tensor_spec spec = {.name = name,
                            .dtype = SACCADE_F32,
                            .device = in->q->device,
                            .ndim = 1,
                            .extent = {extent},
                            .written = written,
                            .without_data = in->shapes_only};
    return sac_tensor_check(t, &spec);
}

static saccade_status check_outputs(const sac_attention_inputs *in, sac_attention_args *args) {
    bool forward = in->grads == NULL;
    if (!in->out && (in->shapes_only || in->inputs_only)) return SACCADE_OK;
    SAC_TRY(check_like(in->out, "out", in->q, args->head_dim_v, forward, in->shapes_only));
    args->out = sac_view_of(in->out);
    if (!in->lse && forward) return SACCADE_OK;
    SAC_TRY(check_lse(in->lse, "lse", in, forward));
    args->lse = sac_row_view_of(in->lse);
    return SACCADE_OK;
}

static saccade_status check_grads(const sac_attention_inputs *in, sac_attention_args *args) {
    const saccade_attention_grads *g = in->grads;
    if (!g) return SACCADE_OK;
    if (!in->shapes_only || g->dout)
        SAC_TRY(check_like(g->dout, "dout", in->q, args->head_dim_v, false, in->shapes_only));
    if (g->dlse) SAC_TRY(check_lse(g->dlse, "dlse", in, false));
    if (g->dq) SAC_TRY(check_like(g->dq, "dq", in->q, args->head_dim, true, in->shapes_only));
    if (g->dk) SAC_TRY(check_like(g->dk, "dk", in->k, args->head_dim, true, in->shapes_only));
    if (g->dv) SAC_TRY(check_like(g->dv, "dv", in->v, args->head_dim_v, true, in->shapes_only));
    if (g->dsink) {
        if (!in->params->sink)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "dsink: is given, but there is no sink");
        SAC_TRY(check_vector(g->dsink, "dsink", in, args->num_heads, true));
    }
    args->dout = sac_view_of(g->dout);
    args->dlse = sac_row_view_of(g->dlse);
    args->dq = sac_view_of(g->dq);
    args->dk = sac_view_of(g->dk);
    args->dv = sac_view_of(g->dv);
    args->dsink = sac_tensor_place(g->dsink, in->shapes_only);
    return SACCADE_OK;
}

/* ---- what happens to a score ---- */

static saccade_status check_scores(const sac_attention_inputs *in, sac_attention_args *args) {
    const saccade_attention_params *p = in->params;
    if (p->has_scale && !isfinite(p->scale))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "scale: %g is not finite", (double)p->scale);
    args->scale = p->has_scale ? p->scale : 1.0f / sqrtf((float)args->head_dim);
    if (!(p->softcap >= 0) || isinf(p->softcap))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "softcap: %g, must be positive and finite, or 0 for none",
                        (double)p->softcap);
    args->softcap = p->softcap;
    if (p->sink) {
        SAC_TRY(check_vector(p->sink, "sink", in, args->num_heads, false));
        args->sink = sac_tensor_place(p->sink, in->shapes_only);
    }
    if (p->alibi_slopes && p->alibi_slopes->ndim == 2) {
        sac_tensor_spec spec = {.name = "alibi_slopes",
                                .dtype = SACCADE_F32,
                                .device = in->q->device,
                                .ndim = 2,
                                .extent = {args->batch, args->num_heads},
                                .without_data = in->shapes_only};
        SAC_TRY(sac_tensor_check(p->alibi_slopes, &spec));
        args->alibi_batch_stride = sac_tensor_stride(p->alibi_slopes, 0);
    } else if (p->alibi_slopes) {
        SAC_TRY(check_vector(p->alibi_slopes, "alibi_slopes", in, args->num_heads, false));
    }
    args->alibi_slopes = sac_tensor_place(p->alibi_slopes, in->shapes_only);
    return SACCADE_OK;
}

static saccade_status check_band(const saccade_attention_params *p, sac_band_rule *band) {
    *band = (sac_band_rule){.window_left = -1, .window_right = -1};
    if (p->causal < SACCADE_CAUSAL_NONE || p->causal > SACCADE_CAUSAL_BOTTOM_RIGHT)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "causal: %d is no saccade_causal", (int)p->causal);
    band->causal = (int32_t)p->causal;
    if (!p->window.enabled) return SACCADE_OK;
    if (p->window.left < -1 || p->window.right < -1)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "window: (%d, %d), each side must be at least 0, or -1 for unbounded", p->window.left,
                        p->window.right);
    if (p->window.align != SACCADE_TOP_LEFT && p->window.align != SACCADE_BOTTOM_RIGHT)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "window.align: %d is no saccade_align",
                        (int)p->window.align);
    band->window_left = p->window.left;
    band->window_right = p->window.right;
    band->window_align = (int32_t)p->window.align;
    return SACCADE_OK;
}

/* ---- modifiers and block masks ---- */

static saccade_status check_daux(const sac_attention_inputs *in, sac_attention_call *call) {
    const saccade_bound_modifier *bound = &in->params->score_mod;
    if (!in->grads || !in->grads->daux) return SACCADE_OK;
    if (!bound->modifier)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "daux: is given, but there is no score_mod");
    for (int32_t i = 0; i < bound->modifier->num_aux; i++) {
        const DLTensor *daux = in->grads->daux[i], *aux = bound->aux[i];
        char name[24];
        if (!daux) continue;
        snprintf(name, sizeof name, "daux[%d]", i);
        sac_tensor_spec spec = {.name = name,
                                .dtype = SACCADE_F32,
                                .device = in->q->device,
                                .ndim = aux->ndim,
                                .written = true,
                                .contiguous = true,
                                .without_data = in->shapes_only};
        for (int d = 0; d < aux->ndim; d++) spec.extent[d] = aux->shape[d];
        SAC_TRY(sac_tensor_check(daux, &spec));
        call->args.score_aux.tensor[i].grad = sac_tensor_place(daux, in->shapes_only);
    }
    return SACCADE_OK;
}

static saccade_status check_kind(const saccade_bound_modifier *bound, saccade_modifier_kind kind,
                                 const char *name) {
    if (bound->modifier->kind == kind) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: \"%s\" is a %s", name, bound->modifier->name,
                    bound->modifier->kind == SACCADE_SCORE_KIND ? "score_mod" : "mask_mod");
}

static saccade_status check_modifiers(const sac_attention_inputs *in, sac_attention_call *call) {
    const saccade_attention_params *p = in->params;
    if (p->score_mod.modifier) {
        SAC_TRY(check_kind(&p->score_mod, SACCADE_SCORE_KIND, "score_mod"));
        SAC_TRY(sac_modifier_bind(&call->args.score_aux, &p->score_mod, call->device, "score_mod"));
        call->score_mod = p->score_mod.modifier;
    }
    if (p->mask_mod.modifier) {
        SAC_TRY(check_kind(&p->mask_mod, SACCADE_MASK_KIND, "mask_mod"));
        SAC_TRY(sac_modifier_bind(&call->args.mask_aux, &p->mask_mod, call->device, "mask_mod"));
        call->mask_mod = p->mask_mod.modifier;
    }
    return check_daux(in, call);
}

static saccade_status check_block_mask(const sac_attention_inputs *in, sac_attention_call *call) {
    const saccade_block_mask *mask = in->params->block_mask;
    sac_attention_args *args = &call->args;
    if (mask) {
        SAC_TRY(sac_block_mask_check(mask, call->device, args->batch, args->num_heads, args->len_q.seqlen,
                                     args->len_k.seqlen));
        if (mask->mask_mod && call->mask_mod)
            return sac_fail(SACCADE_INVALID_ARGUMENT,
                            "mask_mod: the block mask carries its own (\"%s\"); combine masks with "
                            "saccade_block_mask_and",
                            mask->mask_mod->name);
        call->block_mask = mask;
        args->blocks = sac_block_mask_view(mask);
        if (mask->mask_mod) {
            call->mask_mod = mask->mask_mod;
            args->mask_aux = mask->aux;
        }
    }
    args->has_mask_mod = call->mask_mod != NULL;
    args->has_score_mod = call->score_mod != NULL;
    return SACCADE_OK;
}

bool sac_rows_unaligned(const sac_view *view, int32_t batch, int32_t num_heads, int32_t element_bytes) {
    const int64_t unit = 16 / element_bytes;
    return (uintptr_t)view->data % 16 || view->row_stride % unit ||
           (num_heads > 1 && view->head_stride % unit) || (batch > 1 && view->batch_stride % unit);
}

static bool has_unaligned_rows(const sac_attention_args *args, int32_t element_bytes) {
    return sac_rows_unaligned(&args->q, args->batch, args->num_heads, element_bytes) ||
           sac_rows_unaligned(&args->k, args->batch, args->num_kv_heads, element_bytes) ||
           sac_rows_unaligned(&args->v, args->batch, args->num_kv_heads, element_bytes) ||
           sac_rows_unaligned(&args->out, args->batch, args->num_heads, element_bytes) ||
           sac_rows_unaligned(&args->dout, args->batch, args->num_heads, element_bytes) ||
           sac_rows_unaligned(&args->dq, args->batch, args->num_heads, element_bytes) ||
           sac_rows_unaligned(&args->dk, args->batch, args->num_kv_heads, element_bytes) ||
           sac_rows_unaligned(&args->dv, args->batch, args->num_kv_heads, element_bytes);
}

static void fill_request(const sac_attention_inputs *in, const sac_attention_call *call,
                         saccade_request *request) {
    const saccade_attention_params *p = in->params;
    const sac_attention_args *args = &call->args;
    *request = (saccade_request){
        .device = call->device,
        .dtype = in->q->dtype,
        .layout = p->cu_seqlens_q ? SACCADE_LAYOUT_PACKED : SACCADE_LAYOUT_BSHD,
        .batch = args->batch,
        .num_heads = args->num_heads,
        .num_kv_heads = args->num_kv_heads,
        .seqlen_q = args->len_q.seqlen,
        .seqlen_k = args->len_k.seqlen,
        .head_dim = args->head_dim,
        .head_dim_v = args->head_dim_v,
        .causal = p->causal,
        .window = p->window,
        .padding_between_sequences = p->seqused_q || p->seqused_k,
        .unaligned = has_unaligned_rows(args, in->q->dtype.bits / 8),
        .score_mod = call->score_mod != NULL,
        .score_mod_grad = call->score_mod && (call->score_mod->grad_text || call->score_mod->score_grad_row),
        .mask_mod = call->mask_mod != NULL,
        .block_mask = p->block_mask != NULL,
        .aux_grad = in->grads && in->grads->daux,
        .softcap = p->softcap != 0,
        .sink = p->sink != NULL,
        .alibi = p->alibi_slopes != NULL,
        .dropout = p->dropout != 0,
        .deterministic = p->deterministic,
        .training = in->grads != NULL,
        .lse_grad = in->grads && in->grads->dlse,
        .backend = p->backend,
    };
}

saccade_status sac_attention_check(const sac_attention_inputs *in, sac_attention_call *call,
                                   saccade_request *request) {
    *call = (sac_attention_call){0};
    sac_attention_args *args = &call->args;
    SAC_TRY(check_qkv(in, call));
    SAC_TRY(check_both_lengths(in, call));
    SAC_TRY(check_outputs(in, args));
    SAC_TRY(check_grads(in, args));
    SAC_TRY(check_scores(in, args));
    SAC_TRY(check_band(in->params, &args->band));
    SAC_TRY(check_modifiers(in, call));
    SAC_TRY(check_block_mask(in, call));
    args->deterministic = in->params->deterministic;
    fill_request(in, call, request);
    return SACCADE_OK;
}
