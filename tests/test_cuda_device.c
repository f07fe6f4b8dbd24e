/* test_cuda_device.c - the GPU backends as guests: in the caller's stream, graph, context and memory. Each test runs
 * on each backend of SACCADE_TEST_BACKENDS that is one of them, and skips where there is no GPU for it. */
#include <dlfcn.h>
#include <malloc.h>
#include <saccade/attention.h>
#include <saccade/backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/runtime.h"
#include "support/attention_suite.h"
#include "support/bf16_close.h"
#include "support/cuda_graph.h"
#include "support/device.h"
#include "support/folder.h"

enum { BATCH = 2, SEQLEN = 1000, HEADS = 8, KV_HEADS = 2 };

typedef struct setting {
    const char *backend;
    int32_t head_dim, head_dim_v;
    int32_t seqlen, kv_heads;
} setting;

/* Entry points that only this test needs. */
static struct {
    CUresult (*context_current)(CUcontext *);
    CUresult (*memory)(size_t *free, size_t *total);
    CUresult (*copy_async)(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream);
    CUresult (*stream_create)(CUstream *, unsigned flags);
    CUresult (*stream_destroy)(CUstream);
} cu;

static const struct {
    void *to;
    const char *symbol;
} symbols[] = {{&cu.context_current, "cuCtxGetCurrent"},
               {&cu.memory, "cuMemGetInfo_v2"},
               {&cu.copy_async, "cuMemcpyAsync"},
               {&cu.stream_create, "cuStreamCreate"},
               {&cu.stream_destroy, "cuStreamDestroy_v2"}};

#define CU(call) assert_int_equal(call, 0)

static const test_operand inputs[] = {Q, K, V, DOUT}, outputs[] = {OUT, LSE, DQ, DK, DV};

typedef struct fixture {
    const setting *setting;
    const sac_driver *driver;
    CUcontext primary;
    char dir[64];
    saccade_context *ctx;
    int64_t shape[NUM_OPERANDS][4];
    DLTensor tensor[NUM_OPERANDS];
    size_t bytes[NUM_OPERANDS];
    saccade_attention_params params;
    saccade_attention_grads grads;
} fixture;

static void make_tensor(fixture *f, int i, DLDataType dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
    const test_device *device = test_device_of("cuda");
    int ndim = d ? 4 : 3;
    memcpy(f->shape[i], (int64_t[]){a, b, c, d}, sizeof f->shape[i]);
    f->bytes[i] = (size_t)(a * b * c * (d ? d : 1)) * dtype.bits / 8;
    f->tensor[i] = (DLTensor){.data = device->alloc(f->bytes[i]),
                              .device = device->device,
                              .ndim = ndim,
                              .dtype = dtype,
                              .shape = f->shape[i]};
    assert_non_null(f->tensor[i].data);
    uint16_t *values = malloc(f->bytes[i]);
    assert_non_null(values);
    srand((unsigned)i + 1);
    for (size_t e = 0; e < f->bytes[i] / 2; e++) /* bf16 of magnitude 1 to 2, either sign */
        values[e] = (uint16_t)(0x3f80 | (rand() & 0x7f) | (rand() & 1) << 15);
    device->upload(f->tensor[i].data, values, f->bytes[i]);
    free(values);
}

static void make_operand(fixture *f, test_operand i) {
    const setting *s = f->setting;
    const bool of_keys = i == K || i == V || i == DK || i == DV;
    const bool of_values = i == V || i == DV || i == OUT || i == DOUT;
    if (i == LSE)
        make_tensor(f, i, SACCADE_F32, BATCH, HEADS, s->seqlen, 0);
    else
        make_tensor(f, i, SACCADE_BF16, BATCH, s->seqlen, of_keys ? s->kv_heads : HEADS,
                    of_values ? s->head_dim_v : s->head_dim);
}

