/* test_cuda_devices.c - several GPUs in one process: a context serves each of them, threads may use different ones at
 * the same time, and tensors of two never meet in a call. Skips where there are fewer than two. */
#include <pthread.h>
#include <saccade/attention.h>
#include <saccade/block_mask.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/driver.h"
#include "support/attention_suite.h"
#include "support/test_context.h"

enum { NUM_GPUS = 2, SEQLEN = 700, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, MOST = SEQLEN * HEADS * HEAD_DIM };

static const test_operand inputs[] = {Q, K, V, DOUT}, outputs[] = {OUT, LSE, DQ, DK, DV};

typedef struct gpu {
    int id;
    CUcontext context;
    int64_t shape[NUM_OPERANDS][4];
    DLTensor tensor[NUM_OPERANDS];
} gpu;

static gpu gpus[NUM_GPUS];
static const sac_driver *driver;
static const char *backend; /* of the tests that run */

static size_t bytes_of(const DLTensor *tensor) {
    size_t bytes = tensor->dtype.bits / 8;
    for (int i = 0; i < tensor->ndim; i++) bytes *= (size_t)tensor->shape[i];
    return bytes;
}

static void enter(const gpu *g) { assert_int_equal(driver->context_push(g->context), 0); }

static void leave(void) {
    CUcontext popped;
    assert_int_equal(driver->context_pop(&popped), 0);
}

static void make_tensor(gpu *g, test_operand i) {
    static uint16_t values[2 * MOST]; /* results start as NaN */
    const bool of_keys = i == K || i == V || i == DK || i == DV;
    const int64_t heads = of_keys ? KV_HEADS : HEADS;
    memcpy(g->shape[i], i == LSE ? (int64_t[]){1, HEADS, SEQLEN, 1} : (int64_t[]){1, SEQLEN, heads, HEAD_DIM},
           sizeof g->shape[i]);
    g->tensor[i] = (DLTensor){.device = {kDLCUDA, g->id},
                              .ndim = i == LSE ? 3 : 4,
                              .dtype = i == LSE ? SACCADE_F32 : SACCADE_BF16,
                              .shape = g->shape[i]};
    memset(values, 0xff, sizeof values);
    srand((unsigned)i + 1);
    if (i == Q || i == K || i == V || i == DOUT)
        for (int e = 0; e < MOST; e++) /* bf16 of magnitude 1 to 2, either sign */
            values[e] = (uint16_t)(0x3f80 | (rand() & 0x7f) | (rand() & 1) << 15);
    CUdeviceptr pointer;
    assert_int_equal(driver->alloc(&pointer, bytes_of(&g->tensor[i])), 0);
    assert_int_equal(driver->copy(pointer, (CUdeviceptr)(uintptr_t)values, bytes_of(&g->tensor[i])), 0);
    g->tensor[i].data = (void *)(uintptr_t)pointer;
}

static int make_gpus(void **state) {
    driver = sac_driver_get(NULL);
    if (driver && driver->num_devices >= NUM_GPUS && !gpus[0].context)
        for (int id = 0; id < NUM_GPUS; id++) {
            gpu *g = &gpus[id];
            g->id = id;
            assert_int_equal(driver->primary_retain(&g->context, id), 0);
            enter(g);
            for (size_t i = 0; i < COUNT_OF(inputs); i++) make_tensor(g, inputs[i]);
            for (size_t i = 0; i < COUNT_OF(outputs); i++) make_tensor(g, outputs[i]);
            leave();
        }
    return make_context(state);
}

static void skip_without_two(void) {
    if (!driver || driver->num_devices < NUM_GPUS) {
        skip_because("%d GPUs are needed, there are %d", NUM_GPUS, driver ? driver->num_devices : 0);
    }
    skip_unless_usable(backend);
}

/* Forward and backward with a block mask that lies on the host, so that each GPU needs a copy of its own. */
static saccade_status both_passes(saccade_context *with, gpu *g, const saccade_block_mask *mask) {
    DLTensor *t = g->tensor;
    const saccade_attention_params params = {.block_mask = mask, .deterministic = true, .backend = backend};
    const saccade_attention_grads grads = {.dout = &t[DOUT], .dq = &t[DQ], .dk = &t[DK], .dv = &t[DV]};
    saccade_status status = saccade_attention_forward(with, &t[Q], &t[K], &t[V], &t[OUT], &t[LSE], &params);
    if (status != SACCADE_OK) return status;
    return saccade_attention_backward(with, &t[Q], &t[K], &t[V], &t[OUT], &t[LSE], &grads, &params);
}

