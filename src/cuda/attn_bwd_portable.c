/* attn_bwd_portable.c - backward tiles by head_dim, and the order of its kernels: delta (and dsink), dK and dV with the
 * sums of dQ, those sums to dq; or, where dQ must not be summed by atomics, dQ by a kernel of its own.
 *
 * delta = rowsum(out * dout) costs nearly nothing, but inherits the rounding of a 16-bit out. dQ, dK and dV do not
 * notice, since dS is rounded too, unless out is an average of very few values. dsink and the gradients of aux tensors
 * do: they sum a whole row, or a whole head, where that error does not cancel. There delta = rowsum(P * dP) is
 * computed from the scores.
 */
#include "cuda/attn_portable.h"

enum { DELTA_THREADS = 256, DELTA_ROWS = 64, DSINK_THREADS = 256, CONVERT_THREADS = 256 };

/* In order of preference; the first that fits the head dimensions and the device's shared memory is taken.
 * The warps' shares of each product: see attn_bwd_portable.cu. */
typedef struct bwd_tile {
    int32_t element_bytes, head_dim; /* the larger of D and Dv, at most */
    int32_t q_tile, kv_tile, q_stages, dout_stages, warps;
    int32_t s_warps_q, dkv_warps_k, dq_warps_q, ctas_per_sm;
} bwd_tile;

static const bwd_tile tiles[] = {
    {2, 64, 128, 64, 2, 1, 4, 4, 2, 4, 2},  /* registers: 64 of S, of dP, of dQ a lane; 218 KiB for two */
    {2, 64, 64, 128, 2, 1, 8, 2, 4, 2, 1},  /* 99 KiB of shared memory */
    {2, 128, 64, 128, 2, 2, 8, 2, 4, 2, 1}, /* registers: 64 of dK and of dV a lane */
    {2, 128, 64, 128, 2, 1, 8, 2, 4, 2, 1}, /* 163 KiB of shared memory, sm_80's */
    {2, 128, 64, 64, 2, 2, 8, 2, 4, 2, 1},  /* blocks of 64 keys */
    {2, 128, 64, 64, 1, 1, 8, 2, 4, 2, 1},  /* 99 KiB of shared memory */
    {2, 256, 64, 64, 2, 2, 8, 2, 2, 2, 1},  /* registers, as above; 216 KiB */
    {2, 256, 64, 64, 1, 1, 8, 2, 2, 2, 1},  /* 163 KiB of shared memory, sm_80's */
    {2, 256, 32, 32, 1, 1, 4, 2, 2, 2, 1},  /* 99 KiB of shared memory */
    {4, 64, 32, 64, 1, 1, 8, 2, 4, 2, 1},   /* 99 KiB of shared memory */
    {4, 128, 32, 32, 1, 1, 8, 2, 2, 2, 1},  /* registers, for the two halves of each operand; 74 KiB */
    {4, 256, 32, 32, 1, 1, 8, 2, 2, 2, 1},  /* the same; 142 KiB, and no tile is small enough for 99 */
};

typedef struct dq_tile {
    int32_t element_bytes, head_dim;
    int32_t q_tile, kv_tile, warps;
} dq_tile;

static const dq_tile dq_tiles[] = {
    {2, 128, 64, 64, 4}, /* registers: 32 of S and of dP, 64 of dQ */
    {2, 256, 64, 64, 4}, /* registers: 128 of dQ */
    {2, 256, 64, 16, 4}, /* 99 KiB of shared memory */
    {4, 64, 64, 32, 4},  /* 99 KiB of shared memory */
    {4, 128, 64, 16, 4}, /* 99 KiB of shared memory */
    {4, 256, 32, 16, 2}, /* 99 KiB of shared memory */
};

static int32_t round_up(int32_t x, int32_t to) { return (x + to - 1) / to * to; }

static int32_t smem_of(const bwd_tile *t, int32_t head_dim, int32_t head_dim_v) {
    int32_t warps_dkv = t->warps / t->dkv_warps_k, warps_dq = t->warps / t->dq_warps_q;
    int32_t pitch = round_up(head_dim, 16 * sac_max(warps_dkv, warps_dq)) + 8;
    int32_t pitch_v = round_up(head_dim_v, 16 * warps_dkv) + 8;
    return (t->kv_tile * (pitch + pitch_v) + t->q_tile * (t->q_stages * pitch + t->dout_stages * pitch_v) +
            2 * t->q_tile * (t->kv_tile + 8)) *
           t->element_bytes;
}

