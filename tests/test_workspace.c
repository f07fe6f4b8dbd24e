/* test_workspace.c - scratch memory of calls that bring none: kept by the context for the next call, up to a bound. */
#include <saccade/context.h>

#include <stdlib.h>
#include <string.h>

#include "api/workspace.h"
#include "cpu/cpu.h"
#include "support/cmocka_all.h"

static const DLDevice host = {kDLCPU, 0};

static int setup(void **state) {
    return saccade_context_create((saccade_context **)state, NULL) != SACCADE_OK;
}

static int teardown(void **state) {
    saccade_context_destroy(*state);
    return 0;
}

/* Every byte is written, so that memory shorter than asked for shows under a checker. */
static sac_workspace get(saccade_context *ctx, size_t bytes) {
    sac_workspace w;
    assert_int_equal(sac_workspace_get(ctx, &sac_cpu_backend, host, bytes, NULL, 0, &w), SACCADE_OK);
    assert_int_equal((uintptr_t)w.data % 64, 0);
    memset(w.data, 1, bytes);
    return w;
}

static void *got_and_released(saccade_context *ctx, size_t bytes) {
    sac_workspace w = get(ctx, bytes);
    sac_workspace_release(ctx, &sac_cpu_backend, host, &w);
    return w.data;
}

static void a_later_call_gets_the_memory_of_an_earlier_one(void **state) {
    saccade_context *ctx = *state;
    void *first = got_and_released(ctx, 300000);
    assert_ptr_equal(got_and_released(ctx, 1000), first);
    assert_ptr_equal(got_and_released(ctx, 300000), first); /* the short call did not shorten it */
}

static void two_workspaces_at_a_time_are_two(void **state) {
    saccade_context *ctx = *state;
    void *first = got_and_released(ctx, 300000);
    sac_workspace outer = get(ctx, 5000), inner = get(ctx, 400000);
    assert_ptr_equal(outer.data, first);
    assert_ptr_not_equal(inner.data, first);
    sac_workspace_release(ctx, &sac_cpu_backend, host, &inner);
    sac_workspace_release(ctx, &sac_cpu_backend, host, &outer);
    assert_ptr_equal(got_and_released(ctx, 300000), first);
}

static void more_than_the_bound_is_not_kept(void **state) {
    saccade_context *ctx = *state;
    void *small = got_and_released(ctx, 300000);
    got_and_released(ctx, (size_t)SAC_MAX_KEPT_WORKSPACE + 1);
    assert_ptr_equal(got_and_released(ctx, 300000), small);
}

/* Gives memory that is `user` bytes off, and counts what it has given and not got back. */
static int num_lent;

static void *lend(size_t bytes, int32_t device_type, int32_t device_id, void *user) {
    assert_int_equal(device_type, kDLCPU);
    assert_int_equal(device_id, 0);
    num_lent++;
    return (char *)aligned_alloc(64, (bytes + 191) / 64 * 64) + *(size_t *)user;
}

static void take_back(void *pointer, size_t bytes, int32_t device_type, int32_t device_id, void *user) {
    (void)bytes, (void)device_type, (void)device_id;
    num_lent--;
    free((char *)pointer - *(size_t *)user);
}

static void memory_of_an_allocator_must_be_aligned(void **state) {
    (void)state;
    size_t off = 0;
    saccade_context *ctx;
    const saccade_context_params params = {.allocator = {lend, take_back, &off}};
    assert_int_equal(saccade_context_create(&ctx, &params), SACCADE_OK);
    got_and_released(ctx, 5000);
    assert_int_equal(num_lent, 0);
    off = 32;
    sac_workspace w;
    assert_int_equal(sac_workspace_get(ctx, &sac_cpu_backend, host, 5000, NULL, 0, &w),
                     SACCADE_INVALID_ARGUMENT);
    assert_string_equal(saccade_last_error(), "allocator: its memory is not aligned to 64 bytes");
    assert_int_equal(num_lent, 0);
    saccade_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_later_call_gets_the_memory_of_an_earlier_one, setup, teardown),
        cmocka_unit_test_setup_teardown(two_workspaces_at_a_time_are_two, setup, teardown),
        cmocka_unit_test_setup_teardown(more_than_the_bound_is_not_kept, setup, teardown),
        cmocka_unit_test(memory_of_an_allocator_must_be_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
