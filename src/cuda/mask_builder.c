/* mask_builder.c - block masks built on a device: arguments checked, memory laid out, kernels queued.
 *
 * The host never learns what is listed, so the launches depend on the shape alone and the whole may be captured in a
 * graph. See kernels/mask_args.h for the kernels and their order.
 */
#include <saccade/device_mask.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "cuda/mask_exchange.h"
#include "mask/checks.h"
#include "mask/predicates.h"
#include "mod/modifier.h"

enum { LANES = 32, THREADS = SAC_MASK_THREADS, MEMORY_ALIGNMENT = 256 };

/* A mask on its way. */
typedef struct mask_job {
    saccade_context *ctx;
    const sac_cuda_device *device;
    const saccade_device_mask_params *params;
    saccade_block_mask *mask;
    sac_mask_args args;
    sac_mask_source values;       /* whose values mask_values makes; SAC_MASK_KINDS: none are needed */
    size_t cleared;               /* bytes at the start of the memory that begin as 0 */
    const sac_exchange *imported; /* whose lists mask_import reads; NULL: none */
} mask_job;

/* ---- memory ---- */

static saccade_status lists_of(const mask_job *job, int64_t *heads, int64_t *grid) {
    const saccade_block_mask *mask = job->mask;
    *heads = (int64_t)mask->list_batch * mask->list_heads;
    if (__builtin_mul_overflow(*heads * mask->num_q_blocks, (int64_t)mask->num_kv_blocks, grid) ||
        *grid > INT64_MAX >> 8)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "params.shape: %lld heads of %d x %d blocks are beyond counting", (long long)*heads,
                        mask->num_q_blocks, mask->num_kv_blocks);
    return SACCADE_OK;
}

/* Bytes of everything, and where it lies at `memory`, which may be NULL. */
static saccade_status lay_out(mask_job *job, void *memory, size_t *bytes) {
    const saccade_block_mask *mask = job->mask;
    sac_mask_args *args = &job->args;
    int64_t heads, grid, capacity = job->params->capacity;
    SAC_TRY(lists_of(job, &heads, &grid));
    args->batch = mask->list_batch;
    args->num_heads = mask->list_heads;
    args->rows = mask->num_q_blocks;
    args->columns = mask->num_kv_blocks;
    const sac_mask_room room = {.capacity = capacity && capacity < grid ? capacity : grid,
                                .values = 2 * (int64_t)sac_max(mask->shape.q_len, 1) + mask->shape.batch,
                                .kinds = true,
                                .by_key = true};
    *bytes = sac_mask_lists_lay_out(args, &room, memory, &job->cleared);
    return SACCADE_OK;
}

static saccade_status check_params(const saccade_device_mask_params *params) {
    if (!params) return sac_fail(SACCADE_INVALID_ARGUMENT, "params: is NULL");
    if (params->device.device_type != kDLCUDA)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "params.device: type %d, but only %d (kDLCUDA) has builders",
                        (int)params->device.device_type, (int)kDLCUDA);
    if (params->capacity < 0)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "params.capacity: %lld is negative",
                        (long long)params->capacity);
    return SACCADE_OK;
}

/* The shape may be written to until the memory is taken: list_batch and list_heads are the builder's. */
static saccade_status open_job(mask_job *job, saccade_context *ctx, const saccade_device_mask_params *params,
                               sac_mask_source source) {
    *job = (mask_job){.ctx = ctx, .params = params, .values = source, .args.source = source};
    saccade_status status = check_params(params);
    if (status == SACCADE_OK) status = sac_mask_new(ctx, &job->mask, &params->shape);
    if (status == SACCADE_OK) job->mask->device = params->device;
    return status;
}

saccade_status saccade_device_mask_bytes(saccade_context *ctx, const saccade_device_mask_params *params,
                                         size_t *bytes) {
    if (!bytes) return sac_fail(SACCADE_INVALID_ARGUMENT, "bytes: is NULL");
    mask_job job;
    SAC_TRY(open_job(&job, ctx, params, SAC_MASK_KINDS));
    job.mask->list_batch = job.mask->shape.batch;
    job.mask->list_heads = job.mask->shape.num_heads;
    saccade_status status = lay_out(&job, NULL, bytes);
    saccade_block_mask_destroy(job.mask);
    return status;
}

