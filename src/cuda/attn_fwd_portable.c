/* attn_fwd_portable.c - forward tiles by head_dim, splitting over keys, and the launches. */
#include "cuda/attn_portable.h"

typedef enum tile_use {
    ANY_CALL,
    FEW_ROWS,     /* only where no head has more than q_tile */
    PLAIN_SCORES, /* nothing happens to scores but scale and band */
} tile_use;

typedef struct fwd_tile {
    int32_t element_bytes, head_dim;                     /* the larger of D and Dv, at most */
    int32_t q_tile, kv_tile, q_kept, warps, ctas_per_sm; /* q_kept: steps of 16 columns of Q in registers */
    tile_use use;
} fwd_tile;

/* In order of preference; the first that is for such a call and fits its head dimensions and the device's shared memory
 * is taken. Last column: what stops the next larger tile. */
static const fwd_tile tiles[] = {
    {2, 64, 64, 64, 0, 4, 3, FEW_ROWS},  /* decoding waits for memory: many CTAs with little to compute */
    {2, 128, 64, 64, 0, 4, 3, FEW_ROWS}, /* registers: 168 a thread */
    {2, 256, 64, 64, 0, 4, 1, FEW_ROWS}, /* registers */
    {2, 64, 128, 128, 0, 4, 2, PLAIN_SCORES}, /* registers: 128 scores a lane */
    {2, 64, 128, 64, 0, 4, 2, ANY_CALL},      /* registers, once scores are transformed or masked by a text */
    {2, 128, 128, 64, 0, 4, 2, ANY_CALL},     /* registers: 64 scores and 128 sums a lane */
    {2, 256, 128, 64, 12, 8, 1, ANY_CALL},    /* registers: 16 rows a warp; 132 KiB */
    {2, 256, 64, 32, 0, 4, 1, ANY_CALL}, /* 99 KiB of shared memory, all that sm_86, sm_89 and sm_120 have */
    {4, 64, 64, 64, 0, 4, 2, ANY_CALL},  /* registers, for the two halves of each operand */
    {4, 128, 64, 32, 0, 4, 1, ANY_CALL}, /* registers */
    {4, 256, 64, 16, 0, 4, 1, ANY_CALL}, /* registers; 99 KiB and a little */
    {4, 256, 32, 16, 0, 2, 1, ANY_CALL}, /* 99 KiB of shared memory */
};

static int32_t round_up(int32_t x, int32_t to) { return (x + to - 1) / to * to; }

static int32_t smem_of(const fwd_tile *t, int32_t head_dim, int32_t head_dim_v) {
    int32_t pitch = round_up(head_dim, 16) + 8, pitch_v = round_up(head_dim_v, 16) + 8;
    return ((t->q_tile + t->kv_tile) * pitch + t->kv_tile * pitch_v) * t->element_bytes;
}

/* smem_of as the device counts it: static shared memory of the kernel comes on top. */
enum { STATIC_SMEM_BYTES = 96 };

/* Heads that share a tile of q_tile rows: without a block mask a whole group, if that is all its queries. */
static int32_t pack_of(const sac_attention_args *args, int32_t q_tile) {
    if (args->blocks.by_query.offsets) return sac_portable_pack(args, q_tile);
    return args->group > 1 && (int64_t)args->len_q.seqlen * args->group <= q_tile ? args->group : 1;
}

/* Rows that a tile of q_tile rows would get. */
static int64_t rows_of(const sac_attention_args *args, int32_t q_tile) {
    const bool blocks = args->blocks.by_query.offsets;
    return (int64_t)(blocks ? args->blocks.q_block : args->len_q.seqlen) * pack_of(args, q_tile);
}

static bool fits(const fwd_tile *t, int32_t dtype, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes) {
    return t->element_bytes == (dtype == SAC_F32 ? 4 : 2) && sac_max(head_dim, head_dim_v) <= t->head_dim &&
           smem_of(t, head_dim, head_dim_v) + STATIC_SMEM_BYTES <= smem_bytes;
}

bool sac_portable_serves_forward(int32_t dtype, int32_t head_dim, int32_t head_dim_v, int32_t smem_bytes) {
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++)
        if (tiles[i].use == ANY_CALL && fits(&tiles[i], dtype, head_dim, head_dim_v, smem_bytes)) return true;
    return false;
}

static bool is_for(const fwd_tile *t, const sac_attention_args *args) {
    if (t->use == FEW_ROWS) return rows_of(args, t->q_tile) <= t->q_tile;
    if (t->use == PLAIN_SCORES)
        return !sac_portable_transforms(args) && !args->has_mask_mod && !args->blocks.by_query.offsets;
    return true;
}

