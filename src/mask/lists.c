/* lists.c - pieces to lists, and lists to their transpose by counting sort. */
#include "mask/lists.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/context.h"
#include "base/error.h"
#include "mask/buffer.h"

void sac_list_run(sac_entry_list *list, int32_t begin, int32_t end, int32_t kind) {
    if (begin >= end || list->out_of_memory) return;
    int64_t needed = list->count + (end - begin);
    if (list->counts_only) {
        list->count = needed;
        return;
    }
    if (needed > list->capacity) {
        int64_t capacity = needed + needed / 2 + 64;
        int32_t *entries = realloc(list->entries, (size_t)capacity * sizeof *entries);
        list->out_of_memory = !entries;
        if (!entries) return;
        list->entries = entries;
        list->capacity = capacity;
    }
    int32_t *to = list->entries + list->count;
    for (int32_t i = begin; i < end; i++) *to++ = SAC_ENTRY(i, kind);
    list->count = needed;
}

void sac_list_block_row(sac_entry_list *list, const sac_block_row *row) {
    sac_list_run(list, row->begin, row->full_begin, SACCADE_PARTIAL);
    sac_list_run(list, row->full_begin, row->full_end, SACCADE_FULL);
    sac_list_run(list, row->full_end, row->end, SACCADE_PARTIAL);
    for (int32_t round = 1; round <= row->rounds; round++)
        sac_list_run(list, round * row->round_blocks + row->diagonal_begin,
                     round * row->round_blocks + row->diagonal_end, row->diagonal_kind);
}

/* Where a piece's entries were put while listing: in whose list, and where in it. */
typedef struct piece_result {
    int64_t begin, count;
    int64_t target; /* in row_entries */
    int32_t owner;  /* thread */
} piece_result;

typedef struct listing {
    saccade_block_mask *mask;
    const sac_lister *lister;
    int64_t num_pieces;
    int32_t splits; /* pieces a block row */
    piece_result *pieces;
    int status; /* of the first piece that failed */
} listing;

static sac_mask_piece piece_at(const listing *job, int64_t index) {
    const saccade_block_mask *mask = job->mask;
    int64_t row = index / job->splits, part = index % job->splits, head = row / mask->num_q_blocks;
    return (sac_mask_piece){
        .b = (int32_t)(head / mask->list_heads),
        .h = (int32_t)(head % mask->list_heads),
        .row = (int32_t)(row % mask->num_q_blocks),
        .begin = (int32_t)(part * mask->num_kv_blocks / job->splits),
        .end = (int32_t)((part + 1) * mask->num_kv_blocks / job->splits),
    };
}

static int list_piece(const listing *job, int64_t index, sac_entry_list *list) {
    sac_mask_piece piece = piece_at(job, index);
    piece_result *result = &job->pieces[index];
    *result = (piece_result){.begin = list->count, .owner = omp_get_thread_num()};
    saccade_status status = job->lister->list(job->lister->rule, &piece, list);
    result->count = list->count - result->begin;
    return status == SACCADE_OK && list->out_of_memory ? SACCADE_OUT_OF_MEMORY : status;
}

/* Offsets, and where each piece goes. */
static int place_pieces(const listing *job) {
    saccade_block_mask *mask = job->mask;
    int64_t total = 0;
    for (int64_t i = 0; i < job->num_pieces; i++) {
        if (i % job->splits == 0) mask->row_offsets[i / job->splits] = total;
        job->pieces[i].target = total;
        total += job->pieces[i].count;
    }
    mask->row_offsets[job->num_pieces / job->splits] = total;
    mask->row_entries = sac_buffer_new((size_t)total * sizeof *mask->row_entries);
    return mask->row_entries ? SACCADE_OK : SACCADE_OUT_OF_MEMORY;
}

static void run_listing(listing *job, int32_t threads) {
    int32_t **entries = &job->mask->row_entries;
#pragma omp parallel num_threads(threads)
    {
        sac_entry_list list = {0};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < job->num_pieces; i++) {
            int status;
#pragma omp atomic read
            status = job->status;
            if (status == SACCADE_OK) status = list_piece(job, i, &list);
            if (status != SACCADE_OK) {
#pragma omp atomic write
                job->status = status;
            }
        }
#pragma omp single
        if (job->status == SACCADE_OK) job->status = place_pieces(job);
        for (int64_t i = 0; job->status == SACCADE_OK && i < job->num_pieces; i++) {
            const piece_result *piece = &job->pieces[i];
            if (piece->owner == omp_get_thread_num() && piece->count)
                memcpy(*entries + piece->target, list.entries + piece->begin,
                       (size_t)piece->count * sizeof **entries);
        }
        free(list.entries);
    }
}

/* One head: columns are counted, each gets its place, and rows are dealt out in ascending order, which keeps each
 * column ascending. end[c] is first column c's count, then its next free place, and so at last where it ends. */
static void transpose_head(saccade_block_mask *mask, int64_t head) {
    int32_t rows = mask->num_q_blocks, columns = mask->num_kv_blocks;
    const int64_t *offsets = mask->row_offsets + head * rows;
    int64_t *end = mask->col_offsets + head * columns + 1;
    memset(end, 0, (size_t)columns * sizeof *end);
    for (int64_t i = offsets[0]; i < offsets[rows]; i++) end[SAC_ENTRY_INDEX(mask->row_entries[i])]++;
    for (int64_t c = 0, at = offsets[0]; c < columns; c++) {
        int64_t count = end[c];
        end[c] = at;
        at += count;
    }
    for (int32_t row = 0; row < rows; row++)
        for (int64_t i = offsets[row]; i < offsets[row + 1]; i++) {
            int32_t entry = mask->row_entries[i];
            mask->col_entries[end[SAC_ENTRY_INDEX(entry)]++] = SAC_ENTRY(row, SAC_ENTRY_KIND(entry));
        }
}

