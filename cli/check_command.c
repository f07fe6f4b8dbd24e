/* check_command.c - saccade check: is a backend's error within the bound? Exact is the reference backend on the same
 * values in fp64. */
#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "dtype.h"
#include "options.h"
#include "plain_formula.h"
#include "progress.h"
#include "verdict.h"
#include "workload.h"

typedef struct check_options {
    attention_options attention;
    bool json;
} check_options;

/* ---- output ---- */

/* "(2, 0, 17)" of an element. */
static char *index_text(const DLTensor *tensor, size_t element) {
    char *text = copy_string(")");
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        size_t extent = (size_t)tensor->shape[d];
        char *longer = format_string("%s%zu%s", d ? ", " : "(", element % extent, text);
        element /= extent;
        free(text);
        text = longer;
    }
    return text;
}

static void print_text(const char *backend, const verdict *verdicts, int count) {
    printf("%-13s %-7s %12s %12s %12s %8s\n", backend, "", "largest", "error", "bound", "used");
    for (int i = 0; i < count; i++) {
        const verdict *v = &verdicts[i];
        printf("%-13s %-7s %12.3e %12.3e %12.3e %7.0f%% %s\n", v->name, dtype_name(v->tensor->dtype),
               v->largest, v->error, v->bound, v->bound > 0 ? 100 * v->error / v->bound : 0,
               v->good ? "ok" : "FAILED");
    }
    for (int i = 0; i < count; i++) {
        if (verdicts[i].good) continue;
        char *place = index_text(verdicts[i].tensor, verdicts[i].worst);
        printf("%s%s is %.9g, exact is %.9g\n", verdicts[i].name, place, verdicts[i].found,
               verdicts[i].exact);
        free(place);
    }
}

/* JSON has no infinity. */
static json_t *json_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static void print_json(const char *backend, const verdict *verdicts, int count, bool good) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        const verdict *v = &verdicts[i];
        char *place = index_text(v->tensor, v->worst);
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:s, s:o, s:o}", "name",
                                              v->name, "dtype", dtype_name(v->tensor->dtype), "largest",
                                              json_number(v->largest), "error", json_number(v->error),
                                              "plain_error", json_number(v->plain_error), "bound",
                                              json_number(v->bound), "good", v->good, "worst", place, "found",
                                              json_number(v->found), "exact", json_number(v->exact)));
        free(place);
    }
    json_t *root = json_pack("{s:s, s:b, s:o}", "backend", backend, "good", good, "tensors", list);
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

/* ---- the command ---- */

static int compute(const workload *work, results *r, const char *what) {
    progress_begin(what, 0);
    saccade_status status = workload_forward(work, r);
    if (status == SACCADE_OK && work->backward) status = workload_backward(work, r);
    if (status == SACCADE_OK) status = workload_fetch(r);
    progress_end();
    return status == SACCADE_OK ? EXIT_OK : complain_status(what, status);
}

static int compute_exact(const workload *work, results *r) {
    workload exact = workload_converted(work, SACCADE_F64);
    exact.params.backend = "reference";
    *r = results_new(&exact);
    int code = compute(&exact, r, "reference");
    workload_converted_free(&exact);
    return code;
}

/* NaN in every dtype: what the backend does not write cannot look right. */
static void poison(results *r) {
    for (int i = 0; i < MAX_RESULTS; i++)
        if (r->tensor[i])
            memset(r->tensor[i]->data, 0xff,
                   tensor_elements(r->tensor[i]) * dtype_bytes(r->tensor[i]->dtype));
}

static int judge(const workload *work, const check_options *options) {
    results found = results_new(work), plain = results_new(work), exact = {0};
    workload pinned = *work; /* both passes on the backend that serves both */
    char *backend = workload_backend(work, work->backward);
    pinned.params.backend = backend;
    poison(&found);
    int code = backend ? compute(&pinned, &found, backend) : EXIT_USAGE;
    if (code == EXIT_OK) code = compute_exact(work, &exact);
    if (code == EXIT_OK) code = plain_formula(work, &plain);
    if (code == EXIT_OK) {
        verdict verdicts[MAX_RESULTS];
        int count = 0;
        bool good = true;
        for (int i = 0; i < MAX_RESULTS; i++) {
            if (!found.tensor[i] || !tensor_elements(found.tensor[i])) continue;
            verdicts[count] = judge_result(found.name[i], found.tensor[i], plain.tensor[i], exact.tensor[i]);
            good &= verdicts[count++].good;
        }
        if (options->json)
            print_json(backend, verdicts, count, good);
        else
            print_text(backend, verdicts, count);
        code = good ? EXIT_OK : EXIT_FAILED;
    }
    free(backend);
    results_free(&found);
    results_free(&plain);
    results_free(&exact);
    return code;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    check_options *options = state->input;
    (void)text;
    if (key != ARGP_KEY_INIT) return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = &options->attention;
    state->child_inputs[1] = &options->json;
    return 0;
}

int check_command(int argc, char **argv) {
    static const struct argp_child children[] = {
        {&attention_argp, 0, NULL, 0}, {&json_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "IN",
        .doc =
            "Computes attention of IN with a backend and with the fp64 reference, and compares.\v"
            "The bound of each result's largest error is twice that of the plain formula in IN's dtype plus "
            "1e-5 of the largest exact value. Exit status 1 beyond it.",
        .children = children,
    };
    check_options options = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    workload work;
    int code = workload_open(&work, &options.attention, NULL);
    if (code == EXIT_OK) code = workload_enter_gpu(&work);
    if (code == EXIT_OK) code = judge(&work, &options);
    workload_close(&work);
    free_sources(&options.attention.sources);
    return code;
}