/* Lays the lists out in the caller's memory and makes them the mask's. */
static saccade_status take_memory(mask_job *job) {
    const saccade_device_mask_params *params = job->params;
    saccade_block_mask *mask = job->mask;
    sac_mask_args *args = &job->args;
    size_t needed;
    SAC_TRY(lay_out(job, params->memory, &needed));
    if (!params->memory || (uintptr_t)params->memory % MEMORY_ALIGNMENT)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "params.memory: %s",
                        params->memory ? "is not aligned to 256 bytes" : "is NULL");
    if (params->memory_bytes < needed)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "params.memory_bytes: %zu, but this mask needs %zu",
                        params->memory_bytes, needed);
    args->q_len = mask->shape.q_len;
    args->kv_len = mask->shape.kv_len;
    args->q_block = mask->shape.q_block;
    args->kv_block = mask->shape.kv_block;
    mask->device_state = args->state;
    mask->row_offsets = args->row_offsets;
    mask->row_entries = args->row_entries;
    mask->col_offsets = args->col_offsets;
    mask->col_entries = args->col_entries;
    for (int kind = 0; kind < SAC_NUM_BLOCK_KINDS; kind++) mask->count[kind] = -1;
    return SACCADE_OK;
}

/* ---- queueing ---- */

static saccade_status launch_values(mask_job *job) {
    if (job->values == SAC_MASK_KINDS || job->values == SAC_MASK_INDICES) return SACCADE_OK;
    sac_mask_args args = job->args;
    args.source = job->values;
    int64_t documents = job->values == SAC_MASK_INTERVALS ? sac_max(args.q_len, args.tensor_size) : 0;
    int64_t items = 2 + args.batch + documents;
    return sac_kernel_launch(job->ctx, job->device, &sac_mask_kernels[SAC_MASK_VALUES],
                             (items + THREADS - 1) / THREADS, (void *[]){&args});
}

static saccade_status launch_classify(mask_job *job, int64_t blocks) {
    if (job->args.source != SAC_MASK_KINDS || job->imported) return SACCADE_OK;
    char *text;
    SAC_TRY(sac_modifier_device_text(job->mask->mask_mod, &text));
    sac_kernel_spec spec = sac_mask_kernels[SAC_MASK_CLASSIFY];
    spec.modifiers = text;
    int64_t warps = THREADS / LANES;
    saccade_status status = sac_kernel_launch(job->ctx, job->device, &spec, (blocks + warps - 1) / warps,
                                              (void *[]){&job->args, &job->mask->aux});
    free(text);
    return status;
}

static saccade_status launch_import(mask_job *job) {
    if (!job->imported) return SACCADE_OK;
    sac_exchange_args args = sac_exchange_args_of(job->mask, job->imported, false);
    args.state = job->args.state;
    args.kinds = job->args.kinds;
    return sac_exchange_launch(job->ctx, job->device, SAC_MASK_IMPORT, &args);
}

static saccade_status queue(mask_job *job) {
    const sac_mask_args *args = &job->args;
    const int64_t blocks = (int64_t)args->batch * args->num_heads * args->rows * args->columns;
    saccade_status status = sac_cuda_clear(job->ctx, job->params->memory, job->cleared);
    if (status == SACCADE_OK) status = launch_values(job);
    if (status == SACCADE_OK) status = launch_classify(job, blocks);
    if (status == SACCADE_OK) status = launch_import(job);
    return status == SACCADE_OK ? sac_mask_lists_launch(job->ctx, job->device, args) : status;
}

/* The end of every builder: queues what builds the lists and hands the mask over, or destroys it. */
static saccade_status finish(mask_job *job, saccade_block_mask **result, saccade_status status) {
    if (status == SACCADE_OK) status = sac_cuda_enter(job->ctx, job->params->device.device_id, &job->device);
    if (status == SACCADE_OK) {
        status = queue(job);
        sac_cuda_leave();
    }
    return sac_mask_finish(result, job->mask, status);
}

