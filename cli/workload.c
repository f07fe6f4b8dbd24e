/* workload.c - from options and a file, or a shape, to tensors and parameters. */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#include "band.h"
#include "command.h"
#include "dtype.h"
#include "mask_spec.h"

/* ---- tensors ---- */

typedef struct owned_tensor {
    DLTensor tensor;
    int64_t shape[SAFETENSORS_MAX_DIMS];
} owned_tensor;

static DLTensor *tensor_without_data(DLDataType dtype, int ndim, const int64_t *shape) {
    owned_tensor *self = allocate(sizeof *self);
    for (int d = 0; d < ndim; d++) self->shape[d] = shape[d];
    self->tensor = (DLTensor){.device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype, .shape = self->shape};
    return &self->tensor;
}

DLTensor *tensor_new(DLDataType dtype, int ndim, const int64_t *shape) {
    DLTensor *tensor = tensor_without_data(dtype, ndim, shape);
    tensor->data = allocate(tensor_elements(tensor) * dtype_bytes(dtype));
    return tensor;
}

void tensor_free(DLTensor *tensor) {
    if (!tensor) return;
    free(tensor->data);
    free(tensor); /* the first member of its owned_tensor */
}

static DLTensor *tensor_for(const workload *work, DLDataType dtype, int ndim, const int64_t *shape) {
    return work->shapes_only ? tensor_without_data(dtype, ndim, shape) : tensor_new(dtype, ndim, shape);
}

static DLTensor *result_like(const workload *work, const DLTensor *like, DLDataType dtype) {
    return tensor_for(work, dtype, like->ndim, like->shape);
}

static DLTensor *own(workload *work, DLTensor *tensor) { return work->owned[work->num_owned++] = tensor; }

/* ---- inputs ---- */

static bool need_tensor(const safetensors_file *file, const char *name, DLTensor **tensor) {
    *tensor = safetensors_find(file, name);
    if (!*tensor) complain("%s: there is no tensor \"%s\"", file->path, name);
    return *tensor != NULL;
}

/* The library's own checks of tensors, shapes and parameters, before anything is built on them. */
static int check_inputs(const workload *work, const DLTensor *q, const DLTensor *k, const DLTensor *v) {
    saccade_request request;
    saccade_status status = saccade_request_from_call(&request, q, k, v, NULL, &work->params);
    return status == SACCADE_OK ? EXIT_OK
                                : complain_status(work->file ? work->file->path : "--shapes", status);
}

static int open_inputs(workload *work, const char *path) {
    saccade_attention_params *p = &work->params;
    if (!(work->file = safetensors_open(path))) return EXIT_USAGE;
    if (!need_tensor(work->file, "q", &work->q) || !need_tensor(work->file, "k", &work->k) ||
        !need_tensor(work->file, "v", &work->v))
        return EXIT_USAGE;
    p->cu_seqlens_q = safetensors_find(work->file, "cu_seqlens_q");
    p->cu_seqlens_k = safetensors_find(work->file, "cu_seqlens_k");
    p->seqused_q = safetensors_find(work->file, "seqused_q");
    p->seqused_k = safetensors_find(work->file, "seqused_k");
    p->sink = safetensors_find(work->file, "sink");
    p->alibi_slopes = safetensors_find(work->file, "alibi_slopes");
    work->dout = safetensors_find(work->file, "dout");
    return check_inputs(work, work->q, work->k, work->v);
}

/* A fixed sequence of roughly normal numbers: the sum of four uniform ones, of variance 1. */
static float next_random(uint64_t *state) {
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) * 0x1p-24f - 0.5f;
    }
    return sum * 1.7320508f;
}

static DLTensor *random_tensor(const workload *work, DLDataType dtype, uint64_t seed, const int64_t *shape) {
    DLTensor *tensor = tensor_for(work, dtype, 4, shape);
    if (work->shapes_only) return tensor;
    size_t bytes = dtype_bytes(dtype), count = tensor_elements(tensor);
    for (size_t i = 0; i < count; i++) {
        float value = next_random(&seed);
        dtype_store(dtype, &value, 1, (char *)tensor->data + i * bytes);
    }
    return tensor;
}

