/* test_cuda_nsa_lists.c - block lists made on a GPU from chosen blocks, against the same made here by definition: which
 * tile chose which block, in which row and column it therefore stands, with which bits. Skipped without a GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/nsa.h"
#include "shared/tile_walk.h"
#include "support/cmocka_all.h"
#include "support/device.h"
#include "support/random.h"
#include "support/test_context.h"

static const test_device *gpu;

static void *allocated(int64_t count, size_t size) {
    void *memory = calloc((size_t)count + 1, size);
    assert_non_null(memory);
    return memory;
}

/* ---- what was chosen ---- */

enum { MOST_SEQUENCES = 3 };

/* Zero lens: one sequence of `seqlen` for each of `batch`. */
typedef struct choice_case {
    int32_t batch, seqlen, lens[MOST_SEQUENCES];
    int32_t num_lists, heads_per_list, query_tile, block, top_k;
    bool alike; /* neighbours choose nearly the same */
    uint64_t seed;
} choice_case;

typedef struct choice {
    choice_case c;
    sac_nsa_args args; /* with pointers to the device */
    int32_t len[MOST_SEQUENCES], tiles[MOST_SEQUENCES], first_tile[MOST_SEQUENCES + 1];
    int32_t *slots; /* on the host */
    int64_t num_slots;
} choice;

static int32_t *slots_of(const choice *s, int32_t b, int32_t list, int32_t tile) {
    const sac_nsa_indices *indices = &s->args.indices;
    const int64_t t = s->c.lens[0] ? s->first_tile[b] + tile : tile;
    return s->slots + b * indices->batch_stride + list * indices->list_stride + t * indices->top_k;
}

/* Ascending blocks up to the tile's own, and -1 behind them. */
static void choose(const choice *s, int32_t b, int32_t list, int32_t tile, test_random *random) {
    int32_t *slots = slots_of(s, b, list, tile), used = 0;
    const int32_t last = sac_min((tile + 1) * s->c.query_tile, s->len[b]) - 1, own = last / s->c.block;
    const int32_t stride = sac_max(1, (own + 1) / s->c.top_k);
    for (int32_t j = s->c.alike ? list : random_below(random, stride); j <= own && used < s->c.top_k;) {
        slots[used++] = j;
        j += s->c.alike && random_below(random, 8) ? stride : 1 + random_below(random, 2 * stride);
    }
    while (used < s->c.top_k) slots[used++] = -1;
}

static void make_choice(choice *s, const choice_case *c) {
    *s = (choice){.c = *c};
    const bool packed = c->lens[0] > 0;
    test_random random = {c->seed};
    sac_nsa_args *args = &s->args;
    *args = (sac_nsa_args){.batch = c->batch,
                           .num_lists = c->num_lists,
                           .heads_per_list = c->heads_per_list,
                           .query_tile = c->query_tile,
                           .block = c->block,
                           .indices.top_k = c->top_k};
    for (int32_t b = 0; b < c->batch; b++) {
        s->len[b] = packed ? c->lens[b] : c->seqlen;
        s->tiles[b] = sac_ceil_div(s->len[b], c->query_tile);
        s->first_tile[b + 1] = s->first_tile[b] + s->tiles[b];
        args->len.seqlen = sac_max(args->len.seqlen, s->len[b]);
        args->max_tiles = sac_max(args->max_tiles, s->tiles[b]);
        args->rows += s->len[b];
    }
    args->tiles = packed ? args->rows / c->query_tile + c->batch : (int64_t)c->batch * args->max_tiles;
    args->indices.list_stride = (packed ? args->tiles : args->max_tiles) * c->top_k;
    args->indices.batch_stride = packed ? 0 : c->num_lists * args->indices.list_stride;
    s->num_slots = args->tiles * c->num_lists * c->top_k;
    s->slots = allocated(s->num_slots, sizeof *s->slots);
    for (int32_t b = 0; b < c->batch; b++)
        for (int32_t list = 0; list < c->num_lists; list++)
            for (int32_t tile = 0; tile < s->tiles[b]; tile++) choose(s, b, list, tile, &random);
    if (packed) args->cu_tiles = test_device_copy(gpu, s->first_tile, sizeof s->first_tile);
    args->indices.data = test_device_copy(gpu, s->slots, (size_t)s->num_slots * sizeof *s->slots);
}

