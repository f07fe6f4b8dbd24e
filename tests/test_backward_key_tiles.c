/* test_backward_key_tiles.c - gradients where tiles of keys are few, odd in number, nearly empty, or seen by other
 * queries than their neighbours. A GPU walks the queries of 128 keys at a time, and may have neighbours join what they
 * add to dq: each tile's part counts once, whatever of its neighbour there is. */
#include <stdio.h>

#include "support/attention_suite.h"

/* Queries, keys. */
static const int32_t lengths[][2] = {
    {100, 128}, /* one tile */
    {70, 1},    /* one key */
    {150, 129}, /* a second tile of one key */
    {40, 256},  /* two tiles; fewer queries than a tile of them has */
    {1, 385},   /* one query */
    {128, 256}, /* causal top_left: the second tile is seen by nobody, */
    {129, 256}, /* by one query, */
    {257, 512}, /* the third by one and the fourth by nobody */
    {150, 257}, /* an odd number of tiles, the last of one key */
    {260, 640}, /* five */
    {450, 130}, /* causal bottom_right: most queries see nothing */
    {400, 384}, /* the first queries see nothing, the first tile is seen by more than the second */
    {100, 700},
};
static const struct {
    const char *name;
    saccade_causal causal;
} masks[] = {{"no mask", SACCADE_CAUSAL_NONE},
             {"causal top_left", SACCADE_CAUSAL_TOP_LEFT},
             {"causal bottom_right", SACCADE_CAUSAL_BOTTOM_RIGHT}};
static const int32_t dims[][2] = {{128, 128}, {64, 64}, {128, 128}, {192, 128}}; /* two of them for each */
static const int32_t heads[][2] = {{1, 1}, {4, 1}, {2, 2}, {8, 1}, {2, 1}};

/* Windows end in a tile, at its first or last key, or leave some tiles of a query out. */
static const saccade_window windows[] = {
    {true, 0, 0, SACCADE_TOP_LEFT},       {true, 1, 0, SACCADE_TOP_LEFT},
    {true, 63, 0, SACCADE_BOTTOM_RIGHT},  {true, 127, 0, SACCADE_TOP_LEFT},
    {true, 128, 0, SACCADE_BOTTOM_RIGHT}, {true, 129, 0, SACCADE_TOP_LEFT},
    {true, 255, 0, SACCADE_TOP_LEFT},     {true, 256, 0, SACCADE_BOTTOM_RIGHT},
    {true, 300, 30, SACCADE_TOP_LEFT},    {true, -1, 3, SACCADE_BOTTOM_RIGHT},
    {true, 5, -1, SACCADE_TOP_LEFT},      {true, 0, 130, SACCADE_TOP_LEFT},
};

enum { BY_LENGTH = 2 * COUNT_OF(masks) * COUNT_OF(lengths), BY_WINDOW = COUNT_OF(windows) };

#define CAUSAL_TL .causal = SACCADE_CAUSAL_TOP_LEFT
#define CAUSAL_BR .causal = SACCADE_CAUSAL_BOTTOM_RIGHT

/* Four tiles, the last of one key. */
#define FOUR_TILES(what, ...)                                                                                \
    {                                                                                                        \
        .name = what, .seqlen_q = 200, .seqlen_k = 385, .num_heads = 4, .num_kv_heads = 2, .head_dim = 128,  \
        .lse_grad = true, __VA_ARGS__                                                                        \
    }
/* More than an H200 has SMs: whoever has finished a tile goes on with another. */
#define MANY_TILES(what, queries, dim, dim_v, ...)                                                           \
    {                                                                                                        \
        .name = "140 tiles of " #queries " queries, dims " #dim "/" #dim_v ", " what, .batch = 2,            \
        .seqlen_q = queries, .seqlen_k = 520, .num_heads = 14, .num_kv_heads = 14, .head_dim = dim,          \
        .head_dim_v = dim_v, __VA_ARGS__                                                                     \
    }
