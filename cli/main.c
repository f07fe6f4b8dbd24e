/* main.c - the command `saccade`: picks the subcommand and sees that what it printed has arrived. */
#include <argp.h>
#include <saccade/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

static const struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} subcommands[] = {
    {"attention", attention_command, "compute attention, and its gradients, of the tensors in a file"},
    {"check", check_command, "hold a backend against the fp64 reference"},
    {"bench", bench_command, "time it"},
    {"nsa", nsa_command, "compute native sparse attention, and see what it keeps"},
    {"mask", mask_command, "describe and draw a block mask"},
    {"backends", backends_command, "what can compute here, and why not"},
};

static void print_version(FILE *stream, struct argp_state *state) {
    (void)state;
    fprintf(stream, "saccade %d.%d.%d, library %s\n", SACCADE_VERSION_MAJOR, SACCADE_VERSION_MINOR,
            SACCADE_VERSION_PATCH, saccade_version());
}

/* The list of subcommands, between the usage line and the options. */
static char *help_filter(int key, const char *text, void *input) {
    (void)input;
    if (key != ARGP_KEY_HELP_EXTRA) return (char *)text;
    char *list = copy_string("Commands:\n");
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++) {
        char *longer = format_string("%s  %-11s%s\n", list, subcommands[i].name, subcommands[i].summary);
        free(list);
        list = longer;
    }
    char *whole = format_string(
        "%s\n`saccade COMMAND --help` has the options of each, saccade(1) the whole manual.\n"
        "Exit status: 0 all is well; 1 a check, a computation or a write failed; 2 wrong options or input.",
        list);
    free(list);
    return whole;
}

static int run_subcommand(int argc, char **argv) {
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++) {
        if (strcmp(argv[0], subcommands[i].name)) continue;
        char *name = format_string("saccade %s", subcommands[i].name);
        argv[0] = name;
        int code = subcommands[i].run(argc, argv);
        free(name);
        return code;
    }
    complain("\"%s\" is none of its commands; see `saccade --help`", argv[0]);
    return EXIT_USAGE;
}

/* Options after the first word are the subcommand's. */
static error_t parse(int key, char *text, struct argp_state *state) {
    (void)text;
    switch (key) {
    case ARGP_KEY_ARG:
        *(int *)state->input = run_subcommand(state->argc - state->next + 1, state->argv + state->next - 1);
        state->next = state->argc;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv) {
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "COMMAND [OPTION...]",
        .doc = "Dense, modified, block-sparse and native sparse attention.\v",
        .help_filter = help_filter,
    };
    int code = EXIT_OK;
    argp_program_version_hook = print_version;
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &code);
    if (fflush(stdout) || ferror(stdout)) {
        complain("standard output could not be written");
        return EXIT_FAILED;
    }
    return code;
}