/* ---- builders ---- */

static saccade_status build_band(saccade_context *ctx, saccade_block_mask **result,
                                 const saccade_device_mask_params *params, const sac_band_rule *rule) {
    mask_job job;
    SAC_TRY(open_job(&job, ctx, params, SAC_MASK_BAND));
    job.args.band = sac_band_make(rule, params->shape.q_len, params->shape.kv_len);
    saccade_status status = take_memory(&job);
    if (status == SACCADE_OK)
        status = sac_mask_set_predicate(ctx, job.mask, SAC_PREDICATE_BAND,
                                        &(sac_predicate_value){job.args.values, 2, SAC_BORROWED});
    return finish(&job, result, status);
}

saccade_status saccade_device_mask_causal(saccade_context *ctx, saccade_block_mask **mask,
                                          const saccade_device_mask_params *params, bool bottom_right) {
    sac_band_rule rule = sac_causal_rule(bottom_right);
    return build_band(ctx, mask, params, &rule);
}

saccade_status saccade_device_mask_window(saccade_context *ctx, saccade_block_mask **mask,
                                          const saccade_device_mask_params *params, int32_t left,
                                          int32_t right, bool bottom_right) {
    sac_band_rule rule = {0};
    saccade_status status = sac_window_rule(&rule, left, right, bottom_right);
    return status == SACCADE_OK ? build_band(ctx, mask, params, &rule) : status;
}

saccade_status saccade_device_mask_documents(saccade_context *ctx, saccade_block_mask **result,
                                             const saccade_device_mask_params *params,
                                             const DLTensor *cu_seqlens) {
    mask_job job;
    sac_mask_tensor starts = {0};
    SAC_TRY(open_job(&job, ctx, params, SAC_MASK_INTERVALS));
    saccade_status status = sac_check_packed(&params->shape);
    if (status == SACCADE_OK)
        status = sac_mask_tensor_of(&starts, "cu_seqlens", cu_seqlens, params->device, SACCADE_I32, 1);
    if (status == SACCADE_OK && (starts.extent[0] < 1 || starts.extent[0] > SAC_MAX_SEQLEN))
        status = sac_fail(SACCADE_INVALID_ARGUMENT, "cu_seqlens: shape[0] is %lld, allowed are 1 to %d",
                          (long long)starts.extent[0], SAC_MAX_SEQLEN);
    job.args.tensor = starts.data;
    job.args.tensor_size = (int32_t)starts.extent[0] - 1;
    if (status == SACCADE_OK) status = take_memory(&job);
    sac_predicate_value value = {job.args.values, 2 * (int64_t)params->shape.q_len, SAC_BORROWED};
    if (status == SACCADE_OK) status = sac_mask_set_predicate(ctx, job.mask, SAC_PREDICATE_INTERVALS, &value);
    return finish(&job, result, status);
}

saccade_status saccade_device_mask_eagle3(saccade_context *ctx, saccade_block_mask **result,
                                          const saccade_device_mask_params *params, const DLTensor *lengths) {
    mask_job job;
    sac_mask_tensor bounds = {0};
    saccade_status status = open_job(&job, ctx, params, SAC_MASK_EAGLE3);
    if (status != SACCADE_OK) return status;
    const saccade_mask_shape *shape = &job.mask->shape;
    if (lengths) {
        status = sac_mask_tensor_of(&bounds, "lengths", lengths, params->device, SACCADE_I32, 1);
        if (status == SACCADE_OK) status = sac_tensor_extent(&bounds, "lengths", 0, shape->batch, false);
        job.mask->list_batch = shape->batch;
        job.args.tensor = bounds.data;
    }
    if (!sac_eagle3_is_regular(shape->q_len, shape->kv_len, shape->q_block, shape->kv_block)) {
        job.args.source = SAC_MASK_KINDS;
    } else if (shape->kv_len > shape->q_len && shape->q_block > 1) {
        job.mask->period = shape->q_len;
        job.mask->diagonals_from = shape->q_len / shape->kv_block;
    }
    if (status == SACCADE_OK) status = take_memory(&job);
    if (status == SACCADE_OK) {
        sac_predicate_value values[] = {{job.args.values, 1, SAC_BORROWED},
                                        {job.args.values + 1, job.mask->list_batch, SAC_BORROWED}};
        status = sac_mask_set_predicate(ctx, job.mask, SAC_PREDICATE_EAGLE3, values);
    }
    return finish(&job, result, status);
}