/* As many CTAs an SM as the tile is made for; the driver takes a KiB of each. */
static bool fits(const bwd_tile *t, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes) {
    enum { RESERVED = 1024 };
    return t->ctas_per_sm * (smem_of(t, head_dim, head_dim_v) + RESERVED) <= smem_bytes + RESERVED;
}

static int32_t smem_of_dq(const dq_tile *t, int32_t head_dim, int32_t head_dim_v) {
    return (t->q_tile + t->kv_tile) * (round_up(head_dim, 16) + 8 + round_up(head_dim_v, 16) + 8) *
           t->element_bytes;
}

/* kv_block: blocks of so many keys are walked; a wider tile of keys would stay partly empty. 0: no block mask. */
static const bwd_tile *choose_tile(int32_t dtype, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes,
                                   int32_t kv_block) {
    const bwd_tile *too_wide = NULL;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        const bwd_tile *t = &tiles[i];
        if (t->element_bytes != (dtype == SAC_F32 ? 4 : 2) || sac_max(head_dim, head_dim_v) > t->head_dim ||
            !fits(t, head_dim, head_dim_v, smem_bytes))
            continue;
        if (!kv_block || t->kv_tile <= kv_block) return t;
        if (!too_wide || t->kv_tile < too_wide->kv_tile) too_wide = t;
    }
    return too_wide;
}

static const dq_tile *choose_dq_tile(int32_t dtype, int32_t head_dim, int32_t head_dim_v,
                                     int32_t smem_bytes) {
    for (size_t i = 0; i < sizeof dq_tiles / sizeof *dq_tiles; i++)
        if (dq_tiles[i].element_bytes == (dtype == SAC_F32 ? 4 : 2) &&
            sac_max(head_dim, head_dim_v) <= dq_tiles[i].head_dim &&
            smem_of_dq(&dq_tiles[i], head_dim, head_dim_v) <= smem_bytes)
            return &dq_tiles[i];
    return NULL;
}

bool sac_portable_serves_backward(int32_t dtype, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes) {
    return choose_tile(dtype, head_dim, head_dim_v, smem_bytes, 0) &&
           choose_dq_tile(dtype, head_dim, head_dim_v, smem_bytes);
}

static bool wants_daux(const sac_attention_args *args) {
    for (int i = 0; i < SACCADE_MAX_AUX; i++)
        if (args->score_aux.tensor[i].grad) return true;
    return false;
}

bool sac_portable_walks_queries(const sac_attention_args *args) {
    return args->dk.data || args->dv.data || wants_daux(args);
}

/* Does the kernel over key tiles, which makes those, sum dq as well? Its atomics do, but in no particular order. */
static bool sums_dq(const sac_attention_args *args) {
    return args->dq.data && !args->deterministic && sac_portable_walks_queries(args);
}

size_t sac_portable_plan_rows(const sac_attention_call *call, void *workspace, sac_portable_plan *plan) {
    const sac_attention_args *args = &call->args;
    size_t used = 0, rows = (size_t)args->num_heads * (size_t)call->total_q;
    *plan = (sac_portable_plan){.total_q = call->total_q, .total_k = call->total_k};
    plan->delta = call->delta ? call->delta : sac_carve(workspace, &used, rows * sizeof(float));
    plan->num_dsink_parts = (int32_t)((call->total_q + DELTA_ROWS - 1) / DELTA_ROWS);
    plan->dsink_part =
        sac_carve(workspace, &used, (size_t)args->num_heads * (size_t)plan->num_dsink_parts * sizeof(float));
    return used;
}

void sac_portable_plan_zeros(sac_portable_plan *plan, void *zeros, size_t bytes) {
    plan->zeros = zeros;
    plan->zero_chunks = zeros ? (int64_t)(bytes / SAC_ZERO_CHUNK) : 0;
}

