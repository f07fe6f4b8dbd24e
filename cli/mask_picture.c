/* mask_picture.c - a block mask as a picture: blocks by kind, and inside the mixed ones the pairs that are seen.
 *
 * Where a pixel is smaller than a pair it has one pair's colour. Where it covers several it blends a few of them, each
 * drawn at random within its share of the pixel: a regular grid of samples would beat with the regular masks and show
 * stripes that are not there.
 */
#include "mask_picture.h"

#include <math.h>
#include <stdlib.h>

#include "command.h"
#include "progress.h"

enum { NUM_KINDS = 4 }; /* 0: not listed */

/* By kind: a pair that is seen, and one that is not. From the palette of Okabe and Ito, which the colour-blind tell
 * apart too; they also differ in lightness. */
static const colour seen_colour[NUM_KINDS] = {
    0xf1f3f6, [SACCADE_PARTIAL] = 0xe69f00, [SACCADE_FULL] = 0x0072b2, [SACCADE_DIAGONAL] = 0xb3448b};
static const colour hidden_colour[NUM_KINDS] = {
    0xf1f3f6, [SACCADE_PARTIAL] = 0xfbe9c3, [SACCADE_FULL] = 0x0072b2, [SACCADE_DIAGONAL] = 0xf3dcea};

typedef struct plane {
    saccade_context *ctx;
    const saccade_block_mask *mask;
    saccade_block_mask_info info;
    int32_t b, h;
    double kv_per_pixel;
    uint8_t *kinds; /* (num_q_blocks, num_kv_blocks), or NULL: too many to keep */
} plane;

static int32_t kind_at(const plane *p, int32_t q_block, int32_t kv_block) {
    if (p->kinds) return p->kinds[(int64_t)q_block * p->info.num_kv_blocks + kv_block];
    return saccade_block_mask_kind(p->mask, p->b, p->h, q_block, kv_block);
}

static void keep_kinds(plane *p) {
    const int64_t most = 16 << 20;
    int64_t columns = p->info.num_kv_blocks, count = columns * p->info.num_q_blocks;
    if (count > most) return;
    p->kinds = allocate((size_t)count);
    for (int64_t i = 0; i < count; i++)
        p->kinds[i] = (uint8_t)saccade_block_mask_kind(p->mask, p->b, p->h, (int32_t)(i / columns),
                                                       (int32_t)(i % columns));
}

/* The key of a diagonal block that this query sees, when it lies within a pixel of kv_idx: a line one token wide
 * would fade where many tokens share a pixel. */
static int32_t snap_to_diagonal(const plane *p, int32_t q_idx, int32_t kv_idx) {
    int32_t period = p->info.period, away = (kv_idx - q_idx) % period;
    if (away < 0) away += period;
    if (away > period / 2) away -= period;
    bool near = away <= p->kv_per_pixel && -away <= p->kv_per_pixel;
    int32_t snapped = kv_idx - away;
    return near && snapped >= 0 && snapped < p->info.shape.kv_len ? snapped : kv_idx;
}

/* What the samples of one pixel met. */
typedef struct tally {
    int listed[NUM_KINDS], seen[NUM_KINDS];
} tally;

static void count_pair(const plane *p, int32_t q_idx, int32_t kv_idx, tally *t) {
    int32_t kind = kind_at(p, q_idx / p->info.shape.q_block, kv_idx / p->info.shape.kv_block);
    bool visible = kind == SACCADE_FULL;
    if (kind == SACCADE_DIAGONAL && p->kv_per_pixel >= 1) kv_idx = snap_to_diagonal(p, q_idx, kv_idx);
    if (kind == SACCADE_DIAGONAL || kind == SACCADE_PARTIAL)
        saccade_block_mask_visible(p->ctx, p->mask, p->b, p->h, q_idx, kv_idx, &visible);
    t->listed[kind]++;
    t->seen[kind] += visible;
}