/* Two of them cut by their queries, for there are so few. */
#define CUT_TILES(what, dim, dim_v, ...)                                                                     \
    {                                                                                                        \
        .name = "two tiles of 1400 queries, dims " #dim "/" #dim_v ", " what, .seqlen_q = 1400,              \
        .seqlen_k = 256, .head_dim = dim, .head_dim_v = dim_v, __VA_ARGS__                                   \
    }

static const attention_case features[] = {
    FOUR_TILES("softcap", .softcap = 3, CAUSAL_BR),
    FOUR_TILES("sink", .sink = true, CAUSAL_TL),
    FOUR_TILES("alibi", .alibi = ALIBI_PER_HEAD, CAUSAL_BR),
    FOUR_TILES("scale -0.2", .scale = -0.2f),
    FOUR_TILES("score_mod relative_bias", .score_mod = &test_relative_bias, CAUSAL_BR),
    FOUR_TILES("score_mod temperature, sink", .score_mod = &test_temperature, .sink = true),
    FOUR_TILES("mask_mod that leaves the first tile nothing", .mask_mod = &test_late_keys),
    FOUR_TILES("mask_mod documents", .mask_mod = &test_documents),
    FOUR_TILES("mask_mod prefix_lm", .mask_mod = &test_prefix_lm),
    FOUR_TILES("mask_mod blind_rows, causal", .mask_mod = &test_blind_rows, CAUSAL_TL),
    FOUR_TILES("scores that rise in every tile", .inputs = INPUTS_RISING),
    FOUR_TILES("scores that jump", .inputs = INPUTS_JUMPING, CAUSAL_BR),
    FOUR_TILES("peaked scores", .inputs = INPUTS_LARGE, CAUSAL_TL),
    FOUR_TILES("deterministic", .deterministic = true, CAUSAL_BR),
    FOUR_TILES("heads first", .layout = LAYOUT_HEADS_FIRST, CAUSAL_TL),
    FOUR_TILES("sequence first", .layout = LAYOUT_SEQUENCE_FIRST),
    FOUR_TILES("interleaved", .layout = LAYOUT_INTERLEAVED, CAUSAL_BR),
    FOUR_TILES("wide rows", .layout = LAYOUT_WIDE),
    FOUR_TILES("one head", .layout = LAYOUT_ONE_HEAD, CAUSAL_TL),
    FOUR_TILES("mixed layouts", .layout = LAYOUT_MIXED),
    FOUR_TILES("lengths used", .batch = 2, .lengths = LENGTHS_USED, .lens_q = {200, 3}, .lens_k = {130, 385}),
    FOUR_TILES("packed", .batch = 2, .lengths = LENGTHS_PACKED, .lens_q = {200, 90}, .lens_k = {385, 129},
               CAUSAL_BR),
    MANY_TILES("no mask", 150, 128, 128, .lse_grad = true),
    MANY_TILES("causal", 40, 128, 128, CAUSAL_TL),
    MANY_TILES("causal bottom_right", 150, 128, 128, CAUSAL_BR),
    MANY_TILES("no mask", 40, 64, 64, .sink = true),
    MANY_TILES("causal", 40, 64, 64, CAUSAL_BR),
    MANY_TILES("no mask", 40, 192, 128, .lse_grad = true),
    MANY_TILES("causal", 40, 192, 128, CAUSAL_BR),
    MANY_TILES("window", 40, 128, 128, .window = {true, 140, 0, SACCADE_BOTTOM_RIGHT}),
    CUT_TILES("no mask", 128, 128, .lse_grad = true),
    CUT_TILES("causal", 128, 128, CAUSAL_TL),
    CUT_TILES("causal bottom_right", 128, 128, CAUSAL_BR),
    CUT_TILES("causal", 64, 64, CAUSAL_TL),
    CUT_TILES("causal", 192, 128, CAUSAL_TL),
};

