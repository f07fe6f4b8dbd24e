/* attention_map.c - the probabilities of attention, coarsely, by attention itself.
 *
 * out = P v, and P is what we want to see. So v becomes the indicator of columns of keys: v[j][c] = 1 where key j lies
 * in column c, else 0. Then out[i][c] is the mass that query i puts into column c, whatever masks, modifiers, lengths
 * and sinks took part, and no P is ever held. head_dim_v allows so many columns a call.
 */
#include "attention_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chart.h"
#include "command.h"
#include "dtype.h"
#include "progress.h"

enum { COLUMNS_A_CALL = 256, MAX_CELLS = 512 };

/* Dark to light, so that the brightest spot is where most attention goes; lightness rises all the way. */
static const colour ramp[] = {0x0d1321, 0x1f2a63, 0x553089, 0x9a3585, 0xd9506c, 0xf68b52, 0xfcc65b, 0xfdf6d2};
static const colour unseen = 0xf1f3f6;
static const double low_mass = 1e-4; /* the dark end of the scale, which is logarithmic; the other end is 1 */

typedef struct map {
    int64_t q_len, kv_len;
    int rows, columns; /* cells */
    double *mass;      /* (rows, columns): mean over the cell's queries */
} map;

static colour ramp_colour(double part) {
    const int last = (int)(sizeof ramp / sizeof *ramp) - 1;
    double at = fmin(fmax(part, 0), 1) * last;
    int i = (int)fmin(at, last - 1);
    return colour_mix(ramp[i], ramp[i + 1], at - i);
}

static int64_t cell_of(int64_t token, int64_t tokens, int cells) { return token * cells / tokens; }

/* v for columns [first, first + COLUMNS_A_CALL): rows of zeros with at most one 1. */
static DLTensor *indicator(const workload *work, const map *m, int first) {
    int64_t shape[4];
    int ndim = work->v->ndim;
    for (int d = 0; d < ndim; d++) shape[d] = work->v->shape[d];
    shape[ndim - 1] = COLUMNS_A_CALL;
    DLTensor *v = tensor_new(work->v->dtype, ndim, shape);
    int64_t heads = shape[ndim - 2], rows = (int64_t)tensor_elements(v) / (heads * COLUMNS_A_CALL);
    size_t bytes = dtype_bytes(v->dtype);
    float one = 1;
    for (int64_t row = 0; row < rows; row++) {
        int64_t column = cell_of(row % m->kv_len, m->kv_len, m->columns) - first;
        if (column < 0 || column >= COLUMNS_A_CALL) continue;
        for (int64_t h = 0; h < heads; h++) {
            int64_t at = (row * heads + h) * COLUMNS_A_CALL + column;
            dtype_store(v->dtype, &one, 1, (char *)v->data + (size_t)at * bytes);
        }
    }
    return v;
}

/* Adds the queries' masses to their cells. out is (B, Nq, H, COLUMNS_A_CALL) or packed. */
static void gather(map *m, const DLTensor *out, int64_t batch, int64_t head, int first) {
    int64_t heads = out->shape[out->ndim - 2];
    int columns = m->columns - first < COLUMNS_A_CALL ? m->columns - first : COLUMNS_A_CALL;
    for (int64_t i = 0; i < m->q_len; i++) {
        int64_t cell = cell_of(i, m->q_len, m->rows), row = (batch * m->q_len + i) * heads + head;
        for (int c = 0; c < columns; c++)
            m->mass[cell * m->columns + first + c] +=
                dtype_value(out->dtype, out->data, (size_t)(row * COLUMNS_A_CALL + c));
    }
}

static void divide_by_queries(map *m) {
    for (int r = 0; r < m->rows; r++) {
        int64_t begin = (r * m->q_len + m->rows - 1) / m->rows;
        int64_t end = ((r + 1) * m->q_len + m->rows - 1) / m->rows;
        for (int c = 0; c < m->columns; c++) m->mass[(int64_t)r * m->columns + c] /= (double)(end - begin);
    }
}

