/* select.c - the best blocks of each tile, and the lists that attention walks. */
#include <math.h>
#include <omp.h>

#include "base/context.h"
#include "base/error.h"
#include "nsa/host.h"
#include "nsa/memory.h"

/* Blocks chosen so far: the forced ones, then the best by score, best first. */
typedef struct choice {
    int32_t *block;
    float *score; /* of the ones behind the forced */
    int32_t count, forced, room;
} choice;

static void force(choice *c, int32_t block) {
    if (c->count < c->room) c->block[c->count++] = block;
    c->forced = c->count;
}

/* Blocks come in ascending order and never displace an equal score, so ties go to the lower index. NaN and -inf compare
 * false and never enter. */
static void offer(choice *c, int32_t block, float score) {
    if (!(score > -INFINITY)) return;
    if (c->count == c->room) {
        if (c->forced == c->room || !(score > c->score[c->count - 1])) return;
        c->count--;
    }
    int32_t at = c->count++;
    for (; at > c->forced && score > c->score[at - 1]; at--) {
        c->block[at] = c->block[at - 1];
        c->score[at] = c->score[at - 1];
    }
    c->block[at] = block;
    c->score[at] = score;
}

/* Ascending; -1 in the places that are left. */
static void close_choice(choice *c) {
    for (int32_t i = 1; i < c->count; i++) {
        int32_t block = c->block[i], at = i;
        for (; at > 0 && c->block[at - 1] > block; at--) c->block[at] = c->block[at - 1];
        c->block[at] = block;
    }
    for (int32_t i = c->count; i < c->room; i++) c->block[i] = -1;
}

enum { MOST_CHOSEN = 1024 };

static void choose_blocks(const sac_nsa_args *args, int32_t *slots, const float *scores, int32_t candidates,
                          int32_t last) {
    float best[MOST_CHOSEN];
    choice c = {.block = slots, .score = best, .room = args->indices.top_k};
    const int32_t own = last / args->block;
    for (int32_t j = 0; j <= own; j++)
        if (sac_nsa_forced(args, j, last, candidates)) force(&c, j);
    for (int32_t j = 0; j < candidates; j++)
        if (!sac_nsa_forced(args, j, last, candidates)) offer(&c, j, scores[j]);
    close_choice(&c);
}

/* Blocks of compressed keys by the mean of their scores. */
static void choose_compressed_blocks(const sac_nsa_args *args, int32_t *slots, const float *scores,
                                     int32_t candidates) {
    float best[MOST_CHOSEN];
    choice c = {.block = slots, .score = best, .room = args->compressed_indices.top_k};
    for (int32_t begin = 0; begin < candidates; begin += SAC_NSA_COMPRESSED_BLOCK) {
        int32_t end = sac_min(begin + SAC_NSA_COMPRESSED_BLOCK, candidates);
        float sum = 0;
        for (int32_t j = begin; j < end; j++) sum += scores[j];
        offer(&c, begin / SAC_NSA_COMPRESSED_BLOCK, sum / (float)(end - begin));
    }
    close_choice(&c);
}

static void select_tile(const sac_nsa_args *args, int32_t b, int32_t list, int32_t tile, float *scratch) {
    float *scores = scratch;
    int32_t last = sac_min((tile + 1) * args->query_tile, sac_length_of(&args->len, b)) - 1;
    int32_t candidates = sac_nsa_score_tile(args, b, list, tile, scores, scratch + args->max_cmp);
    if (args->indices.data)
        choose_blocks(args, sac_nsa_slots(args, &args->indices, b, list, tile), scores, candidates, last);
    if (args->compressed_indices.top_k)
        choose_compressed_blocks(args, sac_nsa_slots(args, &args->compressed_indices, b, list, tile), scores,
                                 candidates);
}

