/* test_cuda_nsa_select.c - scoring and selecting on a GPU against the definition; skipped without one. What needs none:
 * that shared memory suffices for every choice of parameters. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/attention_check.h"
#include "base/tensor_check.h"
#include "base/context.h"
#include "base/error.h"
#include "cuda/nsa.h"
#include "cuda/nsa_select.h"
#include "shared/tile_walk.h"
#include "support/attention_suite.h"
#include "support/cmocka_all.h"
#include "support/device.h"
#include "support/nsa_product.h"
#include "support/nsa_run.h"
#include "support/test_context.h"

static const test_device *gpu;

/* ---- a problem on the device ---- */

enum { NOT_WRITTEN = 12345 };

typedef struct fixture {
    nsa_problem *p;
    nsa_results r; /* k_cmp goes in; scores and indices come out */
    double *compressed;
    test_tensor q, k_cmp, scores, indices, compressed_indices;
    int32_t *cu[3]; /* cu_seqlens, cu_cmp, cu_tiles on the device */
    void *scratch, *lists[SAC_NSA_NUM_BRANCHES];
    sac_block_mask_args blocks[SAC_NSA_NUM_BRANCHES]; /* what they lie like */
    sac_nsa_job job;
} fixture;

static int32_t *upload_offsets(const nsa_problem *p, const int64_t *first, const int32_t *len) {
    int32_t offsets[NSA_MAX_SEQUENCES + 1] = {0};
    if (!p->c.packed) return NULL;
    for (int32_t b = 0; b < p->c.batch; b++) offsets[b + 1] = (int32_t)first[b] + len[b];
    return test_device_copy(gpu, offsets, sizeof offsets);
}

static int32_t longest(const nsa_problem *p, const int32_t *len) {
    int32_t most = 0;
    for (int32_t b = 0; b < p->c.batch; b++) most = len[b] > most ? len[b] : most;
    return most;
}

static sac_nsa_args args_of(const fixture *f) {
    const nsa_problem *p = f->p;
    const nsa_case *c = &p->c;
    return (sac_nsa_args){.q = sac_view_of(&f->q.tensor),
                          .k_cmp = sac_view_of(&f->k_cmp.tensor),
                          .len = {.cu_seqlens = f->cu[0], .seqlen = longest(p, p->len)},
                          .cu_cmp = f->cu[1],
                          .cu_tiles = f->cu[2],
                          .dtype = (int32_t)p->dtype,
                          .batch = c->batch,
                          .num_heads = c->num_heads,
                          .num_kv_heads = c->num_kv_heads,
                          .group = p->group,
                          .head_dim = c->head_dim,
                          .head_dim_v = c->head_dim_v,
                          .block = c->block,
                          .window = c->window,
                          .query_tile = c->query_tile,
                          .score = (int32_t)c->score,
                          .num_lists = p->num_lists,
                          .heads_per_list = p->list_heads,
                          .started = c->visibility == SACCADE_NSA_STARTED,
                          .initial_blocks = c->initial_blocks,
                          .local_blocks = c->local_blocks,
                          .max_cmp = p->longest_cmp,
                          .max_tiles = longest(p, p->len_tiles),
                          .rows = p->rows,
                          .cmp_rows = p->cmp_rows,
                          .tiles = p->tiles,
                          .scale = c->scale};
}

static test_shape choice_shape(const nsa_problem *p, int32_t top_k) {
    test_shape shape = nsa_problem_shape(p, NSA_INDICES);
    shape.extent[shape.ndim - 1] = top_k;
    return shape;
}

static sac_nsa_indices make_indices(const nsa_problem *p, test_tensor *t, int32_t top_k) {
    test_shape shape = choice_shape(p, top_k);
    test_tensor_make(t, gpu, SACCADE_I32, &shape, LAYOUT_ROW_MAJOR);
    double *poison = calloc((size_t)test_shape_size(&shape) + 1, sizeof *poison);
    assert_non_null(poison);
    for (int64_t e = 0; e < test_shape_size(&shape); e++) poison[e] = NOT_WRITTEN;
    test_tensor_write(t, poison);
    free(poison);
    const int64_t list = shape.extent[shape.ndim - 2] * top_k;
    return (sac_nsa_indices){sac_tensor_data(&t->tensor), p->c.packed ? 0 : p->num_lists * list, list, top_k};
}

