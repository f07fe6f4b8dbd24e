/* backends_command.c - saccade backends: every backend, usable or why not. */
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "options.h"
#include "workload.h"

typedef struct backends_options {
    attention_options attention;
    bool explain, json;
} backends_options;

enum { KEY_EXPLAIN = 0x300, MAX_BACKENDS = 32 };

static const struct argp_option option_list[] = {
    {"explain", KEY_EXPLAIN, NULL, 0, "For this computation: IN or --shapes, and the options below", 0}, {0}};

/* Without --explain: a small call that any backend which works here at all serves. */
static const input_shape plain_shape = {1, 128, 128, 1, 1, 64, 64};

static error_t parse(int key, char *text, struct argp_state *state) {
    backends_options *options = state->input;
    (void)text;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->attention;
        state->child_inputs[1] = &options->json;
        options->attention.input_optional = true;
        return 0;
    case KEY_EXPLAIN:
        options->explain = true;
        return 0;
    case ARGP_KEY_END:
        if (options->explain != (options->attention.input || options->attention.num_shapes))
            argp_error(state, options->explain ? "--explain: IN or --shapes is missing"
                                               : "IN and --shapes: need --explain");
        if (options->attention.num_shapes > 1) argp_error(state, "--shapes: one is enough here");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Backends, usable ones first, as the command lists them. */
typedef struct listing {
    const saccade_backend_entry *entries[MAX_BACKENDS];
    int count;
} listing;

static const saccade_backend_entry *find(const saccade_backend_report *report, const char *name) {
    for (int32_t i = 0; i < report->num_backends; i++)
        if (!strcmp(report->backends[i].name, name)) return &report->backends[i];
    return NULL;
}

/* A backend reads host memory or a GPU's, so it is shown for the memory that leaves fewer reasons against it; where
 * they are as many, for a GPU's, since nothing hinders a backend of the host in general. */
static listing list_backends(const saccade_backend_report *host, const saccade_backend_report *gpu) {
    listing list = {.count = 0};
    for (int usable = 1; usable >= 0; usable--)
        for (int32_t i = 0; i < host->num_backends && list.count < MAX_BACKENDS; i++) {
            const saccade_backend_entry *entry = &host->backends[i], *other = find(gpu, entry->name);
            if (other && !entry->usable && other->num_reasons <= entry->num_reasons) entry = other;
            if (entry->usable == (bool)usable) list.entries[list.count++] = entry;
        }
    return list;
}

static void print_text(const listing *list) {
    for (int i = 0; i < list->count; i++) {
        const saccade_backend_entry *entry = list->entries[i];
        printf("%-14s %-10s %s\n", entry->name, entry->usable ? "usable" : "not usable", entry->title);
        for (int32_t r = 0; r < entry->num_reasons; r++) printf("%27s%s\n", "- ", entry->reasons[r]);
    }
}

static void print_json(const listing *list) {
    json_t *array = json_array();
    for (int i = 0; i < list->count; i++) {
        const saccade_backend_entry *entry = list->entries[i];
        json_t *reasons = json_array();
        for (int32_t r = 0; r < entry->num_reasons; r++)
            json_array_append_new(reasons, json_string(entry->reasons[r]));
        json_array_append_new(array, json_pack("{s:s, s:s, s:b, s:o}", "name", entry->name, "title",
                                               entry->title, "usable", entry->usable, "reasons", reasons));
    }
    json_dumpf(array, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(array);
}

static bool any_usable(const listing *list, const char *pinned) {
    for (int i = 0; i < list->count; i++)
        if (list->entries[i]->usable && (!pinned || !strcmp(pinned, list->entries[i]->name))) return true;
    return false;
}

/* on_gpu: the tensors lie in a GPU's memory for certain. */
static int explain(const workload *work, bool on_gpu, bool json) {
    int code = EXIT_USAGE;
    saccade_backend_report *host = workload_report(work, work->backward, on_gpu ? kDLCUDA : kDLCPU);
    saccade_backend_report *gpu = NULL;
    if (host) gpu = workload_report(work, work->backward, kDLCUDA);
    if (gpu) {
        listing list = list_backends(host, gpu);
        if (json)
            print_json(&list);
        else
            print_text(&list);
        code = any_usable(&list, work->params.backend) ? EXIT_OK : EXIT_FAILED;
    }
    saccade_backend_report_destroy(host);
    saccade_backend_report_destroy(gpu);
    return code;
}

static int run(backends_options *options) {
    attention_options *attention = &options->attention;
    const input_shape *shape = options->explain ? attention->shapes : &plain_shape;
    const char **pinned = &attention->params.backend;
    const bool any_of_a_gpu = *pinned && !strcmp(*pinned, "cuda");
    if (any_of_a_gpu) *pinned = NULL;
    workload work;
    int code = workload_open_shapes(&work, attention, attention->input ? NULL : shape);
    if (code == EXIT_OK) code = explain(&work, any_of_a_gpu, options->json);
    workload_close(&work);
    return code;
}

int backends_command(int argc, char **argv) {
    static const struct argp_child children[] = {
        {&shaped_attention_argp, 0, NULL, 0}, {&json_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "[--explain IN]",
        .doc = "Lists the backends, best first, and why one cannot be used. With --explain, for the very "
               "computation that the options describe, its tensors in host memory or a GPU's; exit status 1 "
               "when none, or not the one that --backend "
               "names, can serve it.",
        .children = children,
    };
    backends_options options = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    int code = run(&options);
    free_sources(&options.attention.sources);
    return code;
}