saccade_status saccade_device_mask_from_indices(saccade_context *ctx, saccade_block_mask **result,
                                                const saccade_device_mask_params *params,
                                                const DLTensor *indices, saccade_block_kind kind) {
    mask_job job;
    sac_mask_tensor chosen = {0};
    SAC_TRY(open_job(&job, ctx, params, SAC_MASK_INDICES));
    saccade_status status = sac_mask_tensor_of(&chosen, "indices", indices, params->device, SACCADE_I32, 4);
    if (status == SACCADE_OK) status = sac_check_indices(job.mask, &chosen, kind);
    if (status == SACCADE_OK && chosen.extent[3] > SAC_MAX_SEQLEN)
        status = sac_fail(SACCADE_INVALID_ARGUMENT, "indices: shape[3] is %lld, at most %d are allowed",
                          (long long)chosen.extent[3], SAC_MAX_SEQLEN);
    if (status == SACCADE_OK) {
        job.mask->list_batch = (int32_t)chosen.extent[0];
        job.mask->list_heads = (int32_t)chosen.extent[1];
        job.args.tensor = chosen.data;
        job.args.tensor_size = (int32_t)chosen.extent[3];
        job.args.batch_stride = chosen.stride[0];
        job.args.head_stride = chosen.stride[1];
        job.args.row_stride = chosen.stride[2];
        job.args.kind = (int32_t)kind;
        status = take_memory(&job);
    }
    return finish(&job, result, status);
}

saccade_status saccade_device_mask_from_mod(saccade_context *ctx, saccade_block_mask **result,
                                            const saccade_device_mask_params *params,
                                            const saccade_bound_modifier *mask_mod) {
    mask_job job;
    SAC_TRY(sac_check_mask_mod(mask_mod));
    SAC_TRY(open_job(&job, ctx, params, SAC_MASK_KINDS));
    job.mask->list_batch = job.mask->shape.batch;
    job.mask->list_heads = job.mask->shape.num_heads;
    job.mask->mask_mod = sac_modifier_retain(mask_mod->modifier);
    saccade_status status = sac_modifier_bind(&job.mask->aux, mask_mod, params->device, "mask_mod");
    if (status == SACCADE_OK) status = take_memory(&job);
    return finish(&job, result, status);
}

saccade_status saccade_device_mask_import(saccade_context *ctx, saccade_block_mask **result,
                                          const saccade_device_mask_params *params,
                                          const saccade_block_mask_tensors *tensors) {
    mask_job job;
    sac_exchange x = {0};
    if (!tensors) return sac_fail(SACCADE_INVALID_ARGUMENT, "tensors: is NULL");
    SAC_TRY(open_job(&job, ctx, params, SAC_MASK_KINDS));
    job.mask->list_batch = job.mask->shape.batch;
    job.mask->list_heads = job.mask->shape.num_heads;
    job.imported = &x;
    saccade_status status = sac_exchange_open(&x, job.mask, tensors);
    if (status == SACCADE_OK) status = sac_exchange_check_pairs(&x);
    if (status == SACCADE_OK && (x.partial[1].has_counts || x.full[1].has_counts))
        status =
            sac_fail(SACCADE_INVALID_ARGUMENT,
                     "q_num_blocks, full_q_num_blocks: given, but a device does not hold them against the "
                     "kv_ tensors; leave the q_ ones NULL");
    if (status == SACCADE_OK) status = take_memory(&job);
    return finish(&job, result, status);
}

/* ---- looking at what was built ---- */

