/* algebra.c - and, or, not.
 *
 * A row of the result follows the lists of both operands side by side. Where they settle a block's kind, it is
 * settled; where both leave it open, or where an operand's PARTIAL block is cut by the other's finer blocks, the
 * combined mask_mod is asked. So a combination lists exactly what building it from the combined mask_mod would.
 *
 * Operands may differ in block size as long as one's divides the other's along each axis: the result has the finer.
 */
#include "base/error.h"
#include "mask/buffer.h"
#include "mask/classify.h"
#include "mask/lists.h"
#include "mask/stored_blocks.h"
#include "mod/modifier.h"

typedef struct operand {
    const saccade_block_mask *mask; /* NULL: b of NOT */
    int32_t q_ratio, kv_ratio;      /* result blocks in one of its blocks */
} operand;

typedef struct combination {
    saccade_block_mask *result;
    sac_mod_operator op;
    operand a, b;
} combination;

/* One operand's row, read from left to right in columns of the result. */
typedef struct cursor {
    const int32_t *entry, *end;
    int32_t ratio;
    bool cut;      /* its blocks are larger than the result's */
    bool diagonal; /* its DIAGONAL blocks are the result's too */
} cursor;

static cursor cursor_at(const combination *job, const operand *from, const sac_mask_piece *piece) {
    const saccade_block_mask *mask = from->mask;
    if (!mask) return (cursor){.ratio = 1};
    int64_t r = sac_mask_row_index(mask, piece->b, piece->h, piece->row / from->q_ratio);
    return (cursor){.entry = mask->row_entries + mask->row_offsets[r],
                    .end = mask->row_entries + mask->row_offsets[r + 1],
                    .ratio = from->kv_ratio,
                    .cut = from->q_ratio > 1 || from->kv_ratio > 1,
                    .diagonal = mask->period == job->result->period};
}

/* The kind at `column`; *until is brought down to where that ends. */
static int32_t kind_at(cursor *c, int32_t column, int32_t *until) {
    while (c->entry < c->end && (SAC_ENTRY_INDEX(*c->entry) + 1) * (int64_t)c->ratio <= column) c->entry++;
    if (c->entry == c->end) return 0;
    int64_t begin = SAC_ENTRY_INDEX(*c->entry) * (int64_t)c->ratio;
    bool inside = begin <= column;
    int64_t edge = inside ? begin + c->ratio : begin;
    if (edge < *until) *until = (int32_t)edge;
    return inside ? SAC_ENTRY_KIND(*c->entry) : 0;
}

enum { ASK = -1 };

/* A block that one operand alone decides: its own kind, unless that speaks of a larger block. */
static int32_t carried(const cursor *from, int32_t kind) {
    if (kind == 0 || kind == SACCADE_FULL) return kind;
    if (from->cut) return ASK;
    return kind == SACCADE_DIAGONAL && !from->diagonal ? SACCADE_PARTIAL : kind;
}

static int32_t combined_kind(sac_mod_operator op, const cursor *a, int32_t kind_a, const cursor *b,
                             int32_t kind_b) {
    if (op == SAC_MOD_NOT) return kind_a == 0 ? SACCADE_FULL : kind_a == SACCADE_FULL ? 0 : SACCADE_PARTIAL;
    int32_t decisive = op == SAC_MOD_AND ? 0 : SACCADE_FULL, neutral = op == SAC_MOD_AND ? SACCADE_FULL : 0;
    if (kind_a == decisive || kind_b == decisive) return decisive;
    if (kind_a == neutral) return carried(b, kind_b);
    if (kind_b == neutral) return carried(a, kind_a);
    return ASK;
}

/* May an asked block that turned out PARTIAL be called DIAGONAL? Under AND one operand's diagonal is enough; under
 * OR all that either contributes must lie on it. */
static bool stays_diagonal(sac_mod_operator op, const cursor *a, int32_t kind_a, const cursor *b,
                           int32_t kind_b) {
    bool on_a = kind_a == SACCADE_DIAGONAL && a->diagonal, on_b = kind_b == SACCADE_DIAGONAL && b->diagonal;
    if (op == SAC_MOD_AND) return on_a || on_b;
    return (on_a || kind_a == 0) && (on_b || kind_b == 0);
}

static saccade_status list_combination(const void *rule, const sac_mask_piece *piece, sac_entry_list *list) {
    const combination *job = rule;
    const saccade_block_mask *result = job->result;
    cursor a = cursor_at(job, &job->a, piece), b = cursor_at(job, &job->b, piece);
    sac_range q = sac_mask_queries(result, piece->row);
    for (int32_t column = piece->begin, until; column < piece->end; column = until) {
        int32_t until_a = piece->end, until_b = piece->end;
        int32_t kind_a = kind_at(&a, column, &until_a), kind_b = kind_at(&b, column, &until_b);
        int32_t kind = combined_kind(job->op, &a, kind_a, &b, kind_b);
        until = sac_min(until_a, until_b);
        /* What one operand of an AND does not list, the other need not be read for. */
        if (job->op == SAC_MOD_AND && kind_a == 0) until = until_a;
        if (job->op == SAC_MOD_AND && kind_b == 0) until = sac_max(until, until_b);
        if (kind > 0) sac_list_run(list, column, until, kind);
        for (int32_t c = column; kind == ASK && c < until; c++) {
            int32_t found = sac_mask_classify(result, piece->b, piece->h, q, sac_mask_keys(result, c));
            if (found == SACCADE_PARTIAL && stays_diagonal(job->op, &a, kind_a, &b, kind_b))
                found = SACCADE_DIAGONAL;
            if (found) sac_list_run(list, c, c + 1, found);
        }
    }
    return SACCADE_OK;
}

