/* test_cuda_compile_sm90.c - the variants of the Hopper kernels, compiled without a GPU: none may be slow for a reason
 * that the compiler knows. Needs NVRTC; says so and skips where there is none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/attn_bwd_diagonal_sm90.h"
#include "cuda/attn_bwd_dq_sm90.h"
#include "cuda/attn_bwd_sm90.h"
#include "cuda/attn_fwd_sm90.h"
#include "cuda/modifier_text.h"
#include "mod/modifier.h"
#include "support/attention_suite.h"
#include "support/device.h"
#include "support/test_context.h"

/* ---- the kernels, each in two forms ---- */

static saccade_status forward(const sac_attention_call *call, bool split, sac_kernel_spec *spec,
                              char **modifiers) {
    return sac_attn_fwd_sm90_spec(call, 0, split, spec, modifiers);
}

static saccade_status joined(const sac_attention_call *call, bool split, sac_kernel_spec *spec,
                             char **modifiers) {
    return sac_attn_fwd_sm90_spec(call, 3, split, spec, modifiers);
}

static saccade_status by_keys(const sac_attention_call *call, bool dq_by_another, sac_kernel_spec *spec,
                              char **modifiers) {
    *spec = sac_attn_bwd_sm90_spec(call, !dq_by_another);
    return sac_cuda_modifier_text(call, modifiers);
}

static saccade_status by_queries(const sac_attention_call *call, bool only_delta, sac_kernel_spec *spec,
                                 char **modifiers) {
    sac_attn_bwd_dq_sm90_spec(call, only_delta, spec);
    return sac_cuda_modifier_text(call, modifiers);
}

static saccade_status by_diagonals(const sac_attention_call *call, bool dq_by_another, sac_kernel_spec *spec,
                                   char **modifiers) {
    *spec = sac_attn_bwd_diagonal_sm90_spec(call, !dq_by_another);
    return sac_cuda_modifier_text(call, modifiers);
}

enum {
    FORWARD = 1,
    BY_KEYS = 2,
    BY_QUERIES = 4,
    BY_DIAGONALS = 8,
    JOINED = 16,
    ALL = FORWARD | BY_KEYS | BY_QUERIES
};
static const struct kernel {
    int bit;
    const char *name, *second; /* what the second form is */
    saccade_status (*spec)(const sac_attention_call *call, bool second, sac_kernel_spec *spec,
                           char **modifiers);
} kernels[] = {{FORWARD, "attn_fwd_sm90", "split keys", forward},
               {BY_KEYS, "attn_bwd_sm90", "dq left to another kernel", by_keys},
               {BY_QUERIES, "attn_bwd_dq_sm90", "only delta", by_queries},
               {BY_DIAGONALS, "attn_bwd_diagonal_sm90", "dq left to another kernel", by_diagonals},
               {JOINED, "attn_fwd_sm90, of three calls", "split keys", joined}};

/* ---- the variants ---- */

enum {
    RAGGED = 1,
    SHARED_LISTS = 2,
    SOFTCAP = 4,
    SLOPES = 8,
    SCORE_MOD = 16,
    MASK_MOD = 32,
    SECOND = 64,
    DETERMINISTIC = 128, /* dq is summed in order */
    WINDOW = 256         /* CTAs stay */
};

typedef struct variant {
    const char *name;
    int kernels;
    int features;     /* of those above; shared lists have blocks of 64 keys */
    int32_t kv_block; /* 0: no block mask */
    int32_t seqlen;   /* 0: as of a call whose lengths are the device's */
    bool f16;
    int most_spilled; /* bytes a lane beyond a few loop invariants: what stands at present, and should not grow */
    int32_t dims[8][2];
} variant;

/* Bytes a lane may spill: what is set once for a tile of queries may wait in local memory, an accumulator must not. */
enum { INVARIANTS = 24 };

#define NARROW                                                                                               \
    {64, 64}, { 128, 128 }
#define WIDE                                                                                                 \
    {192, 128}, { 256, 256 }

