/* attn_bwd_dq_sm90.c - tiles and launch of kernels/attn_bwd_dq_sm90.cu. */
#include "cuda/attn_bwd_dq_sm90.h"

#include "cuda/attn_sm90.h"
#include "shared/tile_walk.h"

/* A row serves head dims up to its own. Registers a thread: producer + consumers * consumer is at most 512, and 504
 * with two consumers, which is what the CTA is launched with. Last column: what stops the next larger tile. */
typedef struct tile_row {
    int32_t head_dim, head_dim_v;
    int32_t consumers; /* warpgroups of 64 query rows */
    int32_t kv_tile, k_stages, v_stages;
    int32_t producer_regs, consumer_regs;
} tile_row;

static const tile_row tiles[] = {
    {64, 64, 3, 80, 4, 4, 32, 160},    /* registers: 132 of 160 */
    {96, 96, 2, 112, 3, 2, 40, 232},   /* registers: 128 keys spill */
    {128, 128, 2, 112, 3, 2, 40, 232}, /* registers: 204 of 232 */
    {192, 128, 2, 80, 3, 2, 40, 232},  /* registers: 196 of 232; 96 keys serialise */
    {192, 192, 2, 80, 3, 1, 40, 232},  /* shared memory: 217 of 227 KiB */
    {256, 256, 2, 48, 3, 1, 40, 232},  /* shared memory: 225 of 227 KiB */
};

/* For what is beside the plain products: a score that is modified on its way; a producer that reads block lists, or,
 * with the 32 registers that three consumers leave it, lengths. */
static const tile_row roomy_tiles[] = {
    {64, 64, 2, 128, 3, 3, 56, 224},  /* registers: 192 of 224 */
    {128, 128, 2, 96, 3, 3, 56, 224}, /* registers: 184 of 224 */
    {192, 192, 2, 64, 3, 2, 56, 224}, /* shared memory: 217 of 227 KiB */
    {256, 256, 2, 48, 3, 1, 56, 224}, /* shared memory: 225 of 227 KiB */
};

/* For block masks of so few keys a block that a wider tile would stay partly empty. */
enum { FEW_KEYS = 64 };
static const tile_row narrow_tiles[] = {
    {64, 64, 2, FEW_KEYS, 6, 6, 56, 224},
    {128, 128, 2, FEW_KEYS, 4, 4, 56, 224},
    {192, 192, 2, FEW_KEYS, 3, 2, 56, 224}, /* shared memory: 217 of 227 KiB */
    {256, 256, 2, 48, 3, 1, 56, 224},       /* shared memory: 225 of 227 KiB */
};

/* For lists with bits: 64 rows share one, and where two CTAs of a warpgroup fit, they hide each other's waits. */
static const tile_row packed_tiles[] = {
    {64, 64, 1, FEW_KEYS, 4, 4, 72, 184},
    {128, 128, 1, FEW_KEYS, 3, 2, 72, 184}, /* shared memory: 113 of 113 KiB */
};

static const tile_row *fitting(const tile_row *t, const sac_attention_args *args) {
    while (args->head_dim > t->head_dim || args->head_dim_v > t->head_dim_v) t++;
    return t;
}

static const tile_row *choose_tile(const sac_attention_call *call) {
    const sac_attention_args *args = &call->args;
    const tile_row *t = fitting(tiles, args);
    if (args->blocks.by_query.bits) return fitting(packed_tiles, args);
    if (args->blocks.by_query.offsets && args->blocks.kv_block <= FEW_KEYS)
        return fitting(narrow_tiles, args);
    const bool roomy = sac_sm90_prescales(call) || args->blocks.by_query.offsets ||
                       (t->consumers == 3 && sac_sm90_ragged(args));
    return roomy ? fitting(roomy_tiles, args) : t;
}

enum { WARPGROUP_ROWS = 64 };

static int32_t q_tile_of(const tile_row *t) { return WARPGROUP_ROWS * t->consumers; }
static int32_t ctas_per_sm(const tile_row *t) {
    return sac_sm90_ctas_per_sm(t->producer_regs + t->consumers * t->consumer_regs);
}