static void make(fixture *f, const nsa_case *c, sac_dtype dtype) {
    *f = (fixture){.p = nsa_problem_create(c, dtype)};
    const nsa_problem *p = f->p;
    nsa_results_create(p, &f->r);
    nsa_truth_compress(p, NSA_PLAIN, &f->r);
    test_shape q = nsa_problem_shape(p, NSA_Q), k_cmp = nsa_problem_shape(p, NSA_K_CMP);
    test_shape scores = nsa_problem_shape(p, NSA_SCORES);
    test_tensor_make(&f->q, gpu, test_dtype(dtype), &q, c->layout);
    test_tensor_make(&f->k_cmp, gpu, test_dtype(dtype), &k_cmp, c->layout);
    test_tensor_make(&f->scores, gpu, SACCADE_F32, &scores, LAYOUT_ROW_MAJOR);
    test_tensor_write(&f->q, p->values[NSA_Q]);
    test_tensor_write(&f->k_cmp, f->r.values[NSA_K_CMP]);
    f->cu[0] = upload_offsets(p, p->first, p->len);
    f->cu[1] = upload_offsets(p, p->first_cmp, p->len_cmp);
    f->cu[2] = upload_offsets(p, p->first_tile, p->len_tiles);
    f->job = (sac_nsa_job){.ctx = ctx, .device = gpu->device, .args = args_of(f)};
    f->job.args.indices = make_indices(p, &f->indices, p->c.top_k);
    if (p->c.compressed_top_k) {
        f->job.args.compressed_indices = make_indices(p, &f->compressed_indices, p->c.compressed_top_k);
        test_shape shape = choice_shape(p, p->c.compressed_top_k);
        f->compressed = calloc((size_t)test_shape_size(&shape) + 1, sizeof *f->compressed);
    }
    f->scratch = gpu->alloc(sac_nsa_cuda_select_scratch(&f->job));
    for (sac_nsa_branch branch = SAC_NSA_CMP; branch <= SAC_NSA_SLC; branch++) {
        sac_block_mask_args *blocks = &f->blocks[branch];
        if (branch == SAC_NSA_CMP && !f->compressed) continue;
        f->lists[branch] =
            gpu->alloc(sac_nsa_cuda_lay_out_lists(&f->job, branch, false, (void *)256, blocks));
        sac_nsa_cuda_lay_out_lists(&f->job, branch, false, f->lists[branch], blocks);
    }
}

static void run(fixture *f) {
    must(sac_nsa_cuda_score(&f->job, sac_tensor_data(&f->scores.tensor), f->scratch));
    must(sac_nsa_cuda_select(&f->job, f->scratch, f->lists));
    test_tensor_read(&f->scores, "scores", f->r.values[NSA_SCORES]);
    test_tensor_read(&f->indices, "indices", f->r.values[NSA_INDICES]);
    if (f->compressed) test_tensor_read(&f->compressed_indices, "compressed indices", f->compressed);
    test_tensor_unchanged(&f->q, "q");
    test_tensor_unchanged(&f->k_cmp, "k_cmp");
}

static void unmake(fixture *f) {
    test_tensor *tensors[] = {&f->q, &f->k_cmp, &f->scores, &f->indices, &f->compressed_indices};
    for (size_t i = 0; i < COUNT_OF(tensors); i++) test_tensor_free(tensors[i]);
    for (size_t i = 0; i < COUNT_OF(f->cu); i++)
        if (f->cu[i]) gpu->free(f->cu[i]);
    gpu->free(f->scratch);
    for (size_t i = 0; i < COUNT_OF(f->lists); i++)
        if (f->lists[i]) gpu->free(f->lists[i]);
    free(f->compressed);
    nsa_results_free(&f->r);
    nsa_problem_free(f->p);
}

/* ---- what is right ---- */

/* The chosen 128-wide blocks of compressed keys of one tile: ascending, as many as there may be, and no other has a
 * mean that is better by more than the rounding of fp32 sums. */