static saccade_status download(void *to, const void *from, size_t bytes) {
    if (bytes == 0) return SACCADE_OK;
    return sac_driver_check(
        sac_driver_get(NULL)->copy((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from, bytes),
        "reading a block mask");
}

static saccade_status explain(const saccade_block_mask *mask, uint64_t problem) {
    const long long where = SAC_MASK_PROBLEM_WHERE(problem);
    const long long rows = sac_max(1, mask->num_q_blocks), head = where / rows;
    switch (SAC_MASK_PROBLEM_KIND(problem)) {
    case SAC_MASK_OVER_CAPACITY:
        return sac_fail(SACCADE_INVALID_ARGUMENT, "params.capacity: is below the %lld blocks of the mask",
                        where);
    case SAC_MASK_BAD_LENGTH:
        return sac_fail(SACCADE_INVALID_ARGUMENT, "lengths[%lld]: is negative", where);
    case SAC_MASK_BAD_DOCUMENT:
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "cu_seqlens[%lld]: the first must be 0, none below the one before it, the last %d",
                        where, mask->shape.q_len);
    case SAC_MASK_BAD_INDEX:
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "indices[%lld, %lld, %lld]: blocks are numbered 0 to %d and ascend; -1 is none",
                        head / mask->list_heads, head % mask->list_heads, where % rows,
                        mask->num_kv_blocks - 1);
    case SAC_MASK_BAD_COUNT:
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "kv_num_blocks, full_kv_num_blocks[%lld, %lld, %lld]: a row has 0 to %d blocks",
                        head / mask->list_heads, head % mask->list_heads, where % rows, mask->num_kv_blocks);
    case SAC_MASK_BAD_BLOCK:
        return sac_fail(
            SACCADE_INVALID_ARGUMENT,
            "kv_indices, full_kv_indices[%lld, %lld, %lld]: blocks are numbered 0 to %d, and none "
            "occurs twice in a row of both",
            head / mask->list_heads, head % mask->list_heads, where % rows, mask->num_kv_blocks - 1);
    default:
        return SACCADE_OK;
    }
}

static saccade_status count_kinds(const saccade_block_mask *mask, saccade_block_mask_info *info) {
    int64_t rows = (int64_t)mask->list_batch * mask->list_heads * mask->num_q_blocks, listed;
    int64_t count[SAC_NUM_BLOCK_KINDS] = {0};
    SAC_TRY(download(&listed, mask->row_offsets + rows, sizeof listed));
    int32_t *entries = malloc((size_t)(listed + 1) * sizeof *entries);
    if (!entries) return sac_fail(SACCADE_OUT_OF_MEMORY, "info: %lld blocks", (long long)listed);
    saccade_status status = download(entries, mask->row_entries, (size_t)listed * sizeof *entries);
    for (int64_t i = 0; status == SACCADE_OK && i < listed; i++) count[SAC_ENTRY_KIND(entries[i])]++;
    free(entries);
    info->full = count[SACCADE_FULL];
    info->partial = count[SACCADE_PARTIAL];
    info->diagonal = count[SACCADE_DIAGONAL];
    return status;
}

saccade_status saccade_device_mask_check(saccade_context *ctx, const saccade_block_mask *mask,
                                         saccade_block_mask_info *info) {
    const sac_cuda_device *device;
    sac_mask_state state = {0};
    if (!mask) return sac_fail(SACCADE_INVALID_ARGUMENT, "mask: is NULL");
    if (!mask->device_state)
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "mask: its lists lie on the host; saccade_block_mask_get_info looks at those");
    SAC_TRY(sac_cuda_enter(ctx, mask->device.device_id, &device));
    saccade_status status =
        sac_driver_check(sac_driver_get(NULL)->stream_sync(ctx->stream), "building a block mask");
    if (status == SACCADE_OK) status = download(&state, mask->device_state, sizeof state);
    if (status == SACCADE_OK) status = explain(mask, state.problem);
    if (status == SACCADE_OK && info) {
        saccade_block_mask_get_info(mask, info);
        status = count_kinds(mask, info);
    }
    sac_cuda_leave();
    return status;
}
