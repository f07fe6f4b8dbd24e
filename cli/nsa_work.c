/* nsa_work.c - from a file to a call of native sparse attention. */
#include "nsa_work.h"

#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "dtype.h"

const char *nsa_result_name(nsa_result result) {
    static const char *const names[] = {"out",   "indices", "lse_cmp", "lse_slc", "lse_win",
                                        "k_cmp", "v_cmp",   "dq",      "dk",      "dv",
                                        "dw_k",  "dw_v",    "dw_gate", "dgates"};
    return names[result];
}

/* ---- inputs ---- */

/* What attention knows and native sparse attention does not is refused, not ignored. */
static bool nothing_unknown(const workload *w) {
    static const char *const names[] = {"seqused_q", "seqused_k", "sink", "alibi_slopes"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (safetensors_find(w->file, names[i])) {
            complain("%s: holds \"%s\", which native sparse attention does not know", w->file->path,
                     names[i]);
            return false;
        }
    return true;
}

static bool same_lengths(const workload *w) {
    const DLTensor *q = w->params.cu_seqlens_q, *k = w->params.cu_seqlens_k;
    if (!q) return true;
    size_t count = tensor_elements(q);
    bool same = count == tensor_elements(k) && !memcmp(q->data, k->data, count * sizeof(int32_t));
    if (!same) complain("%s: cu_seqlens_q and cu_seqlens_k differ; this is self-attention", w->file->path);
    return same;
}

static int64_t or_default(int32_t value, int64_t otherwise) { return value ? value : otherwise; }

/* The header's defaults, which shapes of results follow from. */
static void resolve(nsa_work *work) {
    const saccade_nsa_params *p = &work->params;
    input_shape s = workload_shape(&work->dense);
    work->block = or_default(p->block, 64);
    work->top_k = or_default(p->top_k, 16);
    work->window = or_default(p->window, 512);
    work->query_tile = or_default(p->query_tile, 256);
    saccade_nsa_score score = p->score                ? p->score
                              : work->query_tile == 1 ? SACCADE_NSA_PROBABILITIES
                                                      : SACCADE_NSA_LOGITS;
    bool group = p->select_per ? p->select_per == SACCADE_NSA_PER_GROUP : score == SACCADE_NSA_PROBABILITIES;
    work->num_lists = group ? s.num_kv_heads : s.num_heads;
}

/* ---- results ---- */

static DLTensor *rows_like(const nsa_work *work, int64_t rows, const DLTensor *heads_of, int64_t dim,
                           DLDataType dtype) {
    const int first = work->dense.q->ndim - 3;
    int64_t shape[4] = {first ? work->dense.q->shape[0] : 0};
    shape[first] = rows;
    shape[first + 1] = heads_of->shape[first + 1];
    shape[first + 2] = dim;
    return tensor_new(dtype, first + 3, shape);
}

static DLTensor *gradient_of(const DLTensor *input) {
    return input ? tensor_new(SACCADE_F32, input->ndim, input->shape) : NULL;
}

static void make_saved(nsa_work *work) {
    const workload *w = &work->dense;
    const int first = w->q->ndim - 3;
    const bool packed = !first;
    const int64_t rows = w->q->shape[first], head_dim = w->q->shape[first + 2],
                  head_dim_v = w->v->shape[first + 2];
    const int64_t tiles = packed ? rows / work->query_tile + w->params.cu_seqlens_q->shape[0] - 1
                                 : (rows + work->query_tile - 1) / work->query_tile;
    const int64_t dense_lse[] = {w->q->shape[0], w->q->shape[first + 1], rows};
    const int64_t dense_lists[] = {w->q->shape[0], work->num_lists, tiles, work->top_k};
    work->result[NSA_OUT] = rows_like(work, rows, w->q, head_dim_v, w->q->dtype);
    work->result[NSA_K_CMP] = rows_like(work, rows / work->block, w->k, head_dim, w->q->dtype);
    work->result[NSA_V_CMP] = rows_like(work, rows / work->block, w->k, head_dim_v, w->q->dtype);
    work->result[NSA_INDICES] = tensor_new(SACCADE_I32, packed ? 3 : 4, dense_lists + packed);
    for (int i = NSA_LSE_CMP; i <= NSA_LSE_WIN; i++)
        work->result[i] = tensor_new(SACCADE_F32, packed ? 2 : 3, dense_lse + packed);
    if (!w->backward) return;
    work->result[NSA_DQ] = rows_like(work, rows, w->q, head_dim, w->q->dtype);
    work->result[NSA_DK] = rows_like(work, rows, w->k, head_dim, w->q->dtype);
    work->result[NSA_DV] = rows_like(work, rows, w->k, head_dim_v, w->q->dtype);
    work->result[NSA_DW_K] = gradient_of(work->w_k);
    work->result[NSA_DW_V] = gradient_of(work->w_v);
    work->result[NSA_DW_GATE] = gradient_of(work->w_gate);
    work->result[NSA_DGATES] = gradient_of(work->gates);
}

/* On a GPU the longest sequence must be named: nobody reads cu_seqlens there to find it. */
static int32_t longest_sequence(const DLTensor *cu_seqlens) {
    const int32_t *cu = cu_seqlens->data;
    int32_t longest = 1;
    for (int64_t b = 0; b + 1 < cu_seqlens->shape[0]; b++)
        if (cu[b + 1] - cu[b] > longest) longest = cu[b + 1] - cu[b];
    return longest;
}

/* What --stats compares with stays on the host. */
static bool enter_gpu(nsa_work *work) {
    if (!gpu_enter(&work->params.backend, &work->gpu)) return false;
    if (!work->gpu) return true;
    work->dense.params.backend = NULL;
    if (work->params.cu_seqlens) work->params.max_seqlen = longest_sequence(work->params.cu_seqlens);
    return true;
}

int nsa_work_open(nsa_work *work, attention_options *options, const saccade_nsa_params *params) {
    *work = (nsa_work){.params = *params};
    options->params.causal = SACCADE_CAUSAL_TOP_LEFT;
    int code = workload_open(&work->dense, options, NULL);
    if (code != EXIT_OK) return code;
    const workload *w = &work->dense;
    if (!nothing_unknown(w) || !same_lengths(w)) return EXIT_USAGE;
    work->params.cu_seqlens = w->params.cu_seqlens_q;
    work->params.has_scale = w->params.has_scale;
    work->params.scale = w->params.scale;
    work->params.backend = w->params.backend;
    work->params.deterministic = w->params.deterministic;
    work->w_k = safetensors_find(w->file, "w_k");
    work->w_v = safetensors_find(w->file, "w_v");
    work->w_gate = safetensors_find(w->file, "w_gate");
    work->gates = safetensors_find(w->file, "gates");
    resolve(work);
    make_saved(work);
    return enter_gpu(work) ? EXIT_OK : EXIT_USAGE;
}

void nsa_work_close(nsa_work *work) {
    gpu_copies_free(work->gpu);
    for (int i = 0; i < NSA_NUM_RESULTS; i++) tensor_free(work->result[i]);
    workload_close(&work->dense);
    *work = (nsa_work){0};
}

/* Where the computation has it. */
static DLTensor *place(const nsa_work *work, const DLTensor *tensor) {
    return gpu_copy_of(work->gpu, tensor);
}

static saccade_nsa_tensors tensors_of(const nsa_work *work) {
    DLTensor *const *r = work->result;
    return (saccade_nsa_tensors){.q = place(work, work->dense.q),
                                 .k = place(work, work->dense.k),
                                 .v = place(work, work->dense.v),
                                 .w_k = place(work, work->w_k),
                                 .w_v = place(work, work->w_v),
                                 .w_gate = place(work, work->w_gate),
                                 .gates = place(work, work->gates),
                                 .k_cmp = place(work, r[NSA_K_CMP]),
                                 .v_cmp = place(work, r[NSA_V_CMP]),
                                 .indices = place(work, r[NSA_INDICES]),
                                 .lse_cmp = place(work, r[NSA_LSE_CMP]),
                                 .lse_slc = place(work, r[NSA_LSE_SLC]),
                                 .lse_win = place(work, r[NSA_LSE_WIN])};
}

static saccade_nsa_params params_of(const nsa_work *work) {
    saccade_nsa_params params = work->params;
    params.cu_seqlens = place(work, params.cu_seqlens);
    return params;
}

/* Rows of a pack that no tile has would be written to OUT as they are. */
static void clear_indices(DLTensor *indices) {
    int32_t *data = indices->data;
    for (size_t i = 0; i < tensor_elements(indices); i++) data[i] = -1;
}

/* A GPU may fail after the call has returned. */
static saccade_status finish(const nsa_work *work, saccade_status status) {
    return status == SACCADE_OK && !gpu_wait(work->gpu) ? SACCADE_DEVICE_ERROR : status;
}

saccade_status nsa_work_forward(nsa_work *work) {
    clear_indices(work->result[NSA_INDICES]);
    const saccade_nsa_tensors t = tensors_of(work);
    const saccade_nsa_params params = params_of(work);
    return finish(work,
                  saccade_nsa_forward(work->dense.ctx, &t, place(work, work->result[NSA_OUT]), &params));
}

saccade_status nsa_work_backward(nsa_work *work) {
    const saccade_nsa_tensors t = tensors_of(work);
    const saccade_nsa_params params = params_of(work);
    DLTensor *const *r = work->result;
    const saccade_nsa_grads grads = {.dout = place(work, work->dense.dout),
                                     .dq = place(work, r[NSA_DQ]),
                                     .dk = place(work, r[NSA_DK]),
                                     .dv = place(work, r[NSA_DV]),
                                     .dw_k = place(work, r[NSA_DW_K]),
                                     .dw_v = place(work, r[NSA_DW_V]),
                                     .dw_gate = place(work, r[NSA_DW_GATE]),
                                     .dgates = place(work, r[NSA_DGATES])};
    return finish(work, saccade_nsa_backward(work->dense.ctx, &t, &grads, &params));
}

saccade_status nsa_work_fetch(nsa_work *work) {
    for (int i = 0; i < NSA_NUM_RESULTS; i++)
        if (work->result[i] && !gpu_copy_back(work->gpu, work->result[i])) return SACCADE_DEVICE_ERROR;
    return SACCADE_OK;
}

/* ---- sequences ---- */

int64_t nsa_work_sequences(const nsa_work *work) {
    const DLTensor *cu = work->params.cu_seqlens;
    return cu ? cu->shape[0] - 1 : work->dense.q->shape[0];
}

nsa_sequence nsa_work_sequence(const nsa_work *work, int64_t b) {
    nsa_sequence s = {0};
    if (!work->params.cu_seqlens) {
        s.len = work->dense.q->shape[1];
        s.row = b * s.len;
        return s;
    }
    const int32_t *cu = work->params.cu_seqlens->data;
    for (int64_t before = 0; before < b; before++)
        s.tile += (cu[before + 1] - cu[before] + work->query_tile - 1) / work->query_tile;
    s.row = cu[b];
    s.len = cu[b + 1] - cu[b];
    return s;
}

const int32_t *nsa_work_blocks(const nsa_work *work, int64_t b, int64_t head, int64_t i) {
    const DLTensor *indices = work->result[NSA_INDICES];
    const int64_t num_heads = work->dense.q->shape[work->dense.q->ndim - 2];
    const int64_t list = head * work->num_lists / num_heads, tiles = indices->shape[indices->ndim - 2];
    const int64_t entry = work->params.cu_seqlens ? 0 : b * work->num_lists;
    const int64_t tile = nsa_work_sequence(work, b).tile + i / work->query_tile;
    return (const int32_t *)indices->data + ((entry + list) * tiles + tile) * work->top_k;
}