static void check_compressed_tile(const fixture *f, const double *scores, const double *chosen,
                                  int64_t tile) {
    const nsa_problem *p = f->p;
    const int32_t top_k = p->c.compressed_top_k;
    double mean[64] = {0}, largest = 0, worst_taken = INFINITY, best_left = -INFINITY;
    int32_t count = 0, blocks, used = 0;
    while (count < p->longest_cmp && scores[count] > -INFINITY) count++;
    blocks = (count + NSA_COMPRESSED_BLOCK - 1) / NSA_COMPRESSED_BLOCK;
    for (int32_t j = 0; j < count; j++) {
        const int32_t block = j / NSA_COMPRESSED_BLOCK, rest = count - block * NSA_COMPRESSED_BLOCK;
        mean[block] += scores[j] / (rest < NSA_COMPRESSED_BLOCK ? rest : NSA_COMPRESSED_BLOCK);
        largest = fmax(largest, fabs(scores[j]));
    }
    while (used < top_k && chosen[used] >= 0) used++;
    if (used != (blocks < top_k ? blocks : top_k))
        fail_msg("%s: tile %lld chose %d of %d blocks", p->c.name, (long long)tile, used, blocks);
    for (int32_t block = 0, n = 0; block < blocks; block++) {
        const bool taken = n < used && chosen[n] == block;
        n += taken;
        if (taken)
            worst_taken = fmin(worst_taken, mean[block]);
        else
            best_left = fmax(best_left, mean[block]);
        if (block == blocks - 1 && n != used)
            fail_msg("%s: tile %lld: place %d has %g", p->c.name, (long long)tile, n, chosen[n]);
    }
    for (int32_t n = used; n < top_k; n++) assert_int_equal((int)chosen[n], -1);
    if (best_left > worst_taken + 1e-5 * largest)
        fail_msg("%s: tile %lld: a block of mean %.9g was left for one of %.9g", p->c.name, (long long)tile,
                 best_left, worst_taken);
}

static void check_compressed(const fixture *f) {
    const nsa_problem *p = f->p;
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; tile < p->len_tiles[b]; tile++) {
                const int64_t at = nsa_tile_index(p, b, list, tile);
                check_compressed_tile(f, f->r.values[NSA_SCORES] + at * p->longest_cmp,
                                      f->compressed + at * p->c.compressed_top_k, at);
            }
}

/* Where a row of the lists is one tile's choice, select has written it: the chosen blocks, then nothing. Rows of several
 * tiles are test_cuda_nsa_lists'. */
static void check_listed(const fixture *f, sac_nsa_branch branch, const double *chosen, int32_t top_k) {
    const nsa_problem *p = f->p;
    const sac_block_mask_args *blocks = &f->blocks[branch];
    const int64_t rows = (int64_t)blocks->batch * blocks->num_heads * blocks->num_q_blocks;
    const int64_t places = (int64_t)p->num_lists * p->tiles * top_k;
    if (blocks->by_query.bits) return;
    int64_t *offsets = calloc((size_t)rows + 1, sizeof *offsets);
    int32_t *entries = calloc((size_t)places + 1, sizeof *entries);
    assert_true(offsets && entries);
    gpu->download(offsets, blocks->by_query.offsets, (size_t)(rows + 1) * sizeof *offsets);
    gpu->download(entries, blocks->by_query.entries, (size_t)places * sizeof *entries);
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; tile < p->len_tiles[b]; tile++) {
                const int64_t row = ((int64_t)b * p->num_lists + list) * blocks->num_q_blocks + tile;
                const double *of_tile = chosen + nsa_tile_index(p, b, list, tile) * top_k;
                if (offsets[row] < 0 || offsets[row] > places - top_k ||
                    offsets[row + 1] != offsets[row] + top_k)
                    fail_msg("%s: row %lld is entries %lld to %lld of %lld", p->c.name, (long long)row,
                             (long long)offsets[row], (long long)offsets[row + 1], (long long)places);
                for (int32_t i = 0; i < top_k; i++) {
                    const int32_t entry = entries[offsets[row] + i], block = (int32_t)of_tile[i];
                    if (entry != (block < 0 ? -1 : SAC_ENTRY(block, SAC_FULL)))
                        fail_msg("%s: row %lld, place %d has %#x, chosen was %d", p->c.name, (long long)row,
                                 i, entry, block);
                }
            }
    free(offsets);
    free(entries);
}

static void judge(const fixture *f) {
    const nsa_problem *p = f->p;
    double *exact = calloc((size_t)(p->num_lists * p->tiles * p->longest_cmp) + 1, sizeof *exact);
    assert_non_null(exact);
    nsa_truth_scores(p, f->r.values[NSA_K_CMP], exact);
    nsa_check_scores(p, f->r.values[NSA_SCORES], exact);
    nsa_check_selection(p, f->r.values[NSA_SCORES], f->r.values[NSA_INDICES]);
    if (f->compressed) check_compressed(f);
    check_listed(f, SAC_NSA_SLC, f->r.values[NSA_INDICES], p->c.top_k);
    if (f->compressed) check_listed(f, SAC_NSA_CMP, f->compressed, p->c.compressed_top_k);
    free(exact);
}