static void select_tiles(const sac_nsa_job *job, void *scratch) {
    const sac_nsa_args *args = &job->args;
    const int64_t each = args->max_cmp + sac_nsa_score_floats(args);
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t tiles = sac_ceil_div(sac_length_of(&args->len, b), args->query_tile);
        const int64_t count = (int64_t)tiles * args->num_lists;
#pragma omp parallel for num_threads(sac_nsa_threads(job, args->rows * args->num_heads * args->head_dim))    \
    schedule(dynamic)
        for (int64_t i = 0; i < count; i++) /* the last tiles have most candidates */
            select_tile(args, b, (int32_t)(i % args->num_lists), tiles - 1 - (int32_t)(i / args->num_lists),
                        (float *)scratch + omp_get_thread_num() * each);
    }
}

/* ---- lists ---- */

static const sac_nsa_indices *indices_of(const sac_nsa_args *args, sac_nsa_branch branch) {
    return branch == SAC_NSA_SLC ? &args->indices : &args->compressed_indices;
}

/* The host's attention walks from the queries alone. */
size_t sac_nsa_host_lay_out_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward, void *memory,
                                  sac_block_mask_args *blocks) {
    const sac_nsa_args *args = &job->args;
    const int64_t rows = (int64_t)args->batch * args->num_lists * args->max_tiles;
    const size_t offset_bytes = (size_t)(rows + 1) * sizeof(int64_t);
    const int32_t kv_block = branch == SAC_NSA_SLC ? args->block : SAC_NSA_COMPRESSED_BLOCK;
    const int32_t seqlen_k = branch == SAC_NSA_SLC ? args->len.seqlen : args->max_cmp;
    (void)backward;
    *blocks = (sac_block_mask_args){
        .by_query = {.offsets = memory, .entries = (int32_t *)((char *)memory + offset_bytes)},
        .q_block = args->query_tile,
        .kv_block = kv_block,
        .num_q_blocks = args->max_tiles,
        .num_kv_blocks = sac_ceil_div(seqlen_k, kv_block),
        .batch = args->batch,
        .num_heads = args->num_lists,
        .heads_per_list = args->heads_per_list};
    return offset_bytes +
           (size_t)(args->tiles * args->num_lists * indices_of(args, branch)->top_k) * sizeof(int32_t);
}

saccade_status sac_nsa_host_make_lists(const sac_nsa_job *job, sac_nsa_branch branch, bool backward,
                                       void *memory) {
    const sac_nsa_args *args = &job->args;
    const sac_nsa_indices *indices = indices_of(args, branch);
    sac_block_mask_args blocks;
    sac_nsa_host_lay_out_lists(job, branch, backward, memory, &blocks);
    int64_t *offsets = (int64_t *)blocks.by_query.offsets, row = 0, count = 0;
    int32_t *entries = (int32_t *)blocks.by_query.entries;
    for (int32_t b = 0; b < args->batch; b++) {
        const int32_t tiles = sac_ceil_div(sac_length_of(&args->len, b), args->query_tile);
        for (int32_t list = 0; list < args->num_lists; list++)
            for (int32_t tile = 0; tile < args->max_tiles; tile++) {
                offsets[row++] = count;
                if (tile >= tiles) continue;
                const int32_t *slots = sac_nsa_slots(args, indices, b, list, tile);
                for (int32_t i = 0; i < indices->top_k && slots[i] >= 0; i++)
                    entries[count++] = SAC_ENTRY(slots[i], 2 /* FULL: the band does the rest */);
            }
    }
    offsets[row] = count;
    return SACCADE_OK;
}

saccade_status sac_nsa_host_select(const sac_nsa_job *job, void *scratch,
                                   void *const lists[SAC_NSA_NUM_BRANCHES]) {
    select_tiles(job, scratch);
    for (sac_nsa_branch branch = 0; branch < SAC_NSA_NUM_BRANCHES && lists; branch++)
        if (sac_nsa_is_sparse(&job->args, branch))
            SAC_TRY(sac_nsa_host_make_lists(job, branch, false, lists[branch]));
    return SACCADE_OK;
}