static saccade_status make_mask(saccade_context *with, saccade_block_mask **mask) {
    return saccade_block_mask_causal(with, mask, &(saccade_mask_shape){.q_len = SEQLEN, .kv_len = SEQLEN},
                                     false);
}

static void clear_results(gpu *g) {
    enter(g);
    for (size_t i = 0; i < COUNT_OF(outputs); i++) {
        const DLTensor *t = &g->tensor[outputs[i]];
        assert_int_equal(driver->set8_async((CUdeviceptr)(uintptr_t)t->data, 0xff, bytes_of(t), NULL), 0);
    }
    assert_int_equal(driver->context_sync(), 0);
    leave();
}

static void assert_same_results(const gpu *a, const gpu *b) {
    static char of_a[2 * MOST], of_b[2 * MOST];
    for (size_t i = 0; i < COUNT_OF(outputs); i++) {
        const DLTensor *t = &a->tensor[outputs[i]];
        enter(a);
        assert_int_equal(
            driver->copy((CUdeviceptr)(uintptr_t)of_a, (CUdeviceptr)(uintptr_t)t->data, bytes_of(t)), 0);
        leave();
        enter(b);
        t = &b->tensor[outputs[i]];
        assert_int_equal(
            driver->copy((CUdeviceptr)(uintptr_t)of_b, (CUdeviceptr)(uintptr_t)t->data, bytes_of(t)), 0);
        leave();
        assert_memory_equal(of_a, of_b, bytes_of(t));
        for (size_t e = 0; outputs[i] != LSE && e < bytes_of(t) / 2; e++)
            if ((((uint16_t *)of_b)[e] & 0x7fff) > 0x7f80)
                fail_msg("result %zu of the second GPU: NaN at %zu", i, e);
    }
}

static void one_context_serves_each_gpu_in_turn(void **state) {
    (void)state;
    skip_without_two();
    saccade_block_mask *mask = NULL;
    must(make_mask(ctx, &mask));
    for (int round = 0; round < 3; round++) {
        for (int id = 0; id < NUM_GPUS; id++) {
            clear_results(&gpus[id]);
            enter(&gpus[1 - id]); /* whichever the caller is at */
            must(both_passes(ctx, &gpus[id], mask));
            leave();
        }
        assert_same_results(&gpus[0], &gpus[1]);
    }
    saccade_block_mask_destroy(mask);
}

enum { CALLS_OF_A_THREAD = 40 };

static void *many_calls(void *data) {
    gpu *g = data;
    saccade_context *own = NULL;
    saccade_block_mask *mask = NULL;
    saccade_status status = saccade_context_create(&own, NULL);
    if (status == SACCADE_OK) status = make_mask(own, &mask);
    for (int call = 0; call < CALLS_OF_A_THREAD && status == SACCADE_OK; call++)
        status = both_passes(own, g, mask);
    saccade_block_mask_destroy(mask);
    saccade_context_destroy(own);
    return (void *)(intptr_t)status;
}

static void threads_use_different_gpus_at_once(void **state) {
    (void)state;
    skip_without_two();
    pthread_t threads[NUM_GPUS];
    for (int id = 0; id < NUM_GPUS; id++) clear_results(&gpus[id]);
    for (int id = 0; id < NUM_GPUS; id++)
        assert_int_equal(pthread_create(&threads[id], NULL, many_calls, &gpus[id]), 0);
    for (int id = 0; id < NUM_GPUS; id++) {
        void *status;
        pthread_join(threads[id], &status);
        assert_int_equal((intptr_t)status, SACCADE_OK);
    }
    assert_same_results(&gpus[0], &gpus[1]);
}

static void tensors_of_two_gpus_are_refused(void **state) {
    (void)state;
    skip_without_two();
    DLTensor *a = gpus[0].tensor, *b = gpus[1].tensor;
    const saccade_attention_params params = {.backend = backend};
    assert_int_equal(saccade_attention_forward(ctx, &a[Q], &b[K], &a[V], &a[OUT], &a[LSE], &params),
                     SACCADE_INVALID_ARGUMENT);
    assert_non_null(strstr(saccade_last_error(), "k"));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_context_serves_each_gpu_in_turn),
        cmocka_unit_test(threads_use_different_gpus_at_once),
        cmocka_unit_test(tensors_of_two_gpus_are_refused),
    };
    int failed = 0;
    for (const char *const *name = test_backends(); *name; name++)
        if (strncmp(*name, "cuda-", 5) == 0) {
            backend = *name;
            failed += _cmocka_run_group_tests(backend, tests, COUNT_OF(tests), make_gpus, end_context);
        }
    return failed;
}