size_t sac_portable_plan_backward(const sac_attention_call *call, void *workspace, sac_portable_plan *plan) {
    const sac_attention_args *args = &call->args;
    size_t used = sac_portable_plan_rows(call, workspace, plan);
    const size_t rows = (size_t)args->num_heads * (size_t)call->total_q;
    /* Asked for also where pointers are not known yet; wanting less later is no harm. */
    float *sums =
        sac_carve(workspace, &used,
                  args->deterministic ? 0 : rows * (size_t)round_up(args->head_dim, 16) * sizeof(float));
    plan->dq_sum = sums_dq(args) ? sums : NULL;
    sac_portable_plan_zeros(plan, plan->dq_sum, rows * (size_t)round_up(args->head_dim, 16) * sizeof(float));
    return used;
}

/* attn_bwd_dq_portable.cu: dq, or only delta. */
static saccade_status launch_row_kernel(sac_portable_job *job, const sac_attention_args *args,
                                        bool only_delta) {
    const dq_tile *t = choose_dq_tile(args->dtype, args->head_dim, args->head_dim_v, job->device->smem_bytes);
    const int32_t pack = sac_portable_pack(args, t->q_tile);
    job->plan.schedule = sac_portable_schedule(job, true, t->q_tile, pack);
    sac_kernel_spec spec =
        sac_portable_spec(job, "cuda/kernels/attn_bwd_dq_portable.cu", "attn_bwd_dq", 32 * t->warps);
    sac_portable_define_scores(job, &spec);
    sac_kernel_define(&spec, "Q_TILE", t->q_tile);
    sac_kernel_define(&spec, "KV_TILE", t->kv_tile);
    sac_kernel_define(&spec, "ONLY_DELTA", only_delta);
    sac_portable_define_pack(job, &spec, pack);
    spec.smem_bytes = smem_of_dq(t, args->head_dim, args->head_dim_v);
    return job->launch(job->ctx, job->device, &spec, sac_portable_num_ctas(&job->plan.schedule),
                       (void *[]){(void *)(uintptr_t)args, &job->plan});
}

/* A sink alone decides, whether or not its gradient is wanted: dQ must not depend on what else is. */
bool sac_portable_delta_from_scores(const sac_attention_args *args) {
    enum { VERY_FEW_KEYS = 64 };
    return args->dtype != SAC_F32 && (args->sink || wants_daux(args) || args->len_k.seqlen <= VERY_FEW_KEYS);
}

saccade_status sac_portable_clear_zeros(const sac_portable_job *job) {
    const size_t bytes = (size_t)job->plan.zero_chunks * SAC_ZERO_CHUNK;
    return bytes ? sac_cuda_clear(job->ctx, job->plan.zeros, bytes) : SACCADE_OK;
}

saccade_status sac_portable_finish_delta(sac_portable_job *job, bool is_there) {
    sac_kernel_spec spec =
        sac_portable_spec(job, "cuda/kernels/attn_bwd_delta.cu", "attn_bwd_delta", DELTA_THREADS);
    sac_kernel_define(&spec, "ROWS_PER_CTA", DELTA_ROWS);
    sac_kernel_define(&spec, "DELTA_IS_THERE", is_there);
    void *params[] = {&job->args, &job->plan};
    const int64_t ctas = (int64_t)job->plan.num_dsink_parts * job->args.num_heads;
    if (ctas > 0) job->plan.zero_share = (job->plan.zero_chunks + ctas - 1) / ctas;
    saccade_status status =
        ctas > 0 ? job->launch(job->ctx, job->device, &spec, ctas, params) : sac_portable_clear_zeros(job);
    if (status != SACCADE_OK || !job->args.dsink) return status;
    sac_kernel_spec sum = {
        .source = "cuda/kernels/attn_bwd_dsink.cu", .entry = "attn_bwd_dsink", .threads = DSINK_THREADS};
    return job->launch(job->ctx, job->device, &sum, job->args.num_heads, params);
}

static saccade_status launch_delta(sac_portable_job *job) {
    const bool from_scores = sac_portable_delta_from_scores(&job->args);
    saccade_status status = from_scores ? launch_row_kernel(job, &job->args, true) : SACCADE_OK;
    return status == SACCADE_OK ? sac_portable_finish_delta(job, from_scores) : status;
}