static void free_choice(choice *s) {
    if (s->args.cu_tiles) gpu->free((void *)(uintptr_t)s->args.cu_tiles);
    gpu->free(s->args.indices.data);
    free(s->slots);
}

/* The parts of a block row that list the block; those without queries count in. 0: nobody does. */
static uint32_t bits_of(const choice *s, const sac_block_mask_args *blocks, int32_t b, int32_t list,
                        int32_t row, int32_t block) {
    const int32_t tiles_a_row = blocks->q_block / s->c.query_tile;
    uint32_t bits = 0, absent = 0;
    for (int32_t part = 0; part < 32; part++) {
        const int32_t tile = row * tiles_a_row + part;
        if (part >= tiles_a_row || tile >= s->tiles[b]) {
            absent |= 1u << part;
            continue;
        }
        const int32_t *slots = slots_of(s, b, list, tile);
        for (int32_t i = 0; i < s->c.top_k && slots[i] >= 0; i++)
            if (slots[i] == block) bits |= 1u << part;
    }
    return bits ? bits | absent : 0;
}

/* ---- the lists ---- */

typedef struct lists {
    sac_block_mask_args blocks;
    void *memory;
} lists;

static lists make_lists(const choice *s) {
    const sac_nsa_job job = {.ctx = ctx, .device = gpu->device, .args = s->args};
    lists l;
    const size_t bytes = sac_nsa_cuda_lay_out_lists(&job, SAC_NSA_SLC, true, (void *)256, &l.blocks);
    char *poison = allocated((int64_t)bytes, 1);
    memset(poison, 0xa5, bytes);
    l.memory = test_device_copy(gpu, poison, bytes);
    free(poison);
    sac_nsa_cuda_lay_out_lists(&job, SAC_NSA_SLC, true, l.memory, &l.blocks);
    must(sac_nsa_cuda_make_lists(&job, SAC_NSA_SLC, true, l.memory));
    return l;
}

/* One direction of the lists, in host memory. */
typedef struct downloaded {
    int64_t *offsets;
    int32_t *entries;
    uint32_t *bits; /* NULL: there are none */
} downloaded;

static downloaded download(const sac_block_list *list, int64_t rows) {
    downloaded d = {.offsets = allocated(rows + 1, sizeof *d.offsets)};
    gpu->download(d.offsets, list->offsets, (size_t)(rows + 1) * sizeof *d.offsets);
    d.entries = allocated(d.offsets[rows], sizeof *d.entries);
    gpu->download(d.entries, list->entries, (size_t)d.offsets[rows] * sizeof *d.entries);
    if (!list->bits) return d;
    d.bits = allocated(d.offsets[rows], sizeof *d.bits);
    gpu->download(d.bits, list->bits, (size_t)d.offsets[rows] * sizeof *d.bits);
    return d;
}

static void free_downloaded(downloaded *d) {
    free(d->offsets);
    free(d->entries);
    free(d->bits);
}

/* The next entry must be this one. */
static void expect_entry(const choice *s, const char *side, const downloaded *d, int64_t row, int64_t *at,
                         int32_t index, uint32_t bits) {
    const bool there = *at < d->offsets[row + 1];
    const uint32_t found = there && d->bits ? d->bits[*at] : SAC_ALL_PARTS;
    if (!there || d->entries[*at] != SAC_ENTRY(index, SAC_FULL) || found != (d->bits ? bits : SAC_ALL_PARTS))
        fail_msg(
            "seed %llu, tile %d, top %d: %s %lld, place %lld has %#x with bits %#x, expected %#x with %#x",
            (unsigned long long)s->c.seed, s->c.query_tile, s->c.top_k, side, (long long)row,
            (long long)(*at - d->offsets[row]), there ? d->entries[*at] : 0, found,
            SAC_ENTRY(index, SAC_FULL), bits);
    ++*at;
}