static saccade_status compute_map(const workload *work, int64_t batch, int64_t head, map *m) {
    saccade_status status = SACCADE_OK;
    m->mass = allocate(sizeof *m->mass * (size_t)m->rows * (size_t)m->columns);
    progress_begin("map", m->columns);
    for (int first = 0; first < m->columns && status == SACCADE_OK; first += COLUMNS_A_CALL) {
        workload mapped = *work;
        mapped.v = indicator(work, m, first);
        mapped.backward = false;
        results r = results_new(&mapped);
        status = workload_forward(&mapped, &r);
        if (status == SACCADE_OK) status = workload_fetch(&r);
        if (status == SACCADE_OK) gather(m, r.tensor[OUT], batch, head, first);
        results_free(&r);
        gpu_forget(work->gpu, mapped.v);
        tensor_free(mapped.v);
        progress_to(first + COLUMNS_A_CALL);
    }
    progress_end();
    divide_by_queries(m);
    return status;
}

static void paint(const map *m, chart *c) {
    chart_raster(m->q_len, m->kv_len, &c->width, &c->height);
    c->pixels = allocate(sizeof *c->pixels * (size_t)c->width * (size_t)c->height);
    for (int y = 0; y < c->height; y++)
        for (int x = 0; x < c->width; x++) {
            int64_t row = cell_of(y, c->height, m->rows), column = cell_of(x, c->width, m->columns);
            double mass = m->mass[row * m->columns + column];
            c->pixels[(int64_t)y * c->width + x] =
                mass > 0 ? ramp_colour(1 - log(fmin(mass, 1)) / log(low_mass)) : unseen;
        }
}

static bool draw(const workload *work, const map *m, int64_t batch, int64_t head, const char *mask,
                 const picture_files *files) {
    colour bar[CHART_BAR_STEPS];
    for (int i = 0; i < CHART_BAR_STEPS; i++) bar[i] = ramp_colour(i / (CHART_BAR_STEPS - 1.0));
    char *title =
        work->q->ndim == 4 && work->q->shape[0] > 1
            ? format_string("Attention of head %lld, batch entry %lld", (long long)head, (long long)batch)
            : format_string("Attention of head %lld", (long long)head);
    char *subtitle = format_string(
        "%s: %lld queries, %lld keys, head_dim %lld, %s, %s", work->file->path, (long long)m->q_len,
        (long long)m->kv_len, (long long)work->q->shape[work->q->ndim - 1], dtype_name(work->q->dtype), mask);
    char *label = format_string("probability that a query puts on %.3g keys", (double)m->kv_len / m->columns);
    chart c = {.title = title,
               .subtitle = subtitle,
               .q_len = m->q_len,
               .kv_len = m->kv_len,
               .bar = bar,
               .bar_low = "0.0001 or less",
               .bar_middle = "0.01",
               .bar_high = "1",
               .bar_label = label};
    paint(m, &c);
    bool good = chart_write(&c, files);
    free(c.pixels);
    free(title);
    free(subtitle);
    free(label);
    return good;
}

int draw_attention_map(const workload *work, int64_t batch, int64_t head, const char *mask,
                       const picture_files *files) {
    int first = work->q->ndim - 3; /* of the token dimension */
    int64_t num_batches = first ? work->q->shape[0] : 1, num_heads = work->q->shape[first + 1];
    map m = {.q_len = work->q->shape[first], .kv_len = work->k->shape[first]};
    if (batch >= num_batches || head >= num_heads || !m.q_len || !m.kv_len) {
        complain("--map %lld,%lld: there are %lld batch entries, %lld heads, %lld queries and %lld keys",
                 (long long)batch, (long long)head, (long long)num_batches, (long long)num_heads,
                 (long long)m.q_len, (long long)m.kv_len);
        return EXIT_USAGE;
    }
    m.rows = (int)(m.q_len < MAX_CELLS ? m.q_len : MAX_CELLS);
    m.columns = (int)(m.kv_len < MAX_CELLS ? m.kv_len : MAX_CELLS);
    saccade_status status = compute_map(work, batch, head, &m);
    int code = EXIT_OK;
    if (status != SACCADE_OK)
        code = complain_status("map", status);
    else if (!draw(work, &m, batch, head, mask, files))
        code = EXIT_FAILED;
    free(m.mass);
    return code;
}
