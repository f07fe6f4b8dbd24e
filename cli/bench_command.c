/* bench_command.c - saccade bench: one table of times. */
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "band.h"
#include "command.h"
#include "dtype.h"
#include "options.h"
#include "progress.h"
#include "values.h"
#include "workload.h"

typedef struct bench_options {
    attention_options attention;
    int64_t warm_up, repeats; /* calls; 0: by time */
    bool json;
} bench_options;

enum { KEY_WARM_UP = 0x500, KEY_REPEATS };
enum { MIN_WARM_UP = 2, MIN_REPEATS = 5, MAX_REPEATS = 1000000 };
static const double warm_up_s = 0.2, repeats_s = 1; /* unless counts are given */

static const struct argp_option option_list[] = {
    {"warm-up", KEY_WARM_UP, "N", 0, "Calls before the clock starts (default: 0.2 s, at least 2)", GROUP_RUN},
    {"repeats", KEY_REPEATS, "N", 0, "Calls that are timed (default: 1 s, at least 5)", GROUP_RUN},
    {0}};

static const plain_value values[] = {
    {KEY_WARM_UP, VALUE_INT64, offsetof(bench_options, warm_up), 1, MAX_REPEATS},
    {KEY_REPEATS, VALUE_INT64, offsetof(bench_options, repeats), 1, MAX_REPEATS},
    {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
    bench_options *options = state->input;
    if (key != ARGP_KEY_INIT) return store_value(values, option_list, key, text, state);
    state->child_inputs[0] = &options->attention;
    state->child_inputs[1] = &options->json;
    return 0;
}

/* ---- what the work is ---- */

/* Pairs of one head that causality and window leave, over all sequences. */
static double band_pairs(const workload *work, const input_shape *s) {
    const saccade_attention_params *p = &work->params;
    double pairs = 0;
    for (int64_t b = 0; b < s->batch; b++) {
        int64_t rows = s->seqlen_q, keys = s->seqlen_k;
        if (p->cu_seqlens_q) {
            const int32_t *q = p->cu_seqlens_q->data, *k = p->cu_seqlens_k->data;
            rows = q[b + 1] - q[b];
            keys = k[b + 1] - k[b];
        }
        if (p->seqused_q) rows = ((const int32_t *)p->seqused_q->data)[b];
        if (p->seqused_k) keys = ((const int32_t *)p->seqused_k->data)[b];
        for (int64_t i = 0; i < rows; i++) {
            key_range range = visible_keys(p, i, rows, keys);
            pairs += (double)(range.end - range.begin);
        }
    }
    return pairs;
}

/* Pairs over all heads: the listed blocks where there is a block mask, one key a row in its diagonal ones. */
static double count_pairs(const workload *work, const input_shape *s) {
    double pairs = band_pairs(work, s) * (double)s->num_heads;
    if (!work->block_mask) return pairs;
    saccade_block_mask_info info;
    saccade_block_mask_get_info(work->block_mask, &info);
    double copies = (double)s->batch * (double)s->num_heads / ((double)info.list_batch * info.list_heads);
    double area = (double)(info.full + info.partial) * info.shape.kv_block + (double)info.diagonal;
    area *= copies * info.shape.q_block;
    return area < pairs ? area : pairs;
}

/* Each tensor of the call crosses memory once. */
static double count_bytes(const workload *work, const results *r, bool backward) {
    const DLTensor *tensors[] = {work->q,    work->k,       work->v,       r->tensor[OUT], r->tensor[LSE],
                                 work->dout, r->tensor[DQ], r->tensor[DK], r->tensor[DV]};
    double bytes = 0;
    for (int i = 0; i < (backward ? 9 : 5); i++)
        bytes += (double)tensor_elements(tensors[i]) * (double)dtype_bytes(tensors[i]->dtype);
    return bytes;
}

/* ---- timing ---- */

typedef struct timing {
    double p50, p90; /* seconds */
    int64_t repeats;
} timing;

static int compare_seconds(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static saccade_status time_once(const workload *work, results *r, bool backward, double *elapsed) {
    double begin = seconds_now();
    saccade_status status = backward ? workload_backward(work, r) : workload_forward(work, r);
    *elapsed = seconds_now() - begin;
    return status;
}

static saccade_status time_calls(const workload *work, results *r, bool backward,
                                 const bench_options *options, timing *t) {
    int64_t most = options->repeats ? options->repeats : MAX_REPEATS;
    double *elapsed = allocate(sizeof *elapsed * (size_t)most), total = 0;
    saccade_status status = SACCADE_OK;
    const int64_t ms = (int64_t)(1e3 * repeats_s);
    progress_begin(backward ? "backward" : "forward", options->repeats ? most : ms);
    for (int64_t n = 0; status == SACCADE_OK; n++) {
        if (options->warm_up ? n == options->warm_up : n >= MIN_WARM_UP && total > warm_up_s) break;
        status = time_once(work, r, backward, elapsed);
        total += *elapsed;
    }
    total = 0;
    for (t->repeats = 0; status == SACCADE_OK && t->repeats < most; t->repeats++) {
        if (!options->repeats && t->repeats >= MIN_REPEATS && total > repeats_s) break;
        status = time_once(work, r, backward, &elapsed[t->repeats]);
        total += elapsed[t->repeats];
        progress_to(options->repeats ? t->repeats + 1 : (int64_t)(1e3 * total));
    }
    progress_end();
    if (status == SACCADE_OK) {
        qsort(elapsed, (size_t)t->repeats, sizeof *elapsed, compare_seconds);
        t->p50 = elapsed[t->repeats / 2];
        t->p90 = elapsed[t->repeats * 9 / 10];
    }
    free(elapsed);
    return status;
}

/* ---- the table ---- */

/* The mask's column is as wide as its text, which is the same in every row. */
static void print_header(const attention_options *options) {
    char *mask = mask_text(options);
    printf("%-9s %3s %7s %7s %7s %7s  %-*s %-5s %12s %12s %8s %8s  %s\n", "op", "B", "Nq", "Nk", "H/Hkv", "D",
           (int)strlen(mask), "mask", "dtype", "us p50", "p90", "TFLOP/s", "GB/s", "backend");
    free(mask);
}

static char *pair_text(int64_t a, int64_t b) {
    return a == b ? format_string("%lld", (long long)a)
                  : format_string("%lld/%lld", (long long)a, (long long)b);
}

static json_t *print_row(const workload *work, const bench_options *options, const results *r, bool backward,
                         const timing *t) {
    input_shape s = workload_shape(work);
    /* Multiply-adds count twice; the backward pass has five products where the forward has two. */
    double flop = 2 * count_pairs(work, &s) * (double)(s.head_dim + s.head_dim_v) * (backward ? 2.5 : 1);
    double tflops = t->p50 > 0 ? 1e-12 * flop / t->p50 : 0;
    double gbs = t->p50 > 0 ? 1e-9 * count_bytes(work, r, backward) / t->p50 : 0;
    char *mask = mask_text(&options->attention), *dim = pair_text(s.head_dim, s.head_dim_v);
    char *heads = format_string("%lld/%lld", (long long)s.num_heads, (long long)s.num_kv_heads);
    char *backend = workload_backend(work, backward);
    const char *op = backward ? "attn_bwd" : "attn_fwd", *dtype = dtype_name(work->q->dtype);
    json_t *row = NULL;
    if (options->json)
        row = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:f, s:f, s:I, s:f, s:f, s:s}",
                        "op", op, "batch", s.batch, "seqlen_q", s.seqlen_q, "seqlen_k", s.seqlen_k,
                        "num_heads", s.num_heads, "num_kv_heads", s.num_kv_heads, "head_dim", s.head_dim,
                        "head_dim_v", s.head_dim_v, "mask", mask, "dtype", dtype, "us_p50", 1e6 * t->p50,
                        "us_p90", 1e6 * t->p90, "repeats", t->repeats, "tflops", tflops, "gb_s", gbs,
                        "backend", backend ? backend : "?");
    else
        printf("%-9s %3lld %7lld %7lld %7s %7s  %-4s %-5s %12.1f %12.1f %8.4f %8.2f  %s\n", op,
               (long long)s.batch, (long long)s.seqlen_q, (long long)s.seqlen_k, heads, dim, mask, dtype,
               1e6 * t->p50, 1e6 * t->p90, tflops, gbs, backend ? backend : "?");
    free(mask);
    free(dim);
    free(heads);
    free(backend);
    return row;
}