/* Checked before there is memory for them. */
static int make_inputs(workload *work, const input_shape *s, DLDataType dtype) {
    int code =
        check_inputs(work, SACCADE_TENSOR(NULL, dtype, s->batch, s->seqlen_q, s->num_heads, s->head_dim),
                     SACCADE_TENSOR(NULL, dtype, s->batch, s->seqlen_k, s->num_kv_heads, s->head_dim),
                     SACCADE_TENSOR(NULL, dtype, s->batch, s->seqlen_k, s->num_kv_heads, s->head_dim_v));
    if (code != EXIT_OK) return code;
    int64_t q[] = {s->batch, s->seqlen_q, s->num_heads, s->head_dim};
    int64_t k[] = {s->batch, s->seqlen_k, s->num_kv_heads, s->head_dim};
    int64_t v[] = {s->batch, s->seqlen_k, s->num_kv_heads, s->head_dim_v};
    int64_t out[] = {s->batch, s->seqlen_q, s->num_heads, s->head_dim_v};
    work->q = own(work, random_tensor(work, dtype, 1, q));
    work->k = own(work, random_tensor(work, dtype, 2, k));
    work->v = own(work, random_tensor(work, dtype, 3, v));
    if (work->backward) work->dout = own(work, random_tensor(work, dtype, 4, out));
    return EXIT_OK;
}

/* The gradient of the sum of out. */
static void make_dout(workload *work) {
    int64_t shape[4];
    int ndim = work->q->ndim;
    if (!work->backward || work->dout) return;
    for (int d = 0; d < ndim; d++) shape[d] = work->q->shape[d];
    shape[ndim - 1] = work->v->shape[ndim - 1];
    work->dout = own(work, tensor_for(work, work->q->dtype, ndim, shape));
    work->dout_is_ones = true;
    if (work->shapes_only) return;
    float one = 1;
    size_t bytes = dtype_bytes(work->q->dtype), count = tensor_elements(work->dout);
    for (size_t i = 0; i < count; i++)
        dtype_store(work->q->dtype, &one, 1, (char *)work->dout->data + i * bytes);
}

/* ---- modifiers and block mask ---- */

static int bind_modifiers(workload *work, attention_options *options) {
    saccade_status status = SACCADE_OK;
    modifier_text mask = {SACCADE_MASK_KIND, "mask_mod", options->mask_mod, NULL};
    modifier_text score = {SACCADE_SCORE_KIND, "score_mod", options->score_mod, options->score_mod_grad};
    if (mask.text) status = bind_text(work->ctx, &work->mask_mod, &mask, &options->sources);
    if (status != SACCADE_OK) return complain_status(NULL, status);
    if (score.text) status = bind_text(work->ctx, &work->score_mod, &score, &options->sources);
    if (status != SACCADE_OK) return complain_status(NULL, status);
    work->params.mask_mod = work->mask_mod.modifier;
    work->params.score_mod = work->score_mod.modifier;
    return EXIT_OK;
}

static int build_mask(workload *work, attention_options *options) {
    if (!options->mask_spec) return EXIT_OK;
    char *error;
    mask_spec *spec = mask_spec_parse(options->mask_spec, &error);
    if (!spec) {
        complain("--mask %s: %s", options->mask_spec, error);
        free(error);
        return EXIT_USAGE;
    }
    input_shape s = workload_shape(work);
    saccade_mask_shape shape = {.batch = mask_spec_reads_batch(spec) ? (int32_t)s.batch : 1,
                                .num_heads = mask_spec_reads_head(spec) ? (int32_t)s.num_heads : 1,
                                .q_len = (int32_t)s.seqlen_q,
                                .kv_len = (int32_t)s.seqlen_k,
                                .q_block = (int32_t)options->block_size[0],
                                .kv_block = (int32_t)options->block_size[1]};
    int code = mask_spec_build(work->ctx, spec, &shape, &options->sources, &work->block_mask);
    mask_spec_free(spec);
    work->params.block_mask = work->block_mask;
    return code;
}

