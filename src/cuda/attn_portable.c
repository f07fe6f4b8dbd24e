/* attn_portable.c - what the portable kernels are told, and how their work is divided. */
#include "cuda/attn_portable.h"

#include "cuda/kernels/fill_args.h"
#include "shared/tile_walk.h"

enum { FILL_THREADS = 256, VECTOR_BYTES = 16 };

static int32_t element_bytes(const sac_attention_args *args) { return args->dtype == SAC_F32 ? 4 : 2; }

bool sac_view_is_aligned(const sac_view *view, int32_t bytes) {
    int64_t strides = (view->batch_stride | view->row_stride | view->head_stride) * bytes;
    return (((uintptr_t)view->data | (uint64_t)strides) & (VECTOR_BYTES - 1)) == 0;
}

/* Every row of every tensor begins at a multiple of 16 bytes. */
static bool all_aligned(const sac_attention_args *args) {
    const sac_view *views[] = {&args->q,    &args->k,  &args->v,  &args->out,
                               &args->dout, &args->dq, &args->dk, &args->dv};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        if (!sac_view_is_aligned(views[i], element_bytes(args))) return false;
    return true;
}

sac_kernel_spec sac_portable_spec(const sac_portable_job *job, const char *source, const char *entry,
                                  int32_t threads) {
    sac_kernel_spec spec = {.source = source, .entry = entry, .threads = threads};
    sac_kernel_define(&spec, "DTYPE", job->args.dtype);
    sac_kernel_define(&spec, "HEAD_DIM", job->args.head_dim);
    sac_kernel_define(&spec, "HEAD_DIM_V", job->args.head_dim_v);
    sac_kernel_define(&spec, "ALIGNED", all_aligned(&job->args));
    return spec;
}

bool sac_portable_transforms(const sac_attention_args *args) {
    return args->softcap > 0 || args->alibi_slopes || args->has_score_mod || args->scale <= 0;
}

void sac_portable_define_scores(const sac_portable_job *job, sac_kernel_spec *spec) {
    const sac_attention_args *args = &job->args;
    sac_kernel_define(spec, "TRANSFORM", sac_portable_transforms(args));
    sac_kernel_define(spec, "HAS_SOFTCAP", args->softcap > 0);
    sac_kernel_define(spec, "HAS_ALIBI", args->alibi_slopes != NULL);
    sac_kernel_define(spec, "HAS_SCORE_MOD", args->has_score_mod);
    sac_kernel_define(spec, "HAS_MASK_MOD", args->has_mask_mod);
    sac_kernel_define(spec, "HAS_BLOCK_MASK", args->blocks.by_query.offsets != NULL);
    sac_kernel_define(spec, "HAS_PARTS", args->blocks.by_query.bits != NULL);
    spec->modifiers = job->modifiers;
}

/* Heads differ in their slopes, and texts may ask for one; a DIAGONAL block is no work for matrix products. */
int32_t sac_portable_pack(const sac_attention_args *args, int32_t q_tile) {
    const sac_block_mask_args *blocks = &args->blocks;
    if (!blocks->by_query.offsets || blocks->period) return 1;
    if (args->alibi_slopes || args->has_score_mod || args->has_mask_mod) return 1;
    const int32_t alike = blocks->num_heads == 1 ? args->group : blocks->heads_per_list;
    int32_t heads = sac_min(args->group, alike);
    while (heads > 1 && (args->group % heads || alike % heads || (int64_t)heads * blocks->q_block > q_tile))
        heads--;
    return sac_max(heads, 1);
}

void sac_portable_define_pack(sac_portable_job *job, sac_kernel_spec *spec, int32_t pack) {
    job->plan.pack = pack;
    job->plan.pack_inverse = SAC_PACK_INVERSE(pack);
    sac_kernel_define(spec, "PACK", pack > 1);
}

sac_schedule sac_portable_schedule(const sac_portable_job *job, bool by_query, int32_t tile, int32_t pack) {
    const sac_attention_args *args = &job->args;
    const sac_lengths *walking = by_query ? &args->len_q : &args->len_k,
                      *walked = by_query ? &args->len_k : &args->len_q;
    int32_t heads = by_query ? args->num_heads / pack : args->num_kv_heads;
    int32_t shared = by_query ? args->group / pack : 1;
    int32_t block = !args->blocks.by_query.offsets ? 0
                    : by_query                     ? args->blocks.q_block
                                                   : args->blocks.kv_block;
    /* What `shared` neighbouring heads walk over: keys and values, or the queries of a group with the sums of dQ. All
     * CTAs at work should find theirs in half of the L2, and backward in a quarter: sums travel both ways. */
    int64_t row = by_query
                      ? (int64_t)(args->head_dim + args->head_dim_v) * element_bytes(args)
                      : args->group * ((int64_t)(args->head_dim + args->head_dim_v) * element_bytes(args) +
                                       args->head_dim * (int64_t)sizeof(float));
    int64_t bytes = walked->seqlen * row, budget = job->device->l2_bytes / (by_query ? 2 : 4);
    int64_t fit = bytes > 0 ? budget / bytes : 1, all = (int64_t)args->batch * heads;
    int64_t section = (fit > 1 ? fit : 1) * shared;
    return (sac_schedule){.num_tiles = sac_num_tiles(walking->seqlen, by_query ? tile / pack : tile, block),
                          .num_heads = (int32_t)all,
                          .section = (int32_t)(section < all ? section
                                               : all > 0     ? all
                                                             : 1),
                          .num_splits = 1,
                          .last_tile_first = by_query && (args->band.causal || args->band.compress)};
}

int64_t sac_portable_num_ctas(const sac_schedule *s) {
    return (int64_t)s->num_tiles * s->num_heads * s->num_splits;
}

saccade_status sac_portable_fill(const sac_portable_job *job, const sac_view *view, const sac_row_view *lse,
                                 bool of_queries, int32_t num_heads, int32_t head_dim) {
    const sac_lengths *len = of_queries ? &job->args.len_q : &job->args.len_k;
    if (!view->data || (!len->cu_seqlens && !len->seqused)) return SACCADE_OK;
    sac_fill_args fill = {.view = *view,
                          .len = *len,
                          .total = of_queries ? job->plan.total_q : job->plan.total_k,
                          .batch = job->args.batch,
                          .num_heads = num_heads,
                          .row_bytes = head_dim * element_bytes(&job->args),
                          .element_bytes = element_bytes(&job->args)};
    if (lse) fill.lse = *lse;
    sac_kernel_spec spec = {
        .source = "cuda/kernels/attn_fill.cu", .entry = "attn_fill", .threads = FILL_THREADS};
    const int64_t rows = FILL_THREADS / 32 * SAC_FILL_ROWS;
    return job->launch(job->ctx, job->device, &spec, (fill.total + rows - 1) / rows, (void *[]){&fill});
}

void *sac_carve(void *workspace, size_t *used, size_t bytes) {
    void *at = workspace ? (char *)workspace + *used : NULL;
    *used += (bytes + 255) / 256 * 256;
    return at;
}