/* The root lifts thin lines, which a plain mean would wash out, and leaves nothing and everything as they are. */
static colour tally_colour(const tally *t, int samples) {
    double channel[3] = {0};
    for (int kind = 0; kind < NUM_KINDS; kind++) {
        if (!t->listed[kind]) continue;
        double part = sqrt((double)t->seen[kind] / t->listed[kind]);
        colour mixed = colour_mix(hidden_colour[kind], seen_colour[kind], part);
        for (int k = 0; k < 3; k++) channel[k] += (double)t->listed[kind] * (mixed >> (16 - 8 * k) & 255);
    }
    colour mean = 0;
    for (int k = 0; k < 3; k++) mean = mean << 8 | (colour)(channel[k] / samples + 0.5);
    return mean;
}

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* A token of the pixel's share `part` of `parts` along one axis. */
static int32_t pick(int64_t pixel, int64_t pixels, int64_t tokens, int part, int parts, uint32_t *random) {
    double jitter = parts == 1 ? 0.5 : (next_random(random) >> 8) * 0x1p-24;
    double at = ((double)pixel + (part + jitter) / parts) / (double)pixels;
    int64_t token = (int64_t)(at * (double)tokens);
    return (int32_t)(token < tokens ? token : tokens - 1);
}

static void draw_row(const plane *p, chart *c, int y, int parts) {
    uint32_t random = 2463534242u + (uint32_t)y * 7919u;
    for (int x = 0; x < c->width; x++) {
        tally t = {0};
        for (int i = 0; i < parts * parts; i++) {
            int32_t q_idx = pick(y, c->height, c->q_len, i / parts, parts, &random);
            int32_t kv_idx = pick(x, c->width, c->kv_len, i % parts, parts, &random);
            count_pair(p, q_idx, kv_idx, &t);
        }
        c->pixels[(int64_t)y * c->width + x] = tally_colour(&t, parts * parts);
    }
}

static void draw_plane(plane *p, chart *c) {
    chart_raster(c->q_len, c->kv_len, &c->width, &c->height);
    c->pixels = allocate(sizeof *c->pixels * (size_t)c->width * (size_t)c->height);
    int parts = c->q_len > c->height || c->kv_len > c->width ? 4 : 1;
    p->kv_per_pixel = (double)c->kv_len / c->width;
    keep_kinds(p);
    progress_begin("drawing", c->height);
    for (int y = 0; y < c->height; y++) {
        draw_row(p, c, y, parts);
        progress_to(y + 1);
    }
    progress_end();
    free(p->kinds);
}

/* A legend entry for each kind that occurs; the labels are the caller's to free. */
static void add_swatch(chart *c, int32_t kind, const char *name, int64_t count) {
    if (count == 0) return;
    char *label = format_string("%s  %lld", name, (long long)count);
    c->swatches[c->num_swatches++] = (struct chart_swatch){hidden_colour[kind], seen_colour[kind], label};
}

static void add_legend(chart *c, const saccade_block_mask_info *info) {
    int64_t all =
        (int64_t)info->shape.batch * info->shape.num_heads * info->num_q_blocks * info->num_kv_blocks;
    add_swatch(c, SACCADE_FULL, "full", info->full);
    add_swatch(c, SACCADE_PARTIAL, "partial", info->partial);
    add_swatch(c, SACCADE_DIAGONAL, "diagonal", info->diagonal);
    add_swatch(c, 0, "skipped", all - info->full - info->partial - info->diagonal);
}

int draw_mask(saccade_context *ctx, const saccade_block_mask *mask, int32_t b, int32_t h, const char *title,
              const picture_files *files) {
    plane p = {.ctx = ctx, .mask = mask, .b = b, .h = h};
    saccade_block_mask_get_info(mask, &p.info);
    const saccade_mask_shape *shape = &p.info.shape;
    if (shape->q_len == 0 || shape->kv_len == 0) {
        complain("%s: there is nothing to draw in a plane of %d x %d", files->png ? files->png : files->svg,
                 shape->q_len, shape->kv_len);
        return EXIT_USAGE;
    }
    char *subtitle = format_string("%d x %d blocks of %d x %d tokens", p.info.num_q_blocks,
                                   p.info.num_kv_blocks, shape->q_block, shape->kv_block);
    chart c = {.title = title,
               .subtitle = subtitle,
               .q_len = shape->q_len,
               .kv_len = shape->kv_len,
               .q_line = shape->q_block,
               .kv_line = shape->kv_block};
    add_legend(&c, &p.info);
    draw_plane(&p, &c);
    bool good = chart_write(&c, files);
    for (int i = 0; i < c.num_swatches; i++) free((char *)c.swatches[i].label);
    free(c.pixels);
    free(subtitle);
    return good ? EXIT_OK : EXIT_FAILED;
}