/* ---- the whole ---- */

bool workload_is_packed(const workload *work) { return work->params.cu_seqlens_q != NULL; }

/* So that questions about a call, which look at no data, speak of the same lengths as the call. */
static void bound_lengths(workload *work) {
    input_shape s = workload_shape(work);
    work->params.max_seqlen_q = (int32_t)s.seqlen_q;
    work->params.max_seqlen_k = (int32_t)s.seqlen_k;
}

static int open_workload(workload *work, attention_options *options, const input_shape *shape,
                         bool shapes_only) {
    *work = (workload){.params = options->params, .backward = options->backward, .shapes_only = shapes_only};
    saccade_status status = saccade_context_create(&work->ctx, &options->context);
    if (status != SACCADE_OK) return complain_status(NULL, status);
    int code = shape ? make_inputs(work, shape, options->dtype) : open_inputs(work, options->input);
    options->sources.file = work->file;
    if (code == EXIT_OK && workload_is_packed(work)) bound_lengths(work);
    if (code == EXIT_OK) make_dout(work);
    if (code == EXIT_OK) code = bind_modifiers(work, options);
    if (code == EXIT_OK) code = build_mask(work, options);
    if (code == EXIT_OK && !all_scalars_used(&options->sources)) code = EXIT_USAGE;
    return code;
}

int workload_open(workload *work, attention_options *options, const input_shape *shape) {
    return open_workload(work, options, shape, false);
}

int workload_open_shapes(workload *work, attention_options *options, const input_shape *shape) {
    return open_workload(work, options, shape, true);
}

int workload_enter_gpu(workload *work) {
    return gpu_enter(&work->params.backend, &work->gpu) ? EXIT_OK : EXIT_USAGE;
}

void workload_close(workload *work) {
    gpu_copies_free(work->gpu);
    for (int i = 0; i < work->num_owned; i++) tensor_free(work->owned[i]);
    saccade_block_mask_destroy(work->block_mask);
    unbind_text(&work->mask_mod);
    unbind_text(&work->score_mod);
    saccade_context_destroy(work->ctx);
    safetensors_close(work->file);
    *work = (workload){0};
}

/* The longest sequence. The contents may still be nonsense, which the library refuses when it computes. */
static int64_t longest(const DLTensor *cu_seqlens, int64_t tokens) {
    const int32_t *cu = cu_seqlens->data;
    int64_t most = 0;
    for (int64_t b = 0; b + 1 < cu_seqlens->shape[0]; b++) most = larger(most, (int64_t)cu[b + 1] - cu[b]);
    return smaller(most, tokens);
}

input_shape workload_shape(const workload *work) {
    const saccade_attention_params *p = &work->params;
    bool packed = workload_is_packed(work);
    const int64_t *q = work->q->shape + work->q->ndim - 3, *k = work->k->shape + work->k->ndim - 3;
    return (input_shape){.batch = packed ? p->cu_seqlens_q->shape[0] - 1 : work->q->shape[0],
                         .seqlen_q = packed ? longest(p->cu_seqlens_q, q[0]) : q[0],
                         .seqlen_k = packed ? longest(p->cu_seqlens_k, k[0]) : k[0],
                         .num_heads = q[1],
                         .num_kv_heads = k[1],
                         .head_dim = q[2],
                         .head_dim_v = work->v->shape[work->v->ndim - 1]};
}

/* ---- results ---- */

