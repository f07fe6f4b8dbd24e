/* nsa_lists.c - from chosen blocks to the block lists of an attention call, by the kernels that build block masks. */
#include "base/error.h"
#include "cuda/mask_lists.h"
#include "cuda/nsa.h"
#include "cuda/nsa_select.h"

static int32_t kv_block_of(const sac_nsa_args *args, sac_nsa_branch branch) {
    return branch == SAC_NSA_SLC ? args->block : SAC_NSA_COMPRESSED_BLOCK;
}

/* Neighbouring tiles that share a row of the lists, as many as fill a tile of attention with their queries in the heads
 * that share the choice: it walks the union of what they chose. Were their choices random, that would be as many keys
 * as all have together, and the products of a warp's queries alone stay what they are; neighbours choose alike. */
enum { ROWS_A_TILE = 64, MOST_TILES_A_ROW = 32 };

static int32_t tiles_a_row(const sac_nsa_args *args) {
    const int32_t fit = ROWS_A_TILE / (args->query_tile * args->heads_per_list);
    return sac_max(1, sac_min(fit, MOST_TILES_A_ROW));
}

/* The lists' arguments, their arrays at `memory`. */
static sac_mask_args lists_of(const sac_nsa_args *args, sac_nsa_branch branch, bool backward, void *memory,
                              size_t *bytes, size_t *cleared) {
    const sac_nsa_indices *indices = branch == SAC_NSA_SLC ? &args->indices : &args->compressed_indices;
    const int32_t keys = branch == SAC_NSA_SLC ? args->len.seqlen : args->max_cmp;
    sac_mask_args lists = {.source = SAC_MASK_CHOSEN,
                           .kind = SAC_FULL, /* the band does the rest */
                           .tensor = indices->data,
                           .batch_stride = indices->batch_stride,
                           .head_stride = indices->list_stride,
                           .row_stride = indices->top_k,
                           .tensor_size = indices->top_k,
                           .cu_tiles = args->cu_tiles,
                           .tiles = args->max_tiles,
                           .tiles_a_row = tiles_a_row(args),
                           .batch = args->batch,
                           .num_heads = args->num_lists,
                           .rows = sac_ceil_div(args->max_tiles, tiles_a_row(args)),
                           .columns = sac_ceil_div(keys, kv_block_of(args, branch))};
    const sac_mask_room room = {.capacity = args->tiles * args->num_lists * indices->top_k,
                                .by_key = backward,
                                .bits = tiles_a_row(args) > 1};
    *bytes = sac_mask_lists_lay_out(&lists, &room, memory, cleared);
    return lists;
}

/* Forward, a row of one tile's choice is made with the choice. */
static bool rows_are_choices(const sac_nsa_args *args) { return tiles_a_row(args) == 1; }

static sac_nsa_chosen_rows rows_of(const sac_nsa_args *args, sac_nsa_branch branch, void *memory) {
    size_t bytes, cleared;
    const sac_mask_args lists = lists_of(args, branch, false, memory, &bytes, &cleared);
    return (sac_nsa_chosen_rows){lists.row_offsets, lists.row_entries};
}

void sac_nsa_cuda_place_choices(sac_nsa_select_args *args, void *const lists[SAC_NSA_NUM_BRANCHES]) {
    const sac_nsa_args *nsa = &args->nsa;
    if (!lists || !rows_are_choices(nsa)) return;
    args->rows = rows_of(nsa, SAC_NSA_SLC, lists[SAC_NSA_SLC]);
    if (nsa->compressed_indices.top_k) args->compressed_rows = rows_of(nsa, SAC_NSA_CMP, lists[SAC_NSA_CMP]);
}

saccade_status sac_nsa_cuda_list_choices(const sac_nsa_job *job, void *const lists[SAC_NSA_NUM_BRANCHES]) {
    if (!lists || rows_are_choices(&job->args)) return SACCADE_OK;
    SAC_TRY(sac_nsa_cuda_make_lists(job, SAC_NSA_SLC, false, lists[SAC_NSA_SLC]));
    if (!job->args.compressed_indices.top_k) return SACCADE_OK;
    return sac_nsa_cuda_make_lists(job, SAC_NSA_CMP, false, lists[SAC_NSA_CMP]);
}

size_t sac_nsa_cuda_lay_out_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward, void *memory,
                                  sac_block_mask_args *blocks) {
    size_t bytes, cleared;
    const sac_mask_args lists = lists_of(&job->args, branch, backward, memory, &bytes, &cleared);
    *blocks = (sac_block_mask_args){.by_query = {lists.row_offsets, lists.row_entries, lists.row_bits},
                                    .by_key = {lists.col_offsets, lists.col_entries, lists.col_bits},
                                    .q_block = lists.tiles_a_row * job->args.query_tile,
                                    .part = job->args.query_tile,
                                    .kv_block = kv_block_of(&job->args, branch),
                                    .num_q_blocks = lists.rows,
                                    .num_kv_blocks = lists.columns,
                                    .batch = lists.batch,
                                    .num_heads = lists.num_heads,
                                    .heads_per_list = job->args.heads_per_list};
    return bytes;
}

saccade_status sac_nsa_cuda_make_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward,
                                       void *memory) {
    const sac_cuda_device *device;
    size_t bytes, cleared;
    const sac_mask_args lists = lists_of(&job->args, branch, backward, memory, &bytes, &cleared);
    saccade_status status = sac_cuda_enter(job->ctx, job->device.device_id, &device);
    if (status != SACCADE_OK) return status;
    status = sac_cuda_clear(job->ctx, memory, cleared);
    if (status == SACCADE_OK) status = sac_mask_lists_launch(job->ctx, device, &lists);
    sac_cuda_leave();
    return status;
}