static void verify(const nsa_case *c, sac_dtype dtype) {
    fixture f;
    make(&f, c, dtype);
    run(&f);
    if (test_device_computes(gpu)) judge(&f);
    unmake(&f);
}

/* ---- on a GPU ---- */

static void every_option_meets_every_other(void **state) {
    (void)state;
    static const sac_dtype dtypes[] = {SAC_F32, SAC_BF16, SAC_F16};
    gpu = test_gpu();
    for (int i = 0; i < NSA_PRODUCT_SIZE; i++) {
        if (!test_takes_case((size_t)i)) continue;
        char name[256];
        nsa_case c = nsa_product(i, name, sizeof name);
        c.layout = i % 11 == 7 ? LAYOUT_ODD : c.layout;
        verify(&c, dtypes[i % 3]);
    }
}

/* Many candidates, so that most are turned away, and lists longer than a warp. */
static void best_of_many_blocks(void **state) {
    (void)state;
    static const int32_t top_k[] = {16, 33, 100, 1024}, query_tile[] = {1, 3, 64, 256};
    gpu = test_gpu();
    for (size_t i = 0; i < COUNT_OF(top_k) * COUNT_OF(query_tile); i++)
        for (int score = SACCADE_NSA_LOGITS; score <= SACCADE_NSA_PROBABILITIES; score++) {
            if (!test_takes_case(2 * i + (size_t)score)) continue;
            char name[96];
            nsa_case c = {.name = name,
                          .batch = 2,
                          .packed = true,
                          .lens = {1500, 3},
                          .num_heads = 4,
                          .num_kv_heads = 1,
                          .head_dim = 64,
                          .block = 1,
                          .top_k = top_k[i % 4],
                          .query_tile = query_tile[i / 4],
                          .score = (saccade_nsa_score)score,
                          .initial_blocks = (int32_t)i % 2,
                          .local_blocks = 2 * ((int32_t)i % 3),
                          .compressed_top_k = 3 + (int32_t)i % 5 * 200,
                          .seed = i};
            snprintf(name, sizeof name, "top %d, tile %d, score %d", c.top_k, c.query_tile, score);
            verify(&c, i % 3 ? SAC_BF16 : SAC_F32);
        }
}

static void any_head_dim_and_group(void **state) {
    (void)state;
    static const int32_t dims[] = {8, 24, 96, 128, 192, 256}, groups[] = {1, 3, 5, 16};
    gpu = test_gpu();
    for (size_t i = 0; i < COUNT_OF(dims) * COUNT_OF(groups); i++) {
        if (!test_takes_case(i)) continue;
        nsa_case c = {.name = "head_dim",
                      .seqlen = 333,
                      .num_heads = groups[i / 6],
                      .num_kv_heads = 1,
                      .head_dim = dims[i % 6],
                      .block = 4,
                      .query_tile = i % 4 < 2 ? 1 : 32,
                      .score = i % 2 ? SACCADE_NSA_LOGITS : SACCADE_NSA_PROBABILITIES,
                      .seed = i};
        for (sac_dtype dtype = SAC_F32; dtype <= SAC_BF16; dtype++) verify(&c, dtype);
    }
}

static void activations_of_a_trained_model(void **state) {
    (void)state;
    gpu = test_gpu();
    for (int per_query = 0; per_query < 2; per_query++) {
        nsa_case c = nsa_case_of_sample(32, per_query);
        verify(&c, SAC_BF16);
    }
}

static void ties_nan_and_few_candidates(void **state) {
    (void)state;
    static const nsa_inputs inputs[] = {NSA_EQUAL_KEYS, NSA_NAN_KEYS};
    gpu = test_gpu();
    for (int i = 0; i < 32; i++) {
        if (!test_takes_case((size_t)i)) continue;
        nsa_case c = {.name = "special inputs",
                      .seqlen = i % 4 ? 90 : 700,
                      .num_heads = 2,
                      .top_k = i % 4 ? 16 : 40,
                      .query_tile = i / 4 % 2 ? 1 : 24,
                      .score = i / 8 % 2 ? SACCADE_NSA_LOGITS : SACCADE_NSA_PROBABILITIES,
                      .initial_blocks = i % 3,
                      .inputs = inputs[i / 16]};
        fixture f;
        make(&f, &c, i % 2 ? SAC_BF16 : SAC_F32);
        run(&f);
        nsa_check_selection(f.p, f.r.values[NSA_SCORES], f.r.values[NSA_INDICES]);
        unmake(&f);
    }
}

