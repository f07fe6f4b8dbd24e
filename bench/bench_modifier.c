/* bench_modifier.c - what a modifier costs an attention call on the CPU, by who compiled it.
 *
 *     bench_modifier [THREADS]      (default 2)
 *
 * Forward and backward, B 1, H 8, D 64, fp32, full attention, in one process. Each group of rows computes the same
 * thing: first as the call's own option where there is one, else without any modifier, then as a text compiled by
 * the machine's C compiler, then by libtcc. Runs of a group alternate. ratio: p50 to the group's first row.
 * compile: saccade_modifier_compile in a context without a disk cache.
 */
#include <saccade/attention.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "table.h"

enum { H = 8, D = 64, RUNS = 9 };

typedef struct group {
    const char *name, *baseline;
    saccade_modifier_kind kind;
    const char *text, *grad_text;
    float softcap;         /* the baseline's options */
    saccade_causal causal; /* of all rows */
} group;

static const group groups[] = {
    {.name = "softcap 30",
     .baseline = "built in",
     .kind = SACCADE_SCORE_KIND,
     .text = "30.f * tanhf(score / 30.f)",
     .grad_text = "{ float t = tanhf(score / 30.f); return grad * (1.f - t * t); }",
     .softcap = 30},
    {.name = "softcap 30, causal",
     .baseline = "built in",
     .kind = SACCADE_SCORE_KIND,
     .text = "30.f * tanhf(score / 30.f)",
     .grad_text = "{ float t = tanhf(score / 30.f); return grad * (1.f - t * t); }",
     .softcap = 30,
     .causal = SACCADE_CAUSAL_TOP_LEFT},
    {.name = "distance bias",
     .baseline = "no modifier",
     .kind = SACCADE_SCORE_KIND,
     .text = "score - 0.01f * fabsf((float)(q_idx - kv_idx))",
     .grad_text = "grad"},
    {.name = "prefix mask",
     .baseline = "no modifier",
     .kind = SACCADE_MASK_KIND,
     .text = "kv_idx < 100 || q_idx >= kv_idx"},
};

typedef struct tensors {
    DLTensor *q, *k, *v, *out, *lse, *dq, *dk, *dv;
} tensors;

/* One row of a group: NULL compiler is the baseline. */
typedef struct row {
    const char *how;
    saccade_context *ctx;
    saccade_modifier *modifier;
    saccade_attention_params params;
    double compile_ms, ms[2][RUNS]; /* forward, backward */
} row;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void check(saccade_status status) {
    if (status == SACCADE_OK) return;
    fprintf(stderr, "%s\n", saccade_last_error());
    exit(EXIT_FAILURE);
}

static row make_row(const group *g, const char *compiler, int threads) {
    row r = {.how = compiler ? compiler : g->baseline, .params = {.backend = "cpu", .causal = g->causal}};
    saccade_context_params context = {.num_threads = threads, .cache_dir = "", .compiler = compiler};
    check(saccade_context_create(&r.ctx, &context));
    if (!compiler) {
        r.params.softcap = g->softcap;
        return r;
    }
    saccade_modifier_params description = {.kind = g->kind, .text = g->text, .grad_text = g->grad_text};
    check(saccade_modifier_create(r.ctx, &r.modifier, &description));
    double start = now_ms();
    check(saccade_modifier_compile(r.ctx, r.modifier));
    r.compile_ms = now_ms() - start;
    saccade_bound_modifier bound = {.modifier = r.modifier};
    if (g->kind == SACCADE_SCORE_KIND)
        r.params.score_mod = bound;
    else
        r.params.mask_mod = bound;
    return r;
}

static void time_once(row *r, const tensors *t, int run) {
    double start = now_ms();
    check(saccade_attention_forward(r->ctx, t->q, t->k, t->v, t->out, t->lse, &r->params));
    r->ms[0][run] = now_ms() - start;
    saccade_attention_grads grads = {.dout = t->v, .dq = t->dq, .dk = t->dk, .dv = t->dv};
    start = now_ms();
    check(saccade_attention_backward(r->ctx, t->q, t->k, t->v, t->out, t->lse, &grads, &r->params));
    r->ms[1][run] = now_ms() - start;
}

static void run_group(const group *g, const tensors *t, int n, int threads) {
    row rows[] = {make_row(g, NULL, threads), make_row(g, "cc", threads), make_row(g, "libtcc", threads)};
    enum { NUM_ROWS = sizeof rows / sizeof *rows };
    for (int i = 0; i < NUM_ROWS; i++) time_once(&rows[i], t, 0); /* starts the threads */
    for (int run = 0; run < RUNS; run++)
        for (int i = 0; i < NUM_ROWS; i++) time_once(&rows[i], t, run);
    for (int i = 0; i < NUM_ROWS; i++)
        for (int pass = 0; pass < 2; pass++) qsort(rows[i].ms[pass], RUNS, sizeof(double), compare_times);
    for (int i = 0; i < NUM_ROWS; i++) {
        const double *forward = rows[i].ms[0], *backward = rows[i].ms[1];
        printf("%-19s %6d %-12s %8.1f %9.2f %9.2f %6.2f %9.2f %9.2f %6.2f\n", g->name, n, rows[i].how,
               rows[i].compile_ms, forward[RUNS / 2], forward[RUNS * 9 / 10],
               forward[RUNS / 2] / rows[0].ms[0][RUNS / 2], backward[RUNS / 2], backward[RUNS * 9 / 10],
               backward[RUNS / 2] / rows[0].ms[1][RUNS / 2]);
        saccade_modifier_destroy(rows[i].modifier);
        saccade_context_destroy(rows[i].ctx);
    }
}

/* Random values, or room for results. */
static float *numbers(size_t count) {
    float *x = malloc(count * sizeof *x);
    if (!x) check(SACCADE_OUT_OF_MEMORY);
    for (size_t i = 0; i < count; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return x;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    static const int lengths[] = {1024, 4096};
    print_machine(threads);
    printf("%-19s %6s %-12s %8s %9s %9s %6s %9s %9s %6s\n", "modifier", "N", "by", "compile", "fwd ms", "p90",
           "ratio", "bwd ms", "p90", "ratio");
    for (int l = 0; l < 2; l++) {
        int n = lengths[l];
        size_t count = (size_t)n * H * D;
        float *x[7], *lse = numbers((size_t)n * H);
        for (int i = 0; i < 7; i++) x[i] = numbers(count);
#define TENSOR(i) SACCADE_TENSOR(x[i], SACCADE_F32, 1, n, H, D)
        tensors t = {TENSOR(0), TENSOR(1), TENSOR(2), TENSOR(3), SACCADE_TENSOR(lse, SACCADE_F32, 1, H, n),
                     TENSOR(4), TENSOR(5), TENSOR(6)};
        for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) run_group(&groups[i], &t, n, threads);
        for (int i = 0; i < 7; i++) free(x[i]);
        free(lse);
    }
    return EXIT_SUCCESS;
}