/* ---- two shapes into one ---- */

static saccade_status match_broadcast(const char *what, int32_t a, int32_t b, int32_t *result) {
    if (a != b && a != 1 && b != 1)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "a, b: %s is %d and %d, but must agree or be 1", what, a,
                        b);
    *result = sac_max(a, b);
    return SACCADE_OK;
}

static saccade_status match_block(const char *what, int32_t a, int32_t b, int32_t *result) {
    if (a % b && b % a)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "a, b: %s is %d and %d, of which neither divides the other",
                        what, a, b);
    *result = sac_min(a, b);
    return SACCADE_OK;
}

static saccade_status match_shapes(const saccade_mask_shape *a, const saccade_mask_shape *b,
                                   saccade_mask_shape *shape) {
    if (a->q_len != b->q_len || a->kv_len != b->kv_len)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "a, b: made for %d x %d and %d x %d tokens, but must agree",
                        a->q_len, a->kv_len, b->q_len, b->kv_len);
    *shape = *a;
    saccade_status status = match_broadcast("batch", a->batch, b->batch, &shape->batch);
    if (status == SACCADE_OK)
        status = match_broadcast("num_heads", a->num_heads, b->num_heads, &shape->num_heads);
    if (status == SACCADE_OK) status = match_block("q_block", a->q_block, b->q_block, &shape->q_block);
    if (status == SACCADE_OK) status = match_block("kv_block", a->kv_block, b->kv_block, &shape->kv_block);
    return status;
}

/* ---- building ---- */

/* The operands' values, a's before b's, as the combined mask_mod reads them. */
static void share_values(saccade_block_mask *result, const saccade_block_mask *from, int32_t aux,
                         int32_t scalar) {
    for (int32_t i = 0; i < from->mask_mod->num_aux; i++) {
        result->aux.tensor[aux + i] = from->aux.tensor[i];
        result->owned[aux + i] = sac_buffer_retain(from->owned[i]);
    }
    for (int32_t i = 0; i < from->mask_mod->num_scalars; i++)
        result->aux.scalar[scalar + i] = from->aux.scalar[i];
}

static operand operand_of(const saccade_block_mask *mask, const saccade_block_mask *result) {
    return (operand){mask, mask->shape.q_block / result->shape.q_block,
                     mask->shape.kv_block / result->shape.kv_block};
}

/* a and b have mask_mods; b is NULL under NOT. */
static saccade_status combine_decided(saccade_context *ctx, saccade_block_mask *result, sac_mod_operator op,
                                      const saccade_block_mask *a, const saccade_block_mask *b) {
    SAC_TRY(sac_modifier_combine(&result->mask_mod, op, a->mask_mod, b ? b->mask_mod : NULL));
    SAC_TRY(sac_modifier_ready(ctx, result->mask_mod, false));
    share_values(result, a, 0, 0);
    if (b) share_values(result, b, a->mask_mod->num_aux, a->mask_mod->num_scalars);
    result->list_batch = b ? sac_max(a->list_batch, b->list_batch) : a->list_batch;
    result->list_heads = b ? sac_max(a->list_heads, b->list_heads) : a->list_heads;
    result->period = a->period || !b ? a->period : b->period;
    combination job = {.result = result, .op = op, .a = operand_of(a, result)};
    if (b) job.b = operand_of(b, result);
    const bool asks = op != SAC_MOD_NOT;
    return sac_mask_list(
        ctx, result,
        &(sac_lister){.list = list_combination, .rule = &job, .parallel = asks, .arithmetic = !asks});
}

static saccade_status combine(saccade_context *ctx, saccade_block_mask **result, sac_mod_operator op,
                              const saccade_block_mask *a, const saccade_block_mask *b) {
    saccade_block_mask *decided_a = NULL, *decided_b = NULL, *mask;
    saccade_mask_shape shape;
    if (!a || (!b && op != SAC_MOD_NOT))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", a ? "b" : "a");
    SAC_TRY(sac_mask_on_host(a, "a", "combine"));
    if (b) SAC_TRY(sac_mask_on_host(b, "b", "combine"));
    saccade_status status = match_shapes(&a->shape, b ? &b->shape : &a->shape, &shape);
    if (status == SACCADE_OK) status = sac_mask_decided(ctx, &decided_a, "a", a);
    if (status == SACCADE_OK && b) status = sac_mask_decided(ctx, &decided_b, "b", b);
    if (status == SACCADE_OK) status = sac_mask_new(ctx, &mask, &shape);
    if (status == SACCADE_OK)
        status = sac_mask_finish(result, mask, combine_decided(ctx, mask, op, decided_a, decided_b));
    saccade_block_mask_destroy(decided_a);
    saccade_block_mask_destroy(decided_b);
    return status;
}

saccade_status saccade_block_mask_and(saccade_context *ctx, saccade_block_mask **mask,
                                      const saccade_block_mask *a, const saccade_block_mask *b) {
    return combine(ctx, mask, SAC_MOD_AND, a, b);
}

saccade_status saccade_block_mask_or(saccade_context *ctx, saccade_block_mask **mask,
                                     const saccade_block_mask *a, const saccade_block_mask *b) {
    return combine(ctx, mask, SAC_MOD_OR, a, b);
}

saccade_status saccade_block_mask_not(saccade_context *ctx, saccade_block_mask **mask,
                                      const saccade_block_mask *a) {
    return combine(ctx, mask, SAC_MOD_NOT, a, NULL);
}