/* *state is a setting, and becomes the fixture. */
static int set_up(void **state) {
    const setting *s = *state;
    fixture *f = calloc(1, sizeof *f);
    if (!f) return -1;
    *state = f;
    f->setting = s;
    strcpy(f->dir, "/tmp/saccade-device-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    f->driver = sac_driver_get(NULL);
    if (!f->driver) return 0;
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (!(*(void **)symbols[i].to = dlsym(library, symbols[i].symbol))) return -1;
    CU(f->driver->primary_retain(&f->primary, 0));
    assert_int_equal(saccade_context_create(&f->ctx, &(saccade_context_params){.cache_dir = f->dir}),
                     SACCADE_OK);
    for (size_t i = 0; i < COUNT_OF(inputs); i++) make_operand(f, inputs[i]);
    for (size_t i = 0; i < COUNT_OF(outputs); i++) make_operand(f, outputs[i]);
    f->params = (saccade_attention_params){.causal = SACCADE_CAUSAL_TOP_LEFT, .backend = s->backend};
    f->grads = (saccade_attention_grads){
        .dout = &f->tensor[DOUT], .dq = &f->tensor[DQ], .dk = &f->tensor[DK], .dv = &f->tensor[DV]};
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    for (int i = 0; i < NUM_OPERANDS; i++)
        if (f->tensor[i].data) test_device_of("cuda")->free(f->tensor[i].data);
    saccade_context_destroy(f->ctx);
    free(f);
    return system(command);
}

static void skip_without_gpu(const fixture *f) {
    const char *reason;
    if (f->driver) {
        skip_unless_usable(f->params.backend);
        return;
    }
    sac_driver_get(&reason);
    skip_because("%s", reason);
}

static void good(saccade_status status) {
    if (status != SACCADE_OK) fail_msg("%s: %s", saccade_status_text(status), saccade_last_error());
}

static void forward(fixture *f) {
    DLTensor *t = f->tensor;
    good(saccade_attention_forward(f->ctx, &t[Q], &t[K], &t[V], &t[OUT], &t[LSE], &f->params));
}

static void backward(fixture *f) {
    DLTensor *t = f->tensor;
    good(saccade_attention_backward(f->ctx, &t[Q], &t[K], &t[V], &t[OUT], &t[LSE], &f->grads, &f->params));
}

/* A workspace for both calls, freed with the tensors' device. */
static void *give_workspace(fixture *f) {
    DLTensor *t = f->tensor;
    size_t need = 0, most = 256;
    for (int pass = 0; pass < 2; pass++) {
        good(saccade_attention_workspace(f->ctx, &t[Q], &t[K], &t[V], pass ? &f->grads : NULL, &f->params,
                                         &need));
        if (need > most) most = need;
    }
    f->params.workspace = test_device_of("cuda")->alloc(most);
    f->params.workspace_bytes = most;
    assert_non_null(f->params.workspace);
    return f->params.workspace;
}

/* Every result, in one buffer to be freed. */
static char *all_results(fixture *f, size_t *size) {
    *size = 0;
    for (size_t i = 0; i < COUNT_OF(outputs); i++) *size += f->bytes[outputs[i]];
    char *all = malloc(*size), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < COUNT_OF(outputs); i++) {
        test_device_of("cuda")->download(at, f->tensor[outputs[i]].data, f->bytes[outputs[i]]);
        at += f->bytes[outputs[i]];
    }
    return all;
}

static void poison(fixture *f) {
    const size_t most =
        f->bytes[DQ] > f->bytes[OUT] ? f->bytes[DQ] : f->bytes[OUT]; /* both have query heads */
    char *bytes = malloc(most);
    assert_non_null(bytes);
    memset(bytes, 0xff, most);
    for (size_t i = 0; i < COUNT_OF(outputs); i++)
        test_device_of("cuda")->upload(f->tensor[outputs[i]].data, bytes, f->bytes[outputs[i]]);
    free(bytes);
}

/* As all_results has them. */
static void expect_results_about_the_same(const fixture *f, const char *what, const char *got,
                                          const char *expected) {
    for (size_t i = 0; i < COUNT_OF(outputs); i++) {
        const size_t bytes = f->bytes[outputs[i]];
        if (outputs[i] == LSE) /* of no sum that has an order */
            assert_memory_equal(got, expected, bytes);
        else
            test_bf16_close(what, test_operand_name(outputs[i]), (const uint16_t *)got,
                            (const uint16_t *)expected, bytes / sizeof(uint16_t));
        got += bytes;
        expected += bytes;
    }
}