static saccade_status transpose(saccade_context *ctx, saccade_block_mask *mask) {
    int64_t heads = (int64_t)mask->list_batch * mask->list_heads;
    int64_t total = mask->row_offsets[heads * mask->num_q_blocks];
    mask->col_offsets = sac_buffer_new((size_t)(heads * mask->num_kv_blocks + 1) * sizeof *mask->col_offsets);
    mask->col_entries = sac_buffer_new((size_t)total * sizeof *mask->col_entries);
    if (!mask->col_offsets || !mask->col_entries)
        return sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for the transpose of %lld blocks",
                        (long long)total);
    mask->col_offsets[0] = 0;
#pragma omp parallel for num_threads(ctx->num_threads) if (heads > 1)
    for (int64_t head = 0; head < heads; head++) transpose_head(mask, head);
    return SACCADE_OK;
}

static void count_kinds(saccade_block_mask *mask, int64_t num_entries) {
    memset(mask->count, 0, sizeof mask->count);
    for (int64_t i = 0; i < num_entries; i++) mask->count[SAC_ENTRY_KIND(mask->row_entries[i])]++;
    if (mask->count[SACCADE_DIAGONAL] == 0) mask->period = 0;
}

static void find_diagonals(saccade_block_mask *mask, int64_t num_entries) {
    mask->diagonals_from = mask->period ? 0 : mask->num_kv_blocks;
    for (int64_t i = 0; mask->period && i < num_entries; i++)
        if (SAC_ENTRY_KIND(mask->row_entries[i]) != SACCADE_DIAGONAL)
            mask->diagonals_from = sac_max(mask->diagonals_from, SAC_ENTRY_INDEX(mask->row_entries[i]) + 1);
}

/* A few long rows are cut, so that every thread has work. */
static int32_t choose_splits(const saccade_block_mask *mask, int64_t rows, int32_t threads) {
    enum { PIECES_A_THREAD = 8 };
    int64_t wanted = rows ? (int64_t)threads * PIECES_A_THREAD / rows : 1;
    return sac_max(1, (int32_t)(wanted < mask->num_kv_blocks ? wanted : mask->num_kv_blocks));
}

static saccade_status no_memory(const listing *job) {
    return sac_fail(SACCADE_OUT_OF_MEMORY, "no memory for the lists of %lld block rows",
                    (long long)(job->num_pieces / job->splits));
}

/* What fails in a thread has no message. */
static saccade_status list_pieces(listing *job, int32_t threads) {
    job->pieces = malloc((size_t)(job->num_pieces + 1) * sizeof *job->pieces);
    job->status = job->pieces ? SACCADE_OK : SACCADE_OUT_OF_MEMORY;
    if (job->pieces) run_listing(job, threads);
    free(job->pieces);
    return job->status == SACCADE_OUT_OF_MEMORY ? no_memory(job) : (saccade_status)job->status;
}

/* ---- arithmetic rows ---- */

/* Of the lists by query and by key of so many blocks. Linux promises memory that it has not got, and ends whoever
 * then uses it. */
static saccade_status check_memory(int64_t blocks) {
    const double gib = 1 << 30, needed = 2.0 * sizeof(int32_t) * (double)blocks / gib;
    const double machine = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / gib;
    if (needed <= machine) return SACCADE_OK;
    return sac_fail(SACCADE_OUT_OF_MEMORY,
                    "%lld listed blocks need %.1f GiB, but this machine has %.1f; larger blocks are fewer",
                    (long long)blocks, needed, machine);
}

static saccade_status list_rows(const listing *job, sac_entry_list *list) {
    int64_t *offsets = job->mask->row_offsets;
    offsets[0] = 0;
    for (int64_t row = 0; row < job->num_pieces; row++) {
        const sac_mask_piece piece = piece_at(job, row);
        const saccade_status status = job->lister->list(job->lister->rule, &piece, list);
        if (status != SACCADE_OK) return status;
        offsets[row + 1] = list->count;
    }
    return SACCADE_OK;
}

static saccade_status list_twice(const listing *job) {
    sac_entry_list list = {.counts_only = true};
    SAC_TRY(list_rows(job, &list));
    SAC_TRY(check_memory(list.count));
    list = (sac_entry_list){.capacity = list.count};
    list.entries = job->mask->row_entries = sac_buffer_new((size_t)list.capacity * sizeof *list.entries);
    return list.entries ? list_rows(job, &list) : no_memory(job);
}
saccade_status sac_mask_list(saccade_context *ctx, saccade_block_mask *mask, const sac_lister *lister) {
    int64_t rows = (int64_t)mask->list_batch * mask->list_heads * mask->num_q_blocks;
    int32_t threads = lister->parallel ? ctx->num_threads : 1;
    int32_t splits = threads > 1 ? choose_splits(mask, rows, threads) : 1;
    listing job = {.mask = mask, .lister = lister, .num_pieces = rows * splits, .splits = splits};
    mask->row_offsets = sac_buffer_new((size_t)(rows + 1) * sizeof *mask->row_offsets);
    if (!mask->row_offsets) return no_memory(&job);
    SAC_TRY(lister->arithmetic ? list_twice(&job) : list_pieces(&job, threads));
    count_kinds(mask, mask->row_offsets[rows]);
    find_diagonals(mask, mask->row_offsets[rows]);
    return transpose(ctx, mask);
}