/* Forward, and with --backward also backward, of one workload. */
static int bench_workload(const workload *work, const bench_options *options, bool first, json_t *rows) {
    results r = results_new(work);
    saccade_status status = SACCADE_OK;
    for (int backward = 0; backward <= (int)work->backward && status == SACCADE_OK; backward++) {
        timing t = {0};
        status = time_calls(work, &r, backward, options, &t);
        if (status != SACCADE_OK) break;
        if (first && !backward && !options->json) print_header(&options->attention);
        json_t *row = print_row(work, options, &r, backward, &t);
        if (row) json_array_append_new(rows, row);
        fflush(stdout);
    }
    results_free(&r);
    return status == SACCADE_OK ? EXIT_OK : complain_status(NULL, status);
}

static int run(bench_options *options) {
    attention_options *attention = &options->attention;
    int count = attention->num_shapes ? attention->num_shapes : 1, code = EXIT_OK;
    json_t *rows = json_array();
    for (int i = 0; i < count && code == EXIT_OK; i++) {
        workload work;
        code = workload_open(&work, attention, attention->num_shapes ? &attention->shapes[i] : NULL);
        if (code == EXIT_OK) code = workload_enter_gpu(&work);
        if (code == EXIT_OK) code = bench_workload(&work, options, i == 0, rows);
        workload_close(&work);
    }
    if (options->json && code == EXIT_OK) {
        json_dumpf(rows, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(rows);
    return code;
}

int bench_command(int argc, char **argv) {
    static const struct argp_child children[] = {
        {&shaped_attention_argp, 0, NULL, 0}, {&json_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "IN\n--shapes=B,Nq,H,Hkv,D",
        .doc = "Times attention, forward and with --backward also backward, and prints one table.\v"
               "FLOP: 2 (D + Dv) for each pair that causality, window and lengths leave, or of the listed "
               "blocks "
               "of --mask; 2.5 times that for the backward pass. GB/s counts each tensor once.",
        .children = children,
    };
    bench_options options = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    int code = run(&options);
    free_sources(&options.attention.sources);
    return code;
}