results results_new(const workload *work) {
    static const char *const names[DAUX] = {"out", "lse", "dq", "dk", "dv", "dsink"};
    results r = {.gpu = work->gpu};
    const DLTensor *q = work->q;
    int n = q->ndim;
    int64_t out[4], lse[3];
    for (int d = 0; d < n; d++) out[d] = q->shape[d];
    out[n - 1] = work->v->shape[n - 1];
    if (n == 4) lse[0] = q->shape[0];
    lse[n - 3] = q->shape[n - 2];
    lse[n - 2] = q->shape[n - 3];
    r.tensor[OUT] = tensor_for(work, q->dtype, n, out);
    r.tensor[LSE] = tensor_for(work, SACCADE_F32, n - 1, lse);
    if (work->backward) {
        r.tensor[DQ] = result_like(work, q, q->dtype);
        r.tensor[DK] = result_like(work, work->k, q->dtype);
        r.tensor[DV] = result_like(work, work->v, q->dtype);
        if (work->params.sink) r.tensor[DSINK] = result_like(work, work->params.sink, SACCADE_F32);
        for (int32_t i = 0; i < work->score_mod.num_aux; i++)
            if (work->score_mod.wants_grad[i])
                r.tensor[DAUX + i] = result_like(work, work->score_mod.aux[i], SACCADE_F32);
    }
    for (int i = 0; i < MAX_RESULTS; i++)
        if (r.tensor[i])
            r.name[i] =
                i < DAUX ? copy_string(names[i]) : format_string("d%s", work->score_mod.aux_names[i - DAUX]);
    return r;
}

void results_free(results *r) {
    for (int i = 0; i < MAX_RESULTS; i++) {
        gpu_forget(r->gpu, r->tensor[i]);
        tensor_free(r->tensor[i]);
        free(r->name[i]);
    }
    *r = (results){0};
}

/* ---- the library's calls ---- */

/* A workload and its results where they are computed: on the host, themselves. */
typedef struct placed {
    workload work;
    results r;
    const DLTensor *aux[2][SACCADE_MAX_AUX];
} placed;

static void place_aux(gpu_copies *gpu, const bound_text *text, const DLTensor **aux,
                      saccade_bound_modifier *bound) {
    for (int32_t i = 0; i < text->num_aux; i++) aux[i] = gpu_copy_of(gpu, text->aux[i]);
    bound->aux = aux;
}

static void place(placed *p, const workload *work, const results *r) {
    gpu_copies *gpu = work->gpu;
    *p = (placed){.work = *work, .r = *r};
    if (!gpu) return;
    workload *w = &p->work;
    DLTensor **const own[] = {&w->q, &w->k, &w->v, &w->dout};
    const DLTensor **const given[] = {&w->params.sink,         &w->params.alibi_slopes,
                                      &w->params.cu_seqlens_q, &w->params.cu_seqlens_k,
                                      &w->params.seqused_q,    &w->params.seqused_k};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) *own[i] = gpu_copy_of(gpu, *own[i]);
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) *given[i] = gpu_copy_of(gpu, *given[i]);
    place_aux(gpu, &work->mask_mod, p->aux[0], &w->params.mask_mod);
    place_aux(gpu, &work->score_mod, p->aux[1], &w->params.score_mod);
    for (int i = 0; i < MAX_RESULTS; i++) p->r.tensor[i] = gpu_copy_of(gpu, r->tensor[i]);
}

/* A GPU may fail after the call has returned. */
static saccade_status finish(const workload *work, saccade_status status) {
    return status == SACCADE_OK && !gpu_wait(work->gpu) ? SACCADE_DEVICE_ERROR : status;
}

saccade_status workload_forward(const workload *work, results *r) {
    placed p;
    place(&p, work, r);
    return finish(work, saccade_attention_forward(work->ctx, p.work.q, p.work.k, p.work.v, p.r.tensor[OUT],
                                                  p.r.tensor[LSE], &p.work.params));
}

static saccade_attention_grads grads_of(const workload *work, const results *r) {
    bool any_aux = false;
    for (int i = DAUX; i < MAX_RESULTS; i++) any_aux |= r->tensor[i] != NULL;
    return (saccade_attention_grads){.dout = work->dout,
                                     .dq = r->tensor[DQ],
                                     .dk = r->tensor[DK],
                                     .dv = r->tensor[DV],
                                     .dsink = r->tensor[DSINK],
                                     .daux = any_aux ? &r->tensor[DAUX] : NULL};
}