static saccade_status launch_keys(sac_portable_job *job) {
    const sac_attention_args *args = &job->args;
    const int32_t kv_block = args->blocks.by_key.offsets ? args->blocks.kv_block : 0;
    const bwd_tile *t =
        choose_tile(args->dtype, args->head_dim, args->head_dim_v, job->device->smem_bytes, kv_block);
    job->plan.schedule = sac_portable_schedule(job, false, t->kv_tile, 1);
    sac_kernel_spec spec =
        sac_portable_spec(job, "cuda/kernels/attn_bwd_portable.cu", "attn_bwd", 32 * t->warps);
    sac_portable_define_scores(job, &spec);
    sac_kernel_define(&spec, "Q_TILE", t->q_tile);
    sac_kernel_define(&spec, "KV_TILE", t->kv_tile);
    sac_kernel_define(&spec, "Q_STAGES", t->q_stages);
    sac_kernel_define(&spec, "DOUT_STAGES", t->dout_stages);
    sac_kernel_define(&spec, "S_WARPS_Q", t->s_warps_q);
    sac_kernel_define(&spec, "DKV_WARPS_K", t->dkv_warps_k);
    sac_kernel_define(&spec, "DQ_WARPS_Q", t->dq_warps_q);
    sac_kernel_define(&spec, "MIN_CTAS", t->ctas_per_sm);
    sac_kernel_define(&spec, "SUM_DQ", job->plan.dq_sum != NULL);
    sac_portable_define_pack(job, &spec, sac_portable_pack(args, t->q_tile));
    spec.smem_bytes = smem_of(t, args->head_dim, args->head_dim_v);
    return job->launch(job->ctx, job->device, &spec, sac_portable_num_ctas(&job->plan.schedule),
                       (void *[]){&job->args, &job->plan});
}

static saccade_status launch_dq(sac_portable_job *job) {
    sac_attention_args args = job->args;
    /* The other kernel has added to the gradients of aux tensors; once is enough. */
    for (int i = 0; i < SACCADE_MAX_AUX; i++) args.score_aux.tensor[i].grad = NULL;
    return launch_row_kernel(job, &args, false);
}

static saccade_status launch_convert(sac_portable_job *job) {
    sac_kernel_spec spec =
        sac_portable_spec(job, "cuda/kernels/attn_bwd_dq_convert.cu", "attn_bwd_dq_convert", CONVERT_THREADS);
    int64_t rows = job->args.num_heads * job->plan.total_q, warps = CONVERT_THREADS / 32;
    return job->launch(job->ctx, job->device, &spec, (rows + warps - 1) / warps,
                       (void *[]){&job->args, &job->plan});
}

saccade_status sac_portable_clear_daux(sac_portable_job *job) {
    saccade_status status = SACCADE_OK;
    for (int i = 0; i < SACCADE_MAX_AUX && status == SACCADE_OK; i++) {
        const saccade_aux_slot *slot = &job->args.score_aux.tensor[i];
        if (slot->grad && slot->count > 0)
            status = sac_cuda_clear(job->ctx, slot->grad, (size_t)slot->count * sizeof(float));
    }
    return status;
}

saccade_status sac_portable_fill_grads(sac_portable_job *job) {
    const sac_attention_args *args = &job->args;
    saccade_status status = sac_portable_fill(job, &args->dq, NULL, true, args->num_heads, args->head_dim);
    if (status == SACCADE_OK)
        status = sac_portable_fill(job, &args->dk, NULL, false, args->num_kv_heads, args->head_dim);
    if (status == SACCADE_OK)
        status = sac_portable_fill(job, &args->dv, NULL, false, args->num_kv_heads, args->head_dim_v);
    return status;
}

saccade_status sac_portable_launch_backward(sac_portable_job *job) {
    const sac_attention_args *args = &job->args;
    saccade_status status = sac_portable_clear_daux(job);
    if (status == SACCADE_OK) status = launch_delta(job);
    if (status == SACCADE_OK && sac_portable_walks_queries(args)) status = launch_keys(job);
    if (status == SACCADE_OK && args->dq.data)
        status = job->plan.dq_sum ? launch_convert(job) : launch_dq(job);
    if (status == SACCADE_OK) status = sac_portable_fill_grads(job);
    return status;
}
