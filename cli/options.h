/* options.h - the options that describe an attention computation, shared by four subcommands. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <argp.h>
#include <saccade/attention.h>

#include "chart.h"
#include "modifiers.h"

enum { MAX_SHAPES = 32, MAX_THREADS = 4096 };

/* Of the options in --help, in this order. */
enum { GROUP_INPUT = 1, GROUP_MASK, GROUP_SCORE, GROUP_RUN, GROUP_OUTPUT };

/* Rows of an argp table that every command has which computes attention; the keys are the command's own. */
#define COMPUTATION_OPTIONS                                                                                  \
    {NULL, 0, NULL, 0, "Computation:", GROUP_RUN},                                                           \
        {"backward",                                                                                         \
         KEY_BACKWARD,                                                                                       \
         NULL,                                                                                               \
         0,                                                                                                  \
         "Gradients too, from IN's dout, or of the sum of out where it has none",                            \
         0},                                                                                                 \
        {"deterministic", KEY_DETERMINISTIC, NULL, 0, "Gradients bit-identical from run to run", 0},         \
        {"backend",                                                                                          \
         KEY_BACKEND,                                                                                        \
         "NAME",                                                                                             \
         0,                                                                                                  \
         "Use this backend, or fail with its reasons; cuda: on the first GPU, by the best there",            \
         0},                                                                                                 \
    {                                                                                                        \
        "threads", KEY_THREADS, "N", 0, "CPU threads (default: all)", 0                                      \
    }

/* Of --shapes: random inputs instead of a file. */
typedef struct input_shape {
    int64_t batch, seqlen_q, seqlen_k, num_heads, num_kv_heads, head_dim, head_dim_v;
} input_shape;

typedef struct attention_options {
    const char *input; /* NULL: --shapes */
    input_shape shapes[MAX_SHAPES];
    int num_shapes;
    DLDataType dtype;                /* of --shapes */
    saccade_attention_params params; /* what options alone decide; tensors and modifiers join in workload.c */
    saccade_context_params context;
    modifier_sources sources;
    const char *mask_mod, *score_mod, *score_mod_grad, *mask_spec;
    int64_t block_size[2]; /* 0: not given */
    bool backward;
    bool shapes_allowed, input_optional; /* --shapes may stand for IN; neither is fine too */
} attention_options;

/* A child parser; its input is the attention_options, zeroed, which parse IN too. */
extern const struct argp attention_argp;

/* The same and --shapes, --dtype: IN or shapes. */
extern const struct argp shaped_attention_argp;

/* "causal+window:256,0", "full": what is computed, in a word. The caller frees. */
char *mask_text(const attention_options *options);

/* A child parser for --json; its input is a bool. */
extern const struct argp json_argp;

/* A child parser for --png and --svg; its input is a picture_files. */
extern const struct argp picture_argp;

bool picture_wanted(const picture_files *files);

/* --map, --png and --svg: the head whose attention is drawn, and where to. */
typedef struct map_options {
    int64_t head[2]; /* batch entry and head; -1: nothing is drawn */
    picture_files files;
} map_options;

/* Whether any of the three was given; that they go together is checked after all else. */
bool map_asked_for(const map_options *options);

/* A child parser; its input is a map_options. */
extern const struct argp map_argp;

/* "N,M" into block_size and "NAME=X" to the sources, or an argp error. */
void parse_block_size(struct argp_state *state, const char *text, int64_t block_size[2]);
void parse_scalar(struct argp_state *state, const char *text, modifier_sources *sources);

#endif
