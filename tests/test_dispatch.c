/* test_dispatch.c - the rules of every backend: each refuses something, each in words that say what was found, and none
 * says what another says already. Rules are asked directly, so that neither a GPU nor a compiler has to be there. */
#include <stdio.h>
#include <string.h>

#include "cuda/cuda.h"
#include "dispatch/dispatch.h"
#include "support/cmocka_all.h"

static const sac_cuda_device gpu = {.compute_capability = 90, .num_sms = 132, .smem_bytes = 227 << 10};

/* A request, and what its backend knows of the machine. */
typedef struct question {
    saccade_request request;
    sac_cuda_facts facts;
} question;

/* What the backend serves. */
static question served_by(const char *backend) {
    question q = {.request = {.device = {kDLCUDA, 0},
                              .dtype = SACCADE_BF16,
                              .batch = 2,
                              .num_heads = 4,
                              .num_kv_heads = 2,
                              .seqlen_q = 1000,
                              .seqlen_k = 2000,
                              .head_dim = 192,
                              .head_dim_v = 128,
                              .training = true,
                              .backend = backend},
                  .facts = {.device = &gpu}};
    if (strncmp(backend, "cuda-", 5) != 0) q.request.device = (DLDevice){kDLCPU, 0};
    return q;
}

/* ---- what may be asked for ---- */

static void on_the_host(question *q) { q->request.device = (DLDevice){kDLCPU, 0}; }
static void on_a_gpu(question *q) { q->request.device = (DLDevice){kDLCUDA, 1}; }
static void without_a_gpu(question *q) { q->facts = (sac_cuda_facts){.no_device = "no driver here"}; }
static void without_a_compiler(question *q) { q->facts.no_compiler = "no NVRTC here"; }
static void on_turing(question *q) { q->request.compute_capability = 75; }
static void on_ampere(question *q) { q->request.compute_capability = 80; }
static void in_fp64(question *q) { q->request.dtype = SACCADE_F64; }
static void in_fp32(question *q) { q->request.dtype = SACCADE_F32; }
static void in_int32(question *q) { q->request.dtype = SACCADE_I32; }
static void odd_head_dim(question *q) { q->request.head_dim = 60; }
static void wide_head_dim_v(question *q) { q->request.head_dim_v = 264; }
static void no_room(question *q) {
    q->request.dtype = SACCADE_F32, q->request.head_dim = q->request.head_dim_v = 256;
    q->request.compute_capability = 120;
}
static void no_way_back(question *q) { q->request.score_mod = true; }
static void aux_in_order(question *q) { q->request.deterministic = q->request.aux_grad = true; }
static void unaligned(question *q) { q->request.unaligned = true; }
static void many_queries(question *q) {
    q->request.training = false, q->request.block_mask = true;
    q->request.batch = 1 << 10, q->request.num_heads = 1 << 10, q->request.seqlen_q = 1 << 12;
}
static void many_keys(question *q) {
    q->request.block_mask = true;
    q->request.batch = 1 << 10, q->request.num_kv_heads = 1 << 10, q->request.seqlen_k = 1 << 12;
}
static void shared_wide_lists(question *q) { q->request.shared_lists = q->request.block_mask = true; }
static void with_dropout(question *q) { q->request.dropout = true; }
static void in_pages(question *q) { q->request.paged_kv = true; }
static void over_devices(question *q) { q->request.context_parallel = true; }
static void in_fp8(question *q) { q->request.fp8 = true; }
static void in_a_graph(question *q) { q->request.graph_capture = true; }
static void not_pinned(question *q) { q->request.backend = NULL; }