/* Everything from token 170 on is another; what ends before it must be the same to the last bit. */
static void later_tokens_change_no_bit(void **state) {
    (void)state;
    enum { CHANGED = 170 };
    gpu = test_gpu();
    for (int i = 0; i < 8; i++) {
        nsa_case c = {.name = "perturbed",
                      .seqlen = 400,
                      .num_heads = 4,
                      .num_kv_heads = 2,
                      .query_tile = i % 2 ? 1 : 32,
                      .score = i / 2 % 2 ? SACCADE_NSA_LOGITS : SACCADE_NSA_PROBABILITIES};
        fixture before, after;
        const sac_dtype dtype = i / 4 ? SAC_BF16 : SAC_F32;
        make(&before, &c, dtype);
        make(&after, &c, dtype);
        const nsa_problem *p = after.p;
        const int64_t q_row = p->c.num_heads * p->c.head_dim, k_row = p->c.num_kv_heads * p->c.head_dim;
        for (int64_t e = CHANGED * q_row; e < p->rows * q_row; e++) p->values[NSA_Q][e] *= -2;
        for (int64_t e = CHANGED / p->c.block * k_row; e < p->cmp_rows * k_row; e++)
            after.r.values[NSA_K_CMP][e] *= 4;
        test_tensor_write(&after.q, p->values[NSA_Q]);
        test_tensor_write(&after.k_cmp, after.r.values[NSA_K_CMP]);
        run(&before);
        run(&after);
        for (int32_t list = 0; list < p->num_lists; list++)
            for (int32_t tile = 0; (tile + 1) * p->c.query_tile <= CHANGED; tile++) {
                const int64_t at = nsa_tile_index(p, 0, list, tile);
                assert_memory_equal(before.r.values[NSA_SCORES] + at * p->longest_cmp,
                                    after.r.values[NSA_SCORES] + at * p->longest_cmp,
                                    (size_t)p->longest_cmp * sizeof(double));
                assert_memory_equal(before.r.values[NSA_INDICES] + at * p->c.top_k,
                                    after.r.values[NSA_INDICES] + at * p->c.top_k,
                                    (size_t)p->c.top_k * sizeof(double));
            }
        unmake(&before);
        unmake(&after);
    }
}

/* ---- without one ---- */

static void shared_memory_suffices_for_every_choice(void **state) {
    (void)state;
    static const int32_t top_k[][2] = {{1, 0}, {16, 0}, {16, 16}, {1024, 1024}}, groups[] = {1, 3, 16, 128},
                         tiles[] = {1, 7, 8, 64, 256}, smallest = 99 << 10;
    const sac_cuda_device device = {.num_sms = 132, .smem_bytes = smallest};
    for (int32_t head_dim = 8; head_dim <= 256; head_dim += 8)
        for (int i = 0; i < 4 * 4 * 5 * 3 * 2; i++) {
            const sac_nsa_args args = {.dtype = i / 80 % 3,
                                       .head_dim = head_dim,
                                       .score = 1 + i / 240,
                                       .batch = 1,
                                       .num_lists = 2,
                                       .heads_per_list = groups[i / 4 % 4],
                                       .query_tile = tiles[i / 16 % 5],
                                       .max_tiles = 1 << 20,
                                       .indices.top_k = top_k[i % 4][0],
                                       .compressed_indices.top_k = top_k[i % 4][1]};
            sac_kernel_spec spec;
            sac_nsa_select_plan plan;
            sac_nsa_select_spec(&args, &device, &spec, &plan);
            assert_in_range(spec.smem_bytes, 1, smallest);
            assert_in_range(plan.tiles_a_cta, 1, 64);
            assert_true(plan.turns == 1 || plan.tiles_a_cta == 1);
            assert_true((int64_t)plan.turns * spec.threads / 2 >=
                        (int64_t)plan.tiles_a_cta * plan.rows_a_tile);
        }
}

int main(void) {
    struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_suffices_for_every_choice),
        long_test(every_option_meets_every_other),
        long_test(best_of_many_blocks),
        long_test(any_head_dim_and_group),
        cmocka_unit_test(activations_of_a_trained_model),
        long_test(ties_nan_and_few_candidates),
        cmocka_unit_test(later_tokens_change_no_bit),
    };
    cmocka_set_test_filter(getenv("SACCADE_TEST_FILTER"));
    size_t count = test_take_shard(tests, COUNT_OF(tests));
    return _cmocka_run_group_tests("cuda_nsa_select", tests, count, make_context, end_context);
}
