/* nsa_select.c - tiles and launches of kernels/nsa_select.cu. */
#include "cuda/nsa_select.h"

#include "cuda/attn_portable.h"
#include "cuda/nsa.h"

/* In order of preference; the first whose shared memory suffices is taken. */
typedef struct select_tile {
    int32_t element_bytes, head_dim;
    bool means; /* their terms need room */
    int32_t rows, kv_tile;
    bool warpgroup; /* one can multiply it whole, on Hopper */
} select_tile;

static const select_tile tiles[] = {
    {2, 256, false, 64, 64, true},  /* 64 rows: two to four CTAs an SM hide each other's waits */
    {2, 128, true, 64, 64, true},   /* 99 KiB of shared memory, all that sm_86, sm_89 and sm_120 have */
    {2, 256, true, 32, 32, false},  /* likewise */
    {4, 128, false, 64, 64, false}, /* likewise */
    {4, 128, true, 64, 64, false},  /* likewise */
    {4, 256, false, 32, 32, false}, /* likewise */
    {4, 256, true, 32, 32, false},  /* likewise */
};

enum { WARP_ROWS = 16, MEANS_THREADS = 256, SMEM_BYTES = 99 << 10 };

/* Below this a tile's queries are multiplied one by one: their means would take as much memory as they do. */
enum { FEWEST_FOR_MEANS = 8 };

static bool takes_means(const sac_nsa_args *args) {
    return args->score == SAC_NSA_LOGITS && args->query_tile >= FEWEST_FOR_MEANS;
}

static int32_t element_bytes(const sac_nsa_args *args) { return args->dtype == SAC_F32 ? 4 : 2; }

static int32_t rows_a_tile(const sac_nsa_args *args) {
    return takes_means(args) ? 1 : args->query_tile * args->heads_per_list;
}

/* Are a query tile's rows those of one warp? Then they are summed in its registers. */
static bool is_owned(const select_tile *t, const sac_nsa_args *args) {
    return rows_a_tile(args) == WARP_ROWS && t->kv_tile == 64;
}

/* Shared memory of a CTA that takes no query tile yet: rows, keys, values. */
static int32_t smem_of(const select_tile *t, const sac_nsa_args *args) {
    const int32_t pitch = t->warpgroup ? sac_ceil_div(args->head_dim, 64) * 64
                                       : sac_ceil_div(args->head_dim, 16) * 16 + 8,
                  terms = t->means && t->element_bytes == 2 ? 3 : 1,
                  values = is_owned(t, args) ? 0 : t->rows * (t->kv_tile + 8) * 4;
    return (terms * t->rows + t->kv_tile) * pitch * t->element_bytes + values;
}

static int32_t smem_of_tile(const sac_nsa_args *args) {
    return SAC_NSA_CHOOSER_BYTES +
           SAC_NSA_PLACE_BYTES * (args->indices.top_k + args->compressed_indices.top_k);
}

static select_tile choose_tile(const sac_nsa_args *args, const sac_cuda_device *device) {
    const select_tile *t = tiles;
    while (t->element_bytes != element_bytes(args) || t->head_dim < args->head_dim ||
           t->means != takes_means(args))
        t++;
    select_tile chosen = *t;
    chosen.warpgroup &= device->compute_capability == 90;
    while (chosen.rows > WARP_ROWS && smem_of(&chosen, args) + smem_of_tile(args) > SMEM_BYTES) {
        chosen.rows /= 2;
        chosen.warpgroup = false;
    }
    return chosen;
}

/* As many tiles as have rows and places; fewer where that leaves multiprocessors without work. */
static int32_t tiles_a_cta(const select_tile *t, const sac_nsa_args *args, const sac_cuda_device *device) {
    const int32_t by_rows = sac_max(1, t->rows / rows_a_tile(args));
    const int32_t by_memory = (SMEM_BYTES - smem_of(t, args)) / smem_of_tile(args);
    const int64_t all = (int64_t)args->batch * args->num_lists * args->max_tiles,
                  each = all / device->num_sms;
    const int32_t by_work = each < by_rows ? sac_max(1, (int32_t)each) : by_rows;
    return sac_min(by_work, by_memory);
}

/* Places of a list that each lane holds: a power of two, so that few kernels are needed. */
static int32_t places_of(const sac_nsa_args *args) {
    const int32_t most = sac_max(args->indices.top_k, args->compressed_indices.top_k);
    int32_t places = 1;
    while (places * 32 < most) places *= 2;
    return places;
}