static const struct refusal {
    const char *backend;
    void (*ask)(question *q);
    const char *words; /* the reason holds these */
} refusals[] = {
#define OF_ALL(name)                                                                                         \
    {name, no_way_back, "no backward text"}, {name, with_dropout, "dropout"}, {name, in_pages, "in pages"},  \
        {name, over_devices, "split over devices"}, {                                                        \
        name, in_fp8, "fp8"                                                                                  \
    }
#define OF_HOSTS(name)                                                                                       \
    OF_ALL(name), {name, on_a_gpu, "tensors are on cuda, it reads host memory only"}, {                      \
        name, in_a_graph, "outside any CUDA graph"                                                           \
    }
#define OF_GPUS(name)                                                                                        \
    OF_ALL(name), {name, on_the_host, "tensors are on cpu, it reads CUDA memory only"},                      \
        {name, without_a_gpu, "no driver here"}, {name, without_a_compiler, "no NVRTC here"},                \
        {name, odd_head_dim, "head_dim 60"}, {name, wide_head_dim_v, "head_dim_v 264"}, {                    \
        name, aux_in_order, "deterministic forbids"                                                          \
    }
    OF_HOSTS("reference"),
    {"reference", in_int32, "dtype int32"},
    {"reference", not_pinned, "only when pinned by name"},
    OF_HOSTS("cpu"),
    {"cpu", in_fp64, "dtype fp64"},
    {"cpu", odd_head_dim, "head_dim 60"},
    OF_GPUS("cuda-portable"),
    {"cuda-portable", in_fp64, "dtype fp64"},
    {"cuda-portable", on_turing, "compute capability 7.5 is below 8.0"},
    {"cuda-portable", no_room, "has no tile for the GPU's 101376 bytes of shared memory"},
    OF_GPUS("cuda-sm90"),
    {"cuda-sm90", in_fp32, "dtype fp32 is neither bf16 nor fp16"},
    {"cuda-sm90", on_ampere, "compute capability 8.0 is not 9.0"},
    {"cuda-sm90", unaligned, "multiple of 16 bytes"},
    {"cuda-sm90", many_queries, "4300211200 query tiles are above"},
    {"cuda-sm90", many_keys, "4296015872 key tiles are above"},
    {"cuda-sm90", shared_wide_lists, "up to head_dim 128, not 192"},
};

static const sac_backend *backend_called(const char *name) {
    for (const sac_backend *const *b = sac_backends; *b; b++)
        if (strcmp((*b)->name, name) == 0) return *b;
    fail_msg("there is no backend \"%s\"", name);
    return NULL;
}

/* The only rule that refuses; -1: none does. Fails where several do. */
static int refusing_rule(const sac_backend *backend, const question *q, const char *what, char *reason,
                         size_t size) {
    int found = -1;
    char text[256];
    for (int i = 0; backend->rules[i]; i++) {
        if (!backend->rules[i](&q->request, backend->facts ? &q->facts : NULL, text, sizeof text)) continue;
        if (found >= 0) fail_msg("%s: \"%s\" is refused twice: %s; %s", backend->name, what, reason, text);
        snprintf(reason, size, "%s", text);
        found = i;
    }
    return found;
}

static void what_a_backend_is_for_no_rule_refuses(void **state) {
    (void)state;
    char reason[256];
    for (const sac_backend *const *b = sac_backends; *b; b++) {
        const question q = served_by((*b)->name);
        if (refusing_rule(*b, &q, "served", reason, sizeof reason) >= 0)
            fail_msg("%s: %s", (*b)->name, reason);
    }
}

static void one_rule_refuses_and_says_what_was_found(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        const struct refusal *r = &refusals[i];
        char reason[256] = "nothing";
        question q = served_by(r->backend);
        r->ask(&q);
        refusing_rule(backend_called(r->backend), &q, r->words, reason, sizeof reason);
        if (!strstr(reason, r->words))
            fail_msg("%s: \"%s\" does not say \"%s\"", r->backend, reason, r->words);
    }
}

static void no_rule_is_without_a_call_that_it_refuses(void **state) {
    (void)state;
    for (const sac_backend *const *b = sac_backends; *b; b++) {
        bool reached[32] = {false};
        char reason[256];
        for (size_t i = 0; i < COUNT_OF(refusals); i++) {
            if (strcmp(refusals[i].backend, (*b)->name) != 0) continue;
            question q = served_by((*b)->name);
            refusals[i].ask(&q);
            const int rule = refusing_rule(*b, &q, refusals[i].words, reason, sizeof reason);
            if (rule >= 0) reached[rule] = true;
        }
        for (int i = 0; (*b)->rules[i]; i++)
            if (!reached[i]) fail_msg("%s: nothing here is refused by rule %d", (*b)->name, i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_backend_is_for_no_rule_refuses),
        cmocka_unit_test(one_rule_refuses_and_says_what_was_found),
        cmocka_unit_test(no_rule_is_without_a_call_that_it_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