static const variant variants[] = {
    {"plain", ALL, .dims = {NARROW, WIDE, {72, 40}}},
    {"plain", FORWARD | BY_QUERIES, .dims = {{96, 96}}},
    {"plain", BY_KEYS, .dims = {{8, 128}}},
    {"plain", BY_QUERIES, .dims = {{192, 192}}},
    {"plain", ALL, .f16 = true, .dims = {NARROW, WIDE}},
    {"plain", ALL, SECOND, .dims = {NARROW, WIDE}},
    {"ragged lengths", ALL, RAGGED, .dims = {NARROW, WIDE}},
    {"window", BY_KEYS, WINDOW, .dims = {NARROW}},
    {"in order", BY_KEYS, DETERMINISTIC, .dims = {NARROW, {96, 96}}},
    {"in order", BY_KEYS, DETERMINISTIC, .f16 = true, .dims = {NARROW}},
    {"ragged lengths in order", BY_KEYS, DETERMINISTIC | RAGGED, .dims = {NARROW}},
    {"softcap in order", BY_KEYS, DETERMINISTIC | SOFTCAP, .dims = {NARROW}},
    {"score_mod and mask_mod in order", BY_KEYS, DETERMINISTIC | SCORE_MOD | MASK_MOD, .dims = {NARROW},
     .most_spilled = 8},
    {"plain", JOINED, .dims = {NARROW, {192, 128}, {96, 96}, {72, 40}}},
    {"plain", JOINED, SECOND, .dims = {NARROW, {192, 128}}},
    {"ragged lengths", JOINED, RAGGED, .dims = {NARROW, {192, 128}}, .most_spilled = 140},
    {"blocks of 128", ALL, .kv_block = 128, .dims = {NARROW}},
    {"blocks of 128", ALL, .kv_block = 128, .dims = {WIDE}, .most_spilled = 136},
    {"blocks of 64", ALL, .kv_block = 64, .dims = {NARROW}},
    {"blocks of 64", ALL, .kv_block = 64, .dims = {WIDE}, .most_spilled = 96},
    {"blocks of 64", BY_KEYS, SECOND, .kv_block = 64, .dims = {NARROW, WIDE}},
    {"shared lists", ALL, SHARED_LISTS, .dims = {NARROW}},
    {"shared lists", FORWARD, SHARED_LISTS, .dims = {{96, 96}, WIDE}},
    {"ragged shared lists", ALL, SHARED_LISTS | RAGGED, .dims = {NARROW}},
    {"ragged shared lists", FORWARD, SHARED_LISTS | RAGGED, .dims = {{96, 96}, WIDE}},
    {"ragged shared lists", BY_KEYS, SHARED_LISTS | RAGGED | SECOND, .dims = {NARROW}},
    {"softcap", ALL, SOFTCAP, .dims = {NARROW, WIDE}, .most_spilled = 12},
    {"ALiBi", ALL, SLOPES, .dims = {NARROW, WIDE}},
    {"score_mod", ALL, SCORE_MOD, .dims = {NARROW, WIDE}, .most_spilled = 24},
    {"mask_mod", ALL, MASK_MOD, .dims = {NARROW, WIDE}},
    {"mask_mod of few pairs", FORWARD, MASK_MOD, .seqlen = 256, .dims = {{128, 128}}},
    {"mask_mod asked beforehand", FORWARD, MASK_MOD, .seqlen = 1024, .dims = {{128, 128}}},
    {"mask_mod", BY_DIAGONALS, MASK_MOD, .kv_block = 128, .dims = {NARROW, WIDE}},
    {"mask_mod", BY_DIAGONALS, MASK_MOD | SECOND, .kv_block = 128, .dims = {NARROW, WIDE}},
    {"all modifiers", BY_DIAGONALS, MASK_MOD | SCORE_MOD | SOFTCAP | SLOPES, .kv_block = 128,
     .dims = {NARROW, WIDE}},
    {"score_mod and mask_mod", FORWARD | BY_QUERIES, SCORE_MOD | MASK_MOD, .dims = {NARROW, WIDE}},
    {"score_mod and mask_mod", BY_KEYS, SCORE_MOD | MASK_MOD, .dims = {NARROW, WIDE}, .most_spilled = 40},
};

/* A call of which only that is filled in which a variant depends on: of most pointers, whether they are there. */
static sac_attention_call call_of(const variant *v, const int32_t *dims) {
    static char there[64];
    const int32_t *lengths = v->features & RAGGED ? (const int32_t *)there : NULL;
    sac_attention_call call = {.args = {.dtype = v->f16 ? SAC_F16 : SAC_BF16,
                                        .head_dim = dims[0],
                                        .head_dim_v = dims[1],
                                        .num_heads = v->seqlen ? 2 : 0,
                                        .group = 1,
                                        .scale = 0.125f,
                                        .softcap = v->features & SOFTCAP ? 30 : 0,
                                        .band = {.window_left = v->features & WINDOW ? 100 : -1,
                                                 .window_right = v->features & WINDOW ? 100 : -1},
                                        .deterministic = (v->features & DETERMINISTIC) != 0,
                                        .len_q = {.seqlen = v->seqlen, .cu_seqlens = lengths},
                                        .len_k = {.seqlen = v->seqlen, .cu_seqlens = lengths}}};
    sac_block_mask_args *blocks = &call.args.blocks;
    if (v->features & SLOPES) call.args.alibi_slopes = (const float *)there;
    if (v->features & SHARED_LISTS || v->kv_block) {
        blocks->by_query.offsets = (const int64_t *)there;
        blocks->q_block = 128;
        blocks->kv_block = v->kv_block;
    }
    if (v->features & SHARED_LISTS) {
        blocks->by_query.bits = (const uint32_t *)there;
        blocks->q_block = 16;
        blocks->kv_block = 64;
        blocks->part = 1;
        blocks->heads_per_list = 4;
    }
    return call;
}