void sac_nsa_select_spec(const sac_nsa_args *args, const sac_cuda_device *device, sac_kernel_spec *spec,
                         sac_nsa_select_plan *plan) {
    const select_tile t = choose_tile(args, device);
    const int32_t each = tiles_a_cta(&t, args, device);
    *plan = (sac_nsa_select_plan){.rows_a_tile = rows_a_tile(args),
                                  .tiles_a_cta = each,
                                  .turns = sac_ceil_div(rows_a_tile(args), t.rows),
                                  .ctas_a_list = sac_ceil_div(args->max_tiles, each)};
    *spec = (sac_kernel_spec){.source = "cuda/kernels/nsa_select.cu",
                              .entry = "nsa_select",
                              .arch_specific = t.warpgroup,
                              .threads = t.rows / WARP_ROWS * 32,
                              .smem_bytes = smem_of(&t, args) + each * smem_of_tile(args)};
    sac_kernel_define(spec, "DTYPE", args->dtype);
    sac_kernel_define(spec, "HEAD_DIM", args->head_dim);
    sac_kernel_define(spec, "Q_TILE", t.rows);
    sac_kernel_define(spec, "KV_TILE", t.kv_tile);
    sac_kernel_define(spec, "ALIGNED",
                      sac_view_is_aligned(&args->q, element_bytes(args)) &&
                          sac_view_is_aligned(&args->k_cmp, element_bytes(args)));
    sac_kernel_define(spec, "WARPGROUP", t.warpgroup);
    sac_kernel_define(spec, "OWNED", is_owned(&t, args));
    sac_kernel_define(spec, "PLACES", places_of(args));
    sac_kernel_define(spec, "PROBABILITIES", args->score == SAC_NSA_PROBABILITIES);
    sac_kernel_define(spec, "MEANS", takes_means(args));
    sac_kernel_define(spec, "HAS_LSE", args->lse_cmp.data != NULL);
}

void sac_nsa_means_spec(const sac_nsa_args *args, sac_kernel_spec *spec) {
    *spec = (sac_kernel_spec){
        .source = "cuda/kernels/nsa_means.cu", .entry = "nsa_means", .threads = MEANS_THREADS};
    sac_kernel_define(spec, "DTYPE", args->dtype);
    sac_kernel_define(spec, "HEAD_DIM", args->head_dim);
    sac_kernel_define(spec, "ALIGNED", sac_view_is_aligned(&args->q, element_bytes(args)));
}

size_t sac_nsa_cuda_select_scratch(const sac_nsa_job *job) {
    const sac_nsa_args *args = &job->args;
    const select_tile t = choose_tile(args, sac_nsa_cuda_device(job));
    int64_t floats = 0;
    if (takes_means(args)) floats = args->head_dim;
    if (args->score == SAC_NSA_PROBABILITIES && !args->lse_cmp.data && rows_a_tile(args) > t.rows)
        floats = rows_a_tile(args);
    return (size_t)(args->tiles * args->num_lists * floats) * sizeof(float);
}

static saccade_status launch(const sac_nsa_job *job, sac_nsa_select_args *args) {
    const int64_t lists = (int64_t)args->nsa.batch * args->nsa.num_lists;
    sac_kernel_spec spec;
    saccade_status status = SACCADE_OK;
    if (takes_means(&args->nsa)) {
        sac_nsa_means_spec(&args->nsa, &spec);
        status = sac_nsa_cuda_launch(job, &spec, lists * args->nsa.max_tiles, (void *[]){args});
    }
    if (status != SACCADE_OK) return status;
    sac_nsa_select_spec(&args->nsa, sac_nsa_cuda_device(job), &spec, &args->plan);
    return sac_nsa_cuda_launch(job, &spec, lists * args->plan.ctas_a_list, (void *[]){args});
}

saccade_status sac_nsa_cuda_select(const sac_nsa_job *job, void *scratch,
                                   void *const lists[SAC_NSA_NUM_BRANCHES]) {
    sac_nsa_select_args args = {.nsa = job->args, .means = scratch, .lse = scratch};
    sac_nsa_cuda_place_choices(&args, lists);
    const saccade_status status = launch(job, &args);
    return status == SACCADE_OK ? sac_nsa_cuda_list_choices(job, lists) : status;
}

/* Scores are what a choice of no blocks leaves behind. */
saccade_status sac_nsa_cuda_score(const sac_nsa_job *job, float *scores, void *scratch) {
    sac_nsa_select_args args = {.nsa = job->args, .means = scratch, .lse = scratch, .scores = scores};
    args.nsa.indices.data = NULL;
    args.nsa.compressed_indices.top_k = 0;
    return launch(job, &args);
}