/* Both directions: `outer` x `inner` is rows x columns, or the other way round. */
static void check_direction(const choice *s, const sac_block_mask_args *blocks, bool by_key) {
    const int32_t outer = by_key ? blocks->num_kv_blocks : blocks->num_q_blocks;
    const int32_t inner = by_key ? blocks->num_q_blocks : blocks->num_kv_blocks;
    const int64_t heads = (int64_t)s->c.batch * s->c.num_lists;
    downloaded d = download(by_key ? &blocks->by_key : &blocks->by_query, heads * outer);
    assert_int_equal(d.offsets[0], 0);
    for (int64_t head = 0; head < heads; head++)
        for (int32_t o = 0; o < outer; o++) {
            const int64_t row = head * outer + o;
            int64_t at = d.offsets[row];
            for (int32_t i = 0; i < inner; i++) {
                const uint32_t bits =
                    bits_of(s, blocks, (int32_t)(head / s->c.num_lists), (int32_t)(head % s->c.num_lists),
                            by_key ? i : o, by_key ? o : i);
                if (bits) expect_entry(s, by_key ? "column" : "row", &d, row, &at, i, bits);
            }
            if (at != d.offsets[row + 1])
                fail_msg("seed %llu: %s %lld has %lld entries too many", (unsigned long long)s->c.seed,
                         by_key ? "column" : "row", (long long)row, (long long)(d.offsets[row + 1] - at));
        }
    free_downloaded(&d);
}

static void verify(const choice_case *c) {
    choice s;
    make_choice(&s, c);
    lists l = make_lists(&s);
    assert_int_equal(l.blocks.by_query.bits != NULL, l.blocks.q_block > c->query_tile);
    for (int by_key = 0; by_key < 2 && test_device_computes(gpu); by_key++)
        check_direction(&s, &l.blocks, by_key);
    gpu->free(l.memory);
    free_choice(&s);
}

/* ---- tests ---- */

static void lists_are_unions_with_a_bit_for_each_tile(void **state) {
    (void)state;
    static const int32_t tiles[] = {1, 3, 16, 32, 33, 256}, heads[] = {1, 4, 16, 5}, top_k[] = {1, 6, 40};
    gpu = test_gpu();
    for (uint64_t i = 0; i < 6 * 4 * 3; i++)
        verify(&(choice_case){.batch = 1 + (int32_t)i % 2,
                              .seqlen = 1 + (int32_t)(i * 131 % 700),
                              .num_lists = 1 + (int32_t)i % 3,
                              .heads_per_list = heads[i / 6 % 4],
                              .query_tile = tiles[i % 6],
                              .block = 1 + (int32_t)i % 16,
                              .top_k = top_k[i / 24],
                              .alike = i % 5 > 1,
                              .seed = i});
}

static void packed_sequences_have_their_own_rows(void **state) {
    (void)state;
    gpu = test_gpu();
    for (uint64_t i = 0; i < 12; i++)
        verify(&(choice_case){.batch = 3,
                              .lens = {1 + (int32_t)i * 37, i % 3 ? 0 : 64, 200},
                              .num_lists = 2,
                              .heads_per_list = 1 << i % 4,
                              .query_tile = i % 2 ? 1 : 16,
                              .block = 8,
                              .top_k = 5,
                              .alike = i % 4 > 1,
                              .seed = i});
}

/* Indices come from the caller, and may be anything: then nothing is listed, and nothing read or written beside. */
static void wrong_indices_list_nothing(void **state) {
    (void)state;
    static const int32_t wrong[][3] = {{0, 1000, -1}, {3, 2, -1}, {2, 2, -1}, {-7, -1, -1}};
    gpu = test_gpu();
    for (int i = 0; i < 4; i++) {
        choice s;
        make_choice(&s, &(choice_case){.batch = 1,
                                       .seqlen = 100,
                                       .num_lists = 2,
                                       .heads_per_list = 4,
                                       .query_tile = 1,
                                       .block = 8,
                                       .top_k = 3,
                                       .seed = 9});
        gpu->upload(s.args.indices.data + 3 * 120, wrong[i], sizeof wrong[i]);
        lists l = make_lists(&s);
        const int64_t rows = 2 * l.blocks.num_q_blocks, columns = 2 * l.blocks.num_kv_blocks;
        downloaded by_query = download(&l.blocks.by_query, rows),
                   by_key = download(&l.blocks.by_key, columns);
        for (int64_t row = 0; row <= rows; row++) assert_int_equal(by_query.offsets[row], 0);
        for (int64_t column = 0; column <= columns; column++) assert_int_equal(by_key.offsets[column], 0);
        free_downloaded(&by_query);
        free_downloaded(&by_key);
        gpu->free(l.memory);
        free_choice(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_unions_with_a_bit_for_each_tile),
        cmocka_unit_test(packed_sequences_have_their_own_rows),
        cmocka_unit_test(wrong_indices_list_nothing),
    };
    return cmocka_run_group_tests(tests, make_context, end_context);
}