saccade_status workload_backward(const workload *work, results *r) {
    placed p;
    place(&p, work, r);
    saccade_attention_grads grads = grads_of(&p.work, &p.r);
    return finish(work, saccade_attention_backward(work->ctx, p.work.q, p.work.k, p.work.v, p.r.tensor[OUT],
                                                   p.r.tensor[LSE], &grads, &p.work.params));
}

saccade_status workload_fetch(results *r) {
    for (int i = 0; i < MAX_RESULTS; i++)
        if (r->tensor[i] && !gpu_copy_back(r->gpu, r->tensor[i])) return SACCADE_DEVICE_ERROR;
    return SACCADE_OK;
}

/* ---- other dtypes, other backends ---- */

/* Every value of a narrower dtype is one of the wider. */
static DLTensor *convert(const DLTensor *from, DLDataType dtype) {
    if (!from) return NULL;
    DLTensor *to = tensor_new(dtype, from->ndim, from->shape);
    size_t count = tensor_elements(from), from_bytes = dtype_bytes(from->dtype), bytes = dtype_bytes(dtype);
    for (size_t i = 0; i < count; i++) {
        if (dtype_equal(from->dtype, dtype)) {
            memcpy((char *)to->data + i * bytes, (const char *)from->data + i * from_bytes, bytes);
            continue;
        }
        float value;
        dtype_load(from->dtype, (const char *)from->data + i * from_bytes, 1, &value);
        dtype_store(dtype, &value, 1, (char *)to->data + i * bytes);
    }
    return to;
}

workload workload_converted(const workload *work, DLDataType dtype) {
    workload converted = *work;
    converted.gpu = NULL;
    converted.q = convert(work->q, dtype);
    converted.k = convert(work->k, dtype);
    converted.v = convert(work->v, dtype);
    converted.dout = convert(work->dout, dtype);
    return converted;
}

void workload_converted_free(workload *converted) {
    tensor_free(converted->q);
    tensor_free(converted->k);
    tensor_free(converted->v);
    tensor_free(converted->dout);
    *converted = (workload){0};
}

saccade_backend_report *workload_report(const workload *work, bool backward, DLDeviceType memory) {
    results r = results_new(work);
    placed p;
    place(&p, work, &r);
    saccade_attention_grads grads = grads_of(&p.work, &p.r);
    saccade_request request;
    saccade_backend_report *report = NULL;
    saccade_status status = saccade_request_from_call(&request, p.work.q, p.work.k, p.work.v,
                                                      backward ? &grads : NULL, &p.work.params);
    results_free(&r);
    if (status == SACCADE_OK) {
        /* Copies in a GPU's memory would start aligned; rows that are not multiples of 16 bytes have a reason of their
         * own. */
        if (memory != kDLCPU) request.unaligned = false;
        request.device.device_type = memory;
        status = saccade_select_backend(work->ctx, &request, &report);
        if (status == SACCADE_UNSUPPORTED && report) return report;
    }
    if (status != SACCADE_OK) {
        complain_status(NULL, status);
        saccade_backend_report_destroy(report);
        return NULL;
    }
    return report;
}

char *workload_backend(const workload *work, bool backward) {
    saccade_backend_report *report = workload_report(work, backward, work->gpu ? kDLCUDA : kDLCPU);
    if (!report) return NULL;
    char *name = NULL;
    for (int32_t i = 0; i < report->num_backends && !name; i++) {
        const saccade_backend_entry *entry = &report->backends[i];
        bool meant = !work->params.backend || !strcmp(work->params.backend, entry->name);
        if (meant && entry->usable) name = copy_string(entry->name);
    }
    if (!name) complain_status(NULL, SACCADE_UNSUPPORTED);
    saccade_backend_report_destroy(report);
    return name;
}
