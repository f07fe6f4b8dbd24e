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

enum { KEY_EXPLAIN = 0x300 };

static const struct argp_option option_list[] = {
    {"explain", KEY_EXPLAIN, NULL, 0, "For this computation: IN or --shapes, and the options below", -1},
    {0}};

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

static void print_text(const saccade_backend_report *report) {
    for (int32_t i = 0; i < report->num_backends; i++) {
        const saccade_backend_entry *entry = &report->backends[i];
        printf("%-14s %-10s %s\n", entry->name, entry->usable ? "usable" : "not usable", entry->title);
        for (int32_t r = 0; r < entry->num_reasons; r++) printf("%27s%s\n", "- ", entry->reasons[r]);
    }
}

static void print_json(const saccade_backend_report *report) {
    json_t *list = json_array();
    for (int32_t i = 0; i < report->num_backends; i++) {
        const saccade_backend_entry *entry = &report->backends[i];
        json_t *reasons = json_array();
        for (int32_t r = 0; r < entry->num_reasons; r++)
            json_array_append_new(reasons, json_string(entry->reasons[r]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:o}", "name", entry->name, "title",
                                              entry->title, "usable", entry->usable, "reasons", reasons));
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

static bool any_usable(const saccade_backend_report *report, const char *pinned) {
    for (int32_t i = 0; i < report->num_backends; i++)
        if (report->backends[i].usable && (!pinned || !strcmp(pinned, report->backends[i].name))) return true;
    return false;
}

static int explain(backends_options *options) {
    attention_options *attention = &options->attention;
    const input_shape *shape = options->explain ? attention->shapes : &plain_shape;
    workload work;
    int code = workload_open(&work, attention, attention->input ? NULL : shape);
    saccade_backend_report *report = code == EXIT_OK ? workload_report(&work, work.backward) : NULL;
    if (code == EXIT_OK && !report) code = EXIT_USAGE;
    if (report) {
        if (options->json)
            print_json(report);
        else
            print_text(report);
        if (!any_usable(report, work.params.backend)) code = EXIT_FAILED;
    }
    saccade_backend_report_destroy(report);
    workload_close(&work);
    return code;
}

int backends_command(int argc, char **argv) {
    static const struct argp_child children[] = {
        {&shaped_attention_argp, 0, NULL, 1}, {&json_argp, 0, NULL, 2}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "[--explain IN]",
        .doc =
            "Lists the backends, best first, and why one cannot be used. With --explain, for the very "
            "computation that the options describe; exit status 1 when none, or not the one that --backend "
            "names, can serve it.",
        .children = children,
    };
    backends_options options = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    int code = explain(&options);
    free_sources(&options.attention.sources);
    return code;
}