static attention_case cases[BY_LENGTH + BY_WINDOW + COUNT_OF(features)];
static char names[BY_LENGTH + BY_WINDOW][96];

static attention_case case_by_length(size_t i, char name[96]) {
    const int32_t *dim = dims[i % COUNT_OF(dims)], *length = lengths[i / 2 % COUNT_OF(lengths)];
    const size_t mask = i / 2 / COUNT_OF(lengths), turn = i + mask;
    const int32_t *head = heads[turn % COUNT_OF(heads)];
    const attention_case c = {.name = name,
                              .batch = head[0] == 1 ? 3 : 1,
                              .seqlen_q = length[0],
                              .seqlen_k = length[1],
                              .num_heads = head[0],
                              .num_kv_heads = head[1],
                              .head_dim = dim[0],
                              .head_dim_v = dim[1],
                              .causal = masks[mask].causal,
                              .lse_grad = turn % 2};
    snprintf(name, 96, "%d x %d, %s, heads %d/%d, dims %d/%d", length[0], length[1], masks[mask].name,
             head[0], head[1], dim[0], dim[1]);
    return c;
}

static attention_case case_by_window(size_t i, char name[96]) {
    const saccade_window w = windows[i];
    const attention_case c = {.name = name,
                              .seqlen_q = 330,
                              .seqlen_k = 400,
                              .num_heads = 2,
                              .num_kv_heads = 1,
                              .head_dim = i % 3 ? 128 : 64,
                              .window = w};
    snprintf(name, 96, "window (%d, %d) %s, dim %d", w.left, w.right,
             w.align == SACCADE_BOTTOM_RIGHT ? "bottom_right" : "top_left", c.head_dim);
    return c;
}

static void fill_cases(void) {
    size_t n = 0;
    for (size_t i = 0; i < BY_LENGTH; i++, n++) cases[n] = case_by_length(i, names[n]);
    for (size_t i = 0; i < BY_WINDOW; i++, n++) cases[n] = case_by_window(i, names[n]);
    for (size_t i = 0; i < COUNT_OF(features); i++, n++) cases[n] = features[i];
}

/* ---- again and again ---- */

static const attention_case repeated[] = {
    MANY_TILES("again and again", 150, 128, 128, CAUSAL_BR),
    FOUR_TILES("four tiles again and again", .sink = true),
    CUT_TILES("again and again", 128, 128, .sink = true),
    MANY_TILES("again and again", 40, 64, 64, .lse_grad = true),
    MANY_TILES("again and again", 40, 192, 128, CAUSAL_TL),
};

/* Who adds first, and which tiles run side by side, is another matter each time. test_cuda_device calls more often. */
static void every_run_stays_within_the_bound(void **state) {
    const char *backend = usable_backend(state);
    const int runs = test_device_of(backend) == &test_host ? 2 : 8;
    for (size_t i = 0; i < COUNT_OF(repeated); i++)
        for (int run = 0; run < runs; run++)
            attention_verify(&repeated[i], SAC_BF16, backend, &(run_options){0});
}

/* The replays begin with what the first of them left in the workspace. */
static void replays_of_a_graph_stay_within_the_bound(void **state) {
    const char *backend = usable_backend(state);
    if (test_device_of(backend) == &test_host) skip_because("there are no graphs on the host");
    for (size_t i = 0; i < COUNT_OF(repeated); i++)
        attention_verify(&repeated[i], SAC_F16, backend, &(run_options){.replays = 3});
}

int main(void) {
    static const suite_extra extras[] = {
        {"every_run_stays_within_the_bound", every_run_stays_within_the_bound},
        {"replays_of_a_graph_stay_within_the_bound", replays_of_a_graph_stay_within_the_bound},
    };
    fill_cases();
    return attention_suite("backward_key_tiles", cases, COUNT_OF(cases), extras, COUNT_OF(extras), false);
}