/* A score_mod whose gradient needs the score, and a mask_mod, as far as the variant has them. */
static void add_modifiers(const variant *v, sac_attention_call *call, saccade_modifier *made[2]) {
    const saccade_modifier_params score = {.kind = SACCADE_SCORE_KIND,
                                           .text = "score * (1 + 0.01f * score)",
                                           .grad_text = "grad * (1 + 0.02f * score)"},
                                  mask = {.kind = SACCADE_MASK_KIND, .text = "q_idx / 100 == kv_idx / 100"};
    made[0] = made[1] = NULL;
    if (v->features & SCORE_MOD) must(saccade_modifier_create(ctx, &made[0], &score));
    if (v->features & MASK_MOD) must(saccade_modifier_create(ctx, &made[1], &mask));
    call->score_mod = made[0];
    call->mask_mod = made[1];
    call->args.has_score_mod = made[0] != NULL;
    call->args.has_mask_mod = made[1] != NULL;
}

static int32_t defined(const sac_kernel_spec *spec, const char *name, int32_t otherwise) {
    for (int32_t i = 0; i < spec->num_defines; i++)
        if (strcmp(spec->defines[i].name, name) == 0) return spec->defines[i].value;
    return otherwise;
}

/* The registers that a CTA's warpgroups hand each other are those it was launched with: one that takes more than others
 * gave waits for ever. */
static void assert_registers_suffice(const sac_kernel_spec *spec, const char *log, const char *what) {
    const int32_t warpgroups = spec->threads / 128;
    const int32_t consumer = defined(spec, "CONSUMER_REGS", 0),
                  second = defined(spec, "SECOND_REGS", consumer);
    const int32_t taken = defined(spec, "PRODUCER_REGS", 0) + consumer +
                          (warpgroups > 2 ? second + (warpgroups - 3) * consumer : 0);
    const char *used = strstr(log, "Used ");
    assert_non_null(used);
    const int32_t launched = atoi(used + strlen("Used ")) * warpgroups;
    if (consumer && taken > launched)
        fail_msg("%s: its warpgroups take %d registers of each lane, and are launched with %d", what, taken,
                 launched);
}

static void assert_compiles_clean(const sac_kernel_spec *spec, int most_spilled, const char *what) {
    skip_without_compiler();
    char *log = NULL;
    void *cubin = NULL;
    size_t size;
    if (sac_kernel_compile(spec, "sm_90a", &cubin, &size, &log) != SACCADE_OK)
        fail_msg("%s: %s", what, saccade_last_error());
    const char *serialised = strstr(log, "(C75"), *spills = strstr(log, " bytes spill stores");
    assert_non_null(spills);
    while (spills > log && spills[-1] >= '0' && spills[-1] <= '9') spills--;
    if (serialised || atoi(spills) > most_spilled)
        fail_msg("%s: at most %d bytes may spill, and products must not be serialised (C75..)\n%s", what,
                 most_spilled, log);
    assert_registers_suffice(spec, log, what);
    free(cubin);
    free(log);
}

typedef struct one {
    const struct kernel *kernel;
    const variant *variant;
    const int32_t *dims;
    char name[128];
} one;

static void compiles_as_well_as_it_should(void **state) {
    const one *o = *state;
    sac_kernel_spec spec;
    saccade_modifier *made[2];
    char *modifiers = NULL;
    sac_attention_call call = call_of(o->variant, o->dims);
    add_modifiers(o->variant, &call, made);
    must(o->kernel->spec(&call, (o->variant->features & SECOND) != 0, &spec, &modifiers));
    spec.modifiers = modifiers;
    assert_compiles_clean(&spec, INVARIANTS + o->variant->most_spilled, o->name);
    free(modifiers);
    for (int i = 0; i < 2; i++) saccade_modifier_destroy(made[i]);
}

enum { MOST = 256 };

static size_t declare(one *all) {
    size_t count = 0;
    for (size_t k = 0; k < COUNT_OF(kernels); k++)
        for (size_t i = 0; i < COUNT_OF(variants); i++) {
            const variant *v = &variants[i];
            for (int d = 0; d < 8 && v->dims[d][0] && v->kernels & kernels[k].bit; d++) {
                one *o = &all[count++];
                *o = (one){.kernel = &kernels[k], .variant = v, .dims = v->dims[d]};
                snprintf(o->name, sizeof o->name, "%s%s%s, D %d/%d, %s [%s]", v->name,
                         v->features & SECOND ? ", " : "", v->features & SECOND ? kernels[k].second : "",
                         v->dims[d][0], v->dims[d][1], v->f16 ? "fp16" : "bf16", kernels[k].name);
            }
        }
    return count;
}

int main(void) {
    static one all[MOST];
    static struct CMUnitTest tests[MOST];
    size_t count = declare(all);
    for (size_t i = 0; i < count; i++)
        tests[i] = (struct CMUnitTest){
            .name = all[i].name, .test_func = compiles_as_well_as_it_should, .initial_state = &all[i]};
    count = test_take_shard(tests, count);
    cmocka_set_test_filter(getenv("SACCADE_TEST_FILTER"));
    return _cmocka_run_group_tests("cuda_compile_sm90", tests, count, make_context, end_context);
}
