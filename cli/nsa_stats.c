/* nsa_stats.c - one row of dense attention at a time, and who keeps its mass.
 *
 * Rows are whole, so a row costs what dense attention costs; long inputs are judged by queries at even distances.
 */
#include "nsa_stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "chart.h"
#include "command.h"
#include "dtype.h"
#include "progress.h"

enum { MAX_QUERIES = 1024 }; /* a sequence */

/* From the palette of Okabe and Ito. */
static const colour by_blocks = 0x0072b2, by_window = 0xe69f00, by_nobody = 0xb3448b, unseen = 0xf1f3f6;

/* Who keeps a key: bits. */
enum { KEPT_BY_BLOCKS = 1, KEPT_BY_WINDOW = 2 };

typedef struct row {
    float *q, *k;    /* (head_dim) */
    double *mass;    /* of keys 0 to i: they sum to 1 */
    uint8_t *keeper; /* of the same keys */
} row;

static row row_new(const nsa_work *work, int64_t len) {
    size_t head_dim = (size_t)work->dense.q->shape[work->dense.q->ndim - 1];
    return (row){.q = allocate(head_dim * sizeof(float)),
                 .k = allocate(head_dim * sizeof(float)),
                 .mass = allocate((size_t)len * sizeof(double)),
                 .keeper = allocate((size_t)len)};
}

static void row_free(row *r) {
    free(r->q);
    free(r->k);
    free(r->mass);
    free(r->keeper);
}

static void load(const DLTensor *t, int64_t token, int64_t head, float *to) {
    const int64_t heads = t->shape[t->ndim - 2], dim = t->shape[t->ndim - 1];
    const size_t at = (size_t)((token * heads + head) * dim) * dtype_bytes(t->dtype);
    dtype_load(t->dtype, (const char *)t->data + at, (size_t)dim, to);
}

/* The softmax over all keys up to query i. */
static void fill_mass(const nsa_work *work, row *r, const nsa_sequence *s, int64_t head, int64_t i) {
    const DLTensor *q = work->dense.q, *k = work->dense.k;
    const int64_t dim = q->shape[q->ndim - 1], group = q->shape[q->ndim - 2] / k->shape[k->ndim - 2];
    const double scale = work->params.has_scale ? work->params.scale : 1 / sqrt((double)dim);
    double top = -INFINITY, sum = 0;
    load(q, s->row + i, head, r->q);
    for (int64_t j = 0; j <= i; j++) {
        float dot = 0;
        load(k, s->row + j, head / group, r->k);
        for (int64_t d = 0; d < dim; d++) dot += r->q[d] * r->k[d];
        r->mass[j] = scale * dot;
        top = fmax(top, r->mass[j]);
    }
    for (int64_t j = 0; j <= i; j++) sum += r->mass[j] = exp(r->mass[j] - top);
    for (int64_t j = 0; j <= i; j++) r->mass[j] /= sum;
}

static void fill_keepers(const nsa_work *work, row *r, int64_t b, int64_t head, int64_t i) {
    const int32_t *blocks = nsa_work_blocks(work, b, head, i);
    for (int64_t j = 0; j <= i; j++) r->keeper[j] = i - j < work->window ? KEPT_BY_WINDOW : 0;
    for (int64_t n = 0; n < work->top_k && blocks[n] >= 0; n++)
        for (int64_t j = blocks[n] * work->block; j < (blocks[n] + 1) * work->block && j <= i; j++)
            r->keeper[j] |= KEPT_BY_BLOCKS;
}

/* ---- numbers ---- */

typedef struct head_stats {
    double blocks, window, either; /* sums over the rows looked at */
    int64_t rows;
    double error, norm; /* squared */
} head_stats;

static void add_rows(const nsa_work *work, int64_t b, int64_t head, head_stats *stats) {
    const nsa_sequence s = nsa_work_sequence(work, b);
    const int64_t count = s.len < MAX_QUERIES ? s.len : MAX_QUERIES;
    row r = row_new(work, s.len);
    for (int64_t n = 0; n < count; n++) {
        const int64_t i = (n + 1) * s.len / count - 1;
        fill_mass(work, &r, &s, head, i);
        fill_keepers(work, &r, b, head, i);
        for (int64_t j = 0; j <= i; j++) {
            stats->blocks += r.keeper[j] & KEPT_BY_BLOCKS ? r.mass[j] : 0;
            stats->window += r.keeper[j] & KEPT_BY_WINDOW ? r.mass[j] : 0;
            stats->either += r.keeper[j] ? r.mass[j] : 0;
        }
        stats->rows++;
    }
    row_free(&r);
}

static void add_error(const DLTensor *out, const DLTensor *dense, int64_t head, head_stats *stats) {
    const int64_t heads = out->shape[out->ndim - 2], dim = out->shape[out->ndim - 1];
    const int64_t rows = (int64_t)tensor_elements(out) / (heads * dim);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < dim; d++) {
            const size_t at = (size_t)((i * heads + head) * dim + d);
            const double exact = dtype_value(dense->dtype, dense->data, at);
            const double away = dtype_value(out->dtype, out->data, at) - exact;
            stats->error += away * away;
            stats->norm += exact * exact;
        }
}

static void print_line(const char *name, const head_stats *s) {
    const double rows = s->rows ? (double)s->rows : 1;
    printf("%5s  %8.4f  %8.4f  %8.4f  %8.4f\n", name, s->blocks / rows, s->window / rows, s->either / rows,
           s->norm > 0 ? sqrt(s->error / s->norm) : 0);
}