/* One buffer of q and dout, k and v as often as they have stages, and 1 KiB for barriers and records. */
static int32_t smem_bytes(const tile_row *t, const sac_attention_args *args) {
    const int32_t columns = sac_ceil_div(args->head_dim, 64) * 64,
                  columns_v = sac_ceil_div(args->head_dim_v, 64) * 64;
    return 2 * (q_tile_of(t) * (columns + columns_v) +
                t->kv_tile * (t->k_stages * columns + t->v_stages * columns_v)) +
           1024;
}

void sac_attn_bwd_dq_sm90_spec(const sac_attention_call *call, bool only_delta, sac_kernel_spec *spec) {
    const tile_row *t = choose_tile(call);
    *spec = (sac_kernel_spec){.source = "cuda/kernels/attn_bwd_dq_sm90.cu",
                              .entry = "attn_bwd_dq_sm90",
                              .arch_specific = true,
                              .threads = 128 * (1 + t->consumers),
                              .smem_bytes = smem_bytes(t, &call->args)};
    sac_sm90_define(spec, call);
    sac_kernel_define(spec, "CONSUMERS", t->consumers);
    sac_kernel_define(spec, "KV_TILE", t->kv_tile);
    sac_kernel_define(spec, "Q_SLOTS", t->consumers);
    sac_kernel_define(spec, "K_STAGES", t->k_stages);
    sac_kernel_define(spec, "V_STAGES", t->v_stages);
    sac_kernel_define(spec, "CTAS_PER_SM", ctas_per_sm(t));
    sac_kernel_define(spec, "PRODUCER_REGS", t->producer_regs);
    sac_kernel_define(spec, "CONSUMER_REGS", t->consumer_regs);
    sac_kernel_define(spec, "ONLY_DELTA", only_delta);
}

static saccade_status make_maps(sac_attn_bwd_sm90_params *params, const sac_attention_call *call,
                                const tile_row *t) {
    const sac_attention_args *args = &call->args;
    const struct {
        sac_tensor_map *map;
        const sac_view *view;
        sac_tensor_extent extent;
    } tensors[] = {
        {&params->q, &args->q, sac_sm90_q_extent(args, call->total_q, args->head_dim)},
        {&params->dout, &args->dout, sac_sm90_q_extent(args, call->total_q, args->head_dim_v)},
        {&params->k, &args->k,
         sac_sm90_extent(args, &args->len_k, call->total_k, args->head_dim, args->num_kv_heads, t->kv_tile)},
        {&params->v, &args->v,
         sac_sm90_extent(args, &args->len_k, call->total_k, args->head_dim_v, args->num_kv_heads,
                         t->kv_tile)},
    };
    saccade_status status = SACCADE_OK;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors && status == SACCADE_OK; i++)
        status = sac_tensor_map_make(tensors[i].map, tensors[i].view, &tensors[i].extent);
    return status;
}

saccade_status sac_attn_bwd_dq_sm90(saccade_context *ctx, const sac_cuda_device *device,
                                    const sac_attention_call *call, const sac_attn_bwd_sm90_params *common,
                                    const char *modifiers, bool only_delta) {
    const tile_row *t = choose_tile(call);
    sac_attn_bwd_sm90_params params = *common;
    sac_kernel_spec spec;
    sac_attn_bwd_dq_sm90_spec(call, only_delta, &spec);
    spec.modifiers = modifiers;
    /* The kernel over key tiles has added to the gradients of aux tensors; once is enough. */
    for (int i = 0; i < SACCADE_MAX_AUX; i++) params.args.score_aux.tensor[i].grad = NULL;
    params.order = sac_sm90_query_order(&call->args, q_tile_of(t), device);
    saccade_status status = make_maps(&params, call, t);
    const int32_t ctas = sac_min(device->num_sms * ctas_per_sm(t), params.order.total);
    return status == SACCADE_OK ? sac_kernel_launch(ctx, device, &spec, ctas, (void *[]){&params}) : status;
}