/* ---- the tests ---- */

static void forward_only(void *f) { forward(f); }
static void both_passes(void *f) {
    forward(f);
    backward(f);
}

static void graph_replay_gives_the_same_bits(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    size_t size;
    f->params.deterministic = true;
    void *workspace = give_workspace(f);
    both_passes(f);
    char *expected = all_results(f, &size);
    test_graph *graph = test_graph_capture(f->ctx, both_passes, f);
    for (int replay = 0; replay < 3; replay++) {
        poison(f);
        test_graph_replay(graph);
        char *got = all_results(f, &size);
        assert_memory_equal(got, expected, size);
        free(got);
    }
    test_graph_free(graph);
    test_device_of("cuda")->free(workspace);
    free(expected);
}

/* g: a second caller beside f, with a context and results of its own, for the same inputs. */
static void make_second(fixture *g, const fixture *f) {
    *g = *f;
    good(saccade_context_create(&g->ctx, &(saccade_context_params){.cache_dir = f->dir}));
    for (size_t i = 0; i < COUNT_OF(outputs); i++) make_operand(g, outputs[i]);
    g->grads.dq = &g->tensor[DQ];
    g->grads.dk = &g->tensor[DK];
    g->grads.dv = &g->tensor[DV];
}

static void free_second(fixture *g) {
    for (size_t i = 0; i < COUNT_OF(outputs); i++) test_device_of("cuda")->free(g->tensor[outputs[i]].data);
    saccade_context_destroy(g->ctx);
}

static void two_streams_at_once_give_what_one_gives(void **state) {
    enum { CALLS = 40, NON_BLOCKING = 1 };
    fixture *f = *state;
    skip_without_gpu(f);
    CUcontext popped;
    CUstream streams[2];
    size_t size;
    void *workspaces[2] = {give_workspace(f)};
    both_passes(f);
    char *alone = all_results(f, &size);
    fixture g, *callers[2] = {f, &g};
    make_second(&g, f);
    workspaces[1] = give_workspace(&g);
    CU(f->driver->context_push(f->primary));
    for (int i = 0; i < 2; i++) {
        poison(callers[i]);
        CU(cu.stream_create(&streams[i], NON_BLOCKING));
        good(saccade_context_set_stream(callers[i]->ctx, streams[i]));
    }
    for (int call = 0; call < CALLS; call++)
        for (int i = 0; i < 2; i++) both_passes(callers[i]);
    for (int i = 0; i < 2; i++) {
        CU(f->driver->stream_sync(streams[i]));
        CU(cu.stream_destroy(streams[i]));
        good(saccade_context_set_stream(callers[i]->ctx, NULL));
        char *got = all_results(callers[i], &size);
        expect_results_about_the_same(f, i ? "the second stream" : "the first stream", got, alone);
        free(got);
        test_device_of("cuda")->free(workspaces[i]);
    }
    CU(f->driver->context_pop(&popped));
    free_second(&g);
    free(alone);
}

/* The fixture's tensors as one pack of BATCH sequences, whose lengths are to be found in a tensor of the device. */
static void pack(fixture *f, DLTensor *cu_seqlens, int64_t *cu_shape) {
    const test_device *device = test_device_of("cuda");
    for (int i = 0; i < NUM_OPERANDS; i++) {
        DLTensor *t = &f->tensor[i];
        if (t->ndim == 4) memcpy(f->shape[i], (int64_t[]){BATCH * SEQLEN, t->shape[2], t->shape[3]}, 24);
        if (t->ndim == 3) memcpy(f->shape[i], (int64_t[]){HEADS, BATCH * SEQLEN}, 16);
        t->ndim -= t->ndim > 0;
    }
    *cu_shape = BATCH + 1;
    *cu_seqlens = (DLTensor){.data = device->alloc((BATCH + 1) * sizeof(int32_t)),
                             .device = device->device,
                             .ndim = 1,
                             .dtype = SACCADE_I32,
                             .shape = cu_shape};
    f->params.cu_seqlens_q = f->params.cu_seqlens_k = cu_seqlens;
    f->params.max_seqlen_q = f->params.max_seqlen_k = BATCH * SEQLEN;
}