static void add_stats(head_stats *sum, const head_stats *part) {
    sum->blocks += part->blocks;
    sum->window += part->window;
    sum->either += part->either;
    sum->rows += part->rows;
    sum->error += part->error;
    sum->norm += part->norm;
}

int print_nsa_stats(const nsa_work *work) {
    workload forward_only = work->dense;
    forward_only.backward = false;
    results dense = results_new(&forward_only);
    saccade_status status = workload_forward(&forward_only, &dense);
    const int64_t num_heads = work->dense.q->shape[work->dense.q->ndim - 2],
                  sequences = nsa_work_sequences(work);
    head_stats all = {0};
    if (status == SACCADE_OK)
        printf("share of dense attention's softmax mass, and |out - dense| / |dense|%s\n"
               " head  selected    window    either     error\n",
               work->w_gate || work->gates ? "" : ", the three branches with a third each");
    progress_begin("stats", num_heads);
    for (int64_t head = 0; status == SACCADE_OK && head < num_heads; head++) {
        head_stats stats = {0};
        char name[24];
        for (int64_t b = 0; b < sequences; b++) add_rows(work, b, head, &stats);
        add_error(work->result[NSA_OUT], dense.tensor[OUT], head, &stats);
        snprintf(name, sizeof name, "%lld", (long long)head);
        print_line(name, &stats);
        add_stats(&all, &stats);
        progress_to(head + 1);
    }
    progress_end();
    if (status == SACCADE_OK) print_line("all", &all);
    results_free(&dense);
    return status == SACCADE_OK ? EXIT_OK : complain_status("dense attention", status);
}

/* ---- picture ---- */

static const double low_mass = 1e-4; /* the pale end, on a logarithmic scale; the other end is 1 */

static colour keeper_colour(uint8_t keeper, double mass) {
    const colour strong = keeper & KEPT_BY_BLOCKS   ? by_blocks
                          : keeper & KEPT_BY_WINDOW ? by_window
                                                    : by_nobody;
    const double part = mass > 0 ? fmax(0, 1 - log(fmin(mass, 1)) / log(low_mass)) : 0;
    return colour_mix(colour_mix(0xffffff, strong, keeper ? 0.16 : 0.03), strong, part);
}

/* A pixel is one query's mass on the keys that the pixel covers, by whoever keeps the most of it. */
static void paint_row(const row *r, int64_t i, int64_t len, colour *pixels, int width) {
    for (int x = 0; x < width; x++) {
        const int64_t begin = x * len / width, last = (x + 1) * len / width - 1,
                      end = last > begin ? last : begin;
        double mass = 0, most = -1;
        uint8_t keeper = 0;
        pixels[x] = unseen;
        for (int64_t j = begin; j <= end && j <= i; j++) {
            mass += r->mass[j];
            if (r->mass[j] > most) most = r->mass[j], keeper = r->keeper[j];
        }
        if (begin <= i) pixels[x] = keeper_colour(keeper, mass);
    }
}

static void paint(const nsa_work *work, int64_t b, int64_t head, chart *c) {
    const nsa_sequence s = nsa_work_sequence(work, b);
    row r = row_new(work, s.len);
    chart_raster(s.len, s.len, &c->width, &c->height);
    c->pixels = allocate(sizeof *c->pixels * (size_t)c->width * (size_t)c->height);
    progress_begin("picture", c->height);
    for (int y = 0; y < c->height; y++) {
        const int64_t i = y * s.len / c->height;
        fill_mass(work, &r, &s, head, i);
        fill_keepers(work, &r, b, head, i);
        paint_row(&r, i, s.len, c->pixels + (int64_t)y * c->width, c->width);
        progress_to(y + 1);
    }
    progress_end();
    row_free(&r);
}

int draw_nsa_map(const nsa_work *work, int64_t batch, int64_t head, const picture_files *files) {
    const DLTensor *q = work->dense.q;
    const int64_t sequences = nsa_work_sequences(work), num_heads = q->shape[q->ndim - 2];
    if (batch >= sequences || head >= num_heads || !nsa_work_sequence(work, batch).len) {
        complain("--map %lld,%lld: there are %lld sequences and %lld heads, or the sequence is empty",
                 (long long)batch, (long long)head, (long long)sequences, (long long)num_heads);
        return EXIT_USAGE;
    }
    const int64_t len = nsa_work_sequence(work, batch).len;
    char *title = format_string("What native sparse attention keeps of head %lld", (long long)head);
    char *tile = work->query_tile == 1 ? copy_string("query")
                                       : format_string("%lld queries", (long long)work->query_tile);
    char *subtitle = format_string("%s: %lld tokens, the %lld best blocks of %lld for each %s, window %lld",
                                   work->dense.file->path, (long long)len, (long long)work->top_k,
                                   (long long)work->block, tile, (long long)work->window);
    chart c = {.title = title,
               .subtitle = subtitle,
               .q_len = len,
               .kv_len = len,
               .swatches = {{by_blocks, by_blocks, "mass in selected blocks"},
                            {by_window, by_window, "in the window alone"},
                            {by_nobody, by_nobody, "left to the compressed branch"}},
               .num_swatches = 3};
    paint(work, batch, head, &c);
    bool good = chart_write(&c, files);
    free(c.pixels);
    free(title);
    free(tile);
    free(subtitle);
    return good ? EXIT_OK : EXIT_FAILED;
}