static const fwd_tile *choose_tile(const sac_attention_args *args, int32_t smem_bytes) {
    const fwd_tile *t = tiles;
    while (!is_for(t, args) || !fits(t, args->dtype, args->head_dim, args->head_dim_v, smem_bytes)) t++;
    return t;
}

/* How a call is cut into CTAs. */
typedef struct fwd_cut {
    const fwd_tile *tile;
    int32_t pack; /* heads that share a tile: its keys are read once, not so many times */
    int32_t num_splits;
} fwd_cut;

/* Too few query tiles leave SMs idle: the keys are then divided too, four tiles of them a CTA at least. */
static int32_t choose_splits(const sac_cuda_device *device, const fwd_cut *cut,
                             const sac_attention_args *args) {
    const fwd_tile *t = cut->tile;
    int64_t ctas = (int64_t)sac_ceil_div(args->len_q.seqlen, t->q_tile / cut->pack) * args->batch *
                   (args->num_heads / cut->pack);
    int64_t room = (int64_t)device->num_sms * t->ctas_per_sm,
            most = sac_ceil_div(args->len_k.seqlen, t->kv_tile) / 4;
    int64_t splits = ctas > 0 ? room / ctas : 1;
    if (splits > most) splits = most;
    return splits > 1 ? (int32_t)splits : 1;
}

static fwd_cut choose_cut(const sac_cuda_device *device, const sac_attention_args *args) {
    fwd_cut cut = {.tile = choose_tile(args, device->smem_bytes)};
    cut.pack = pack_of(args, cut.tile->q_tile);
    cut.num_splits = choose_splits(device, &cut, args);
    return cut;
}

static sac_schedule schedule_of(const sac_portable_job *job, const fwd_cut *cut) {
    sac_schedule s = sac_portable_schedule(job, true, cut->tile->q_tile, cut->pack);
    if (cut->pack > 1 && !job->args.blocks.by_query.offsets)
        s.section = sac_max(s.num_heads, 1); /* the same part of all heads' keys together */
    s.num_splits = cut->num_splits;
    return s;
}

size_t sac_portable_plan_forward(const sac_cuda_device *device, const sac_attention_call *call,
                                 void *workspace, sac_portable_plan *plan) {
    const sac_attention_args *args = &call->args;
    const fwd_cut cut = choose_cut(device, args);
    size_t used = 0;
    *plan = (sac_portable_plan){.total_q = call->total_q, .total_k = call->total_k};
    if (cut.num_splits == 1) return 0;
    size_t rows = (size_t)cut.num_splits * (size_t)args->num_heads * (size_t)call->total_q;
    plan->partial_out = sac_carve(workspace, &used, rows * (size_t)args->head_dim_v * sizeof(float));
    plan->partial_lse = sac_carve(workspace, &used, rows * sizeof(float));
    return used;
}

static saccade_status launch_merge(sac_portable_job *job) {
    enum { THREADS = 256 };
    sac_kernel_spec spec = sac_portable_spec(job, "cuda/kernels/attn_merge.cu", "attn_merge", THREADS);
    int64_t rows = job->args.num_heads * job->plan.total_q, warps = THREADS / 32;
    return job->launch(job->ctx, job->device, &spec, (rows + warps - 1) / warps,
                       (void *[]){&job->args, &job->plan});
}

saccade_status sac_portable_launch_forward(sac_portable_job *job) {
    const sac_attention_args *args = &job->args;
    const fwd_cut cut = choose_cut(job->device, args);
    const fwd_tile *t = cut.tile;
    job->plan.schedule = schedule_of(job, &cut);

    sac_kernel_spec spec =
        sac_portable_spec(job, "cuda/kernels/attn_fwd_portable.cu", "attn_fwd", 32 * t->warps);
    sac_portable_define_scores(job, &spec);
    sac_kernel_define(&spec, "Q_TILE", t->q_tile);
    sac_kernel_define(&spec, "KV_TILE", t->kv_tile);
    sac_kernel_define(&spec, "Q_KEPT", sac_min(t->q_kept, round_up(args->head_dim, 16) / 16));
    sac_kernel_define(&spec, "MIN_CTAS", t->ctas_per_sm);
    sac_kernel_define(&spec, "SPLIT", cut.num_splits > 1);
    sac_portable_define_pack(job, &spec, cut.pack);
    spec.smem_bytes = smem_of(t, args->head_dim, args->head_dim_v);
    saccade_status status =
        job->launch(job->ctx, job->device, &spec, sac_portable_num_ctas(&job->plan.schedule),
                    (void *[]){&job->args, &job->plan});
    if (status == SACCADE_OK && cut.num_splits > 1) status = launch_merge(job);
    if (status == SACCADE_OK)
        status = sac_portable_fill(job, &args->out, &args->lse, true, args->num_heads, args->head_dim_v);
    return status;
}