static void replay_serves_the_lengths_that_the_tensor_then_holds(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    static const int32_t lengths[][BATCH + 1] = {{0, 700, 2000}, {0, 0, 2000}, {0, 1999, 2000}, {0, 1, 1500}};
    DLTensor cu_seqlens;
    int64_t cu_shape;
    size_t size;
    pack(f, &cu_seqlens, &cu_shape);
    test_device_of("cuda")->upload(cu_seqlens.data, lengths[0], sizeof lengths[0]);
    f->params.deterministic = true;
    void *workspace = give_workspace(f);
    test_graph *graph = test_graph_capture(f->ctx, both_passes, f);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        test_device_of("cuda")->upload(cu_seqlens.data, lengths[i], sizeof lengths[i]);
        poison(f);
        both_passes(f);
        char *expected = all_results(f, &size);
        poison(f);
        test_graph_replay(graph);
        char *got = all_results(f, &size);
        if (memcmp(got, expected, size) != 0)
            fail_msg("replayed with sequences that end at %d and %d: other bits than the call's",
                     lengths[i][1], lengths[i][2]);
        free(expected);
        free(got);
    }
    test_graph_free(graph);
    test_device_of("cuda")->free(workspace);
    test_device_of("cuda")->free(cu_seqlens.data);
}

/* Nothing was loaded before the capture began: compiling and loading are no work of the stream's. */
static void kernels_may_be_compiled_during_capture(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    void *workspace = give_workspace(f);
    test_graph_free(test_graph_capture(f->ctx, forward_only, f));
    test_device_of("cuda")->free(workspace);
}

static void callers_context_is_current_afterwards(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    CUcontext before, after, popped;
    CU(cu.context_current(&before));
    forward(f);
    CU(cu.context_current(&after));
    assert_ptr_equal(before, after);
    CU(f->driver->context_push(f->primary));
    backward(f);
    CU(cu.context_current(&after));
    assert_ptr_equal(f->primary, after);
    CU(f->driver->context_pop(&popped));
}

/* Queues a copy of dq, dk and dv, one behind another, to a place on the GPU. */
static void keep_gradients(fixture *f, char *to) {
    CUcontext popped;
    CU(f->driver->context_push(f->primary));
    for (int i = DQ; i <= DV; i++) {
        CU(cu.copy_async((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)f->tensor[i].data, f->bytes[i],
                         NULL));
        to += f->bytes[i];
    }
    CU(f->driver->context_pop(&popped));
}

static void expect_gradients(const fixture *f, const char *got, const char *first, int call) {
    char what[32];
    snprintf(what, sizeof what, "call %d", call);
    for (test_operand i = DQ; i <= DV; i++) {
        const size_t bytes = f->bytes[i];
        size_t at = 0;
        while (at < bytes && got[at] == first[at]) at++;
        if (at < bytes && f->params.deterministic)
            fail_msg("%s: byte %zu of %s is %#x, of the first call %#x", what, at, test_operand_name(i),
                     (uint8_t)got[at], (uint8_t)first[at]);
        test_bf16_close(what, test_operand_name(i), (const uint16_t *)got, (const uint16_t *)first,
                        bytes / 2);
        got += bytes;
        first += bytes;
    }
}

/* Many calls' gradients reach the host together: a copy for each would wait, on a shared GPU, for every other process
 * to have had its turn. */
static void compare_calls(fixture *f, int calls) {
    enum { TOGETHER = 20 };
    const test_device *device = test_device_of("cuda");
    const size_t each = f->bytes[DQ] + f->bytes[DK] + f->bytes[DV];
    char *kept = device->alloc(TOGETHER * each), *got = malloc(TOGETHER * each), *first = malloc(each);
    assert_true(kept && got && first);
    forward(f);
    for (int call = 0; call < calls; call++) {
        const int place = call % TOGETHER;
        backward(f);
        keep_gradients(f, kept + place * each);
        if (place < TOGETHER - 1) continue;
        device->download(got, kept, TOGETHER * each);
        if (call == place) memcpy(first, got, each);
        for (int i = 0; i < TOGETHER; i++) expect_gradients(f, got + i * each, first, call - place + i);
    }
    free(first);
    free(got);
    device->free(kept);
}

static void deterministic_gradients_are_the_same_a_thousand_times(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    f->params.deterministic = true;
    compare_calls(f, 1000);
}

static void gradients_are_about_the_same_two_hundred_times(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    compare_calls(f, 200);
}

static size_t free_memory(fixture *f) {
    CUcontext popped;
    size_t free_bytes, total;
    CU(f->driver->context_push(f->primary));
    CU(f->driver->stream_sync(NULL));
    CU(cu.memory(&free_bytes, &total));
    CU(f->driver->context_pop(&popped));
    return free_bytes;
}

/* Other processes may use the GPU too: a leak is what every round loses. Short sequences, for calls are what counts. */
static void hundred_thousand_calls_leave_memory_as_it_was(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    enum { ROUNDS = 20, CALLS = 5000, A_BYTE_A_CALL = CALLS, SHORT = 64 };
    for (int i = 0; i < NUM_OPERANDS; i++) f->shape[i][i == LSE ? 2 : 1] = SHORT;
    forward(f);
    backward(f);
    const size_t device_begin = free_memory(f), host_begin = mallinfo2().uordblks;
    int device_losses = 0, host_losses = 0;
    size_t device_free = device_begin, host_used = host_begin;
    for (int round = 0; round < ROUNDS; round++) {
        for (int call = 0; call < CALLS / 2; call++) {
            forward(f);
            backward(f);
        }
        const size_t device_now = free_memory(f), host_now = mallinfo2().uordblks;
        device_losses += device_now + A_BYTE_A_CALL < device_free;
        host_losses += host_now > host_used + A_BYTE_A_CALL;
        device_free = device_now, host_used = host_now;
    }
    if (device_losses == ROUNDS || host_losses == ROUNDS)
        fail_msg(
            "every one of %d rounds lost memory: of the device's %zu bytes are free, before them %zu; of "
            "the host's %zu are in use, before them %zu",
            ROUNDS, device_free, device_begin, host_used, host_begin);
}

static void kernels_beyond_the_bound_are_unloaded_and_come_back(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    sac_cuda *cuda = sac_cuda_of(f->ctx);
    f->params.deterministic = true;
    void *workspace = give_workspace(f);
    size_t size;
    test_graph *graph = test_graph_capture(f->ctx, both_passes, f);
    test_graph_replay(graph);
    char *of_graph = all_results(f, &size);
    size_t held = sac_kernels_bytes(cuda);
    f->params.workspace = NULL; /* the graph keeps it; other kernels may need more */
    f->params.workspace_bytes = 0;
    f->params.softcap = 10;
    both_passes(f);
    char *of_softcap = all_results(f, &size);
    size_t all = sac_kernels_bytes(cuda);

    cuda->most_loaded_bytes = 1;
    f->params.softcap = 0;
    f->params.has_scale = true;
    f->params.scale = -1; /* others again: one of them at a time, beside those of the graph */
    both_passes(f);
    if (sac_kernels_bytes(cuda) < held || sac_kernels_bytes(cuda) >= all)
        fail_msg("%zu bytes are loaded, of a graph %zu, before %zu", sac_kernels_bytes(cuda), held, all);
    poison(f);
    test_graph_replay(graph);
    char *got = all_results(f, &size);
    assert_memory_equal(got, of_graph, size);
    free(got);
    f->params.has_scale = false;
    f->params.softcap = 10;
    poison(f);
    both_passes(f);
    got = all_results(f, &size);
    assert_memory_equal(got, of_softcap, size);
    free(got);
    test_graph_free(graph);
    test_device_of("cuda")->free(workspace);
    free(of_graph);
    free(of_softcap);
}

static void new_lengths_and_scales_compile_nothing(void **state) {
    fixture *f = *state;
    skip_without_gpu(f);
    const test_device *device = test_device_of("cuda");
    int32_t lengths[BATCH] = {100, 200};
    int64_t shape[1] = {BATCH};
    DLTensor seqused = {.data = device->alloc(sizeof lengths),
                        .device = device->device,
                        .ndim = 1,
                        .dtype = SACCADE_I32,
                        .shape = shape};
    device->upload(seqused.data, lengths, sizeof lengths);
    f->params.seqused_k = &seqused;
    forward(f);
    backward(f);
    int files = count_files(f->dir);
    for (int32_t n = 0; n <= SEQLEN; n += 40) {
        lengths[0] = n;
        device->upload(seqused.data, lengths, sizeof lengths);
        f->params.has_scale = true;
        f->params.scale = 0.1f + 0.001f * (float)n;
        f->params.causal = n % 3;
        forward(f);
        backward(f);
    }
    assert_int_equal(count_files(f->dir), files);
    device->free(seqused.data);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction run;
        int32_t head_dim, head_dim_v, seqlen, kv_heads;
    } all[] = {
#define TEST(name, head_dim, head_dim_v) {#name, name, head_dim, head_dim_v, SEQLEN, KV_HEADS}
/* Of more tiles of keys than there are SMs, an odd number for each head. */
#define LARGE_TEST(name, head_dim, head_dim_v)                                                               \
    { #name, name, head_dim, head_dim_v, 1100, HEADS }
        TEST(graph_replay_gives_the_same_bits, 64, 64),
        TEST(graph_replay_gives_the_same_bits, 128, 128),
        TEST(graph_replay_gives_the_same_bits, 192, 128),
        LARGE_TEST(two_streams_at_once_give_what_one_gives, 64, 64),
        LARGE_TEST(two_streams_at_once_give_what_one_gives, 128, 128),
        LARGE_TEST(two_streams_at_once_give_what_one_gives, 192, 128),
        TEST(replay_serves_the_lengths_that_the_tensor_then_holds, 64, 64),
        TEST(kernels_may_be_compiled_during_capture, 64, 64),
        TEST(callers_context_is_current_afterwards, 64, 64),
        TEST(deterministic_gradients_are_the_same_a_thousand_times, 64, 64),
        TEST(deterministic_gradients_are_the_same_a_thousand_times, 128, 128),
        TEST(deterministic_gradients_are_the_same_a_thousand_times, 192, 128),
        TEST(deterministic_gradients_are_the_same_a_thousand_times, 256, 256),
        LARGE_TEST(gradients_are_about_the_same_two_hundred_times, 64, 64),
        LARGE_TEST(gradients_are_about_the_same_two_hundred_times, 128, 128),
        LARGE_TEST(gradients_are_about_the_same_two_hundred_times, 192, 128),
        TEST(kernels_beyond_the_bound_are_unloaded_and_come_back, 64, 64),
        TEST(new_lengths_and_scales_compile_nothing, 64, 64),
        TEST(hundred_thousand_calls_leave_memory_as_it_was, 64, 64),
    };
    static struct CMUnitTest tests[COUNT_OF(all) * TEST_MAX_BACKENDS];
    static char names[COUNT_OF(all) * TEST_MAX_BACKENDS][96];
    static setting settings[COUNT_OF(all) * TEST_MAX_BACKENDS];
    size_t count = 0;
    for (const char *const *backend = test_backends(); *backend; backend++) {
        if (strncmp(*backend, "cuda-", 5) != 0) continue;
        for (size_t i = 0; i < COUNT_OF(all); i++, count++) {
            settings[count] =
                (setting){*backend, all[i].head_dim, all[i].head_dim_v, all[i].seqlen, all[i].kv_heads};
            snprintf(names[count], sizeof names[count], "%s, D %d/%d [%s]", all[i].name, all[i].head_dim,
                     all[i].head_dim_v, *backend);
            tests[count] = (struct CMUnitTest){names[count], all[i].run, set_up, tear_down, &settings[count]};
        }
    }
    count = test_take_shard(tests, count);
    cmocka_set_test_filter(getenv("SACCADE_TEST_FILTER"));
    return _cmocka_run_group_tests("cuda_device", tests, count, NULL, NULL);
}
