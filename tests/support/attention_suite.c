/* attention_suite.c - cases x dtypes x backends as cmocka tests. */
#include "support/attention_suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/dispatch.h"

static const sac_dtype dtypes[] = {SAC_F32, SAC_BF16, SAC_F16};
static const char *const dtype_names[] = {[SAC_F32] = "fp32", [SAC_BF16] = "bf16", [SAC_F16] = "fp16"};

typedef struct suite_entry {
    const attention_case *c;
    sac_dtype dtype;
    const char *backend;
    bool forward_only;
    char name[160];
} suite_entry;

const char *const *test_backends(void) {
    static const char *names[TEST_MAX_BACKENDS + 1];
    static char list[512];
    int count = 0;
    const char *wanted = getenv("SACCADE_TEST_BACKENDS");
    if (names[0]) return names;
    if (wanted && *wanted) {
        snprintf(list, sizeof list, "%s", wanted);
        for (char *name = strtok(list, ","); name && count < TEST_MAX_BACKENDS; name = strtok(NULL, ","))
            names[count++] = name;
    } else {
        for (const sac_backend *const *b = sac_backends; *b && count < TEST_MAX_BACKENDS; b++)
            if (strcmp((*b)->name, "reference") != 0) names[count++] = (*b)->name;
    }
    return names;
}

/* A call that any backend which works here serves, but for the dtype, and for the gradients. */
static saccade_status probe(const char *backend, DLDataType dtype, bool training) {
    saccade_context *ctx;
    saccade_request request = {.device = test_device_of(backend)->device,
                               .dtype = dtype,
                               .training = training,
                               .batch = 1,
                               .num_heads = 1,
                               .num_kv_heads = 1,
                               .seqlen_q = 128,
                               .seqlen_k = 128,
                               .head_dim = 64,
                               .head_dim_v = 64,
                               .backend = backend};
    assert_int_equal(saccade_context_create(&ctx, NULL), SACCADE_OK);
    saccade_status status = saccade_select_backend(ctx, &request, NULL);
    saccade_context_destroy(ctx);
    return status;
}

void skip_unless_usable(const char *backend) {
    saccade_status status = probe(backend, SACCADE_F16, false);
    if (status == SACCADE_OK) return;
    if (status != SACCADE_UNSUPPORTED) fail_msg("backend \"%s\": %s", backend, saccade_last_error());
    skip_because("%s", saccade_last_error());
}

const char *usable_backend(void **state) {
    const char *backend = *(const char **)*state;
    skip_unless_usable(backend);
    return backend;
}

const char *usable_host_backend(void **state) {
    const char *backend = usable_backend(state);
    if (test_device_of(backend) != &test_host) skip_because("about what the host has");
    return backend;
}

bool backend_takes(const char *backend, sac_dtype dtype, bool training) {
    return probe(backend, test_dtype(dtype), training) == SACCADE_OK;
}

/* The CPU serves everything that saccade promises; a refusal there is no excuse. */
bool attention_serves(const problem *p, const char *backend, const run_options *options, results *r) {
    results_create(p, r);
    if (attention_run(p, backend, p->dtype, options, r) == SACCADE_OK) return true;
    results_free(r);
    if (strcmp(backend, "cpu") == 0) fail_msg("%s: cpu refuses: %s", p->c.name, saccade_last_error());
    print_message("skipped: %s\n", saccade_last_error());
    return false;
}

void attention_results(const problem *p, const char *backend, const run_options *options, results *r) {
    if (!attention_serves(p, backend, options, r)) skip();
}

/* What the last problem must give. */
static struct {
    const attention_case *declared;
    bool forward_only;
    problem *p;
    results exact, plain;
} expected;

static void forget(void) {
    results_free(&expected.exact);
    results_free(&expected.plain);
    problem_free(expected.p);
    memset(&expected, 0, sizeof expected);
}

static void expect(const attention_case *c, sac_dtype dtype, bool forward_only, bool judged) {
    if (expected.declared == c && expected.p->dtype == dtype && expected.forward_only == forward_only) return;
    forget();
    expected.p = problem_create(c, dtype);
    if (!judged) return;
    results_create(expected.p, &expected.exact);
    results_create(expected.p, &expected.plain);
    run_options options = {.forward_only = forward_only};
    if (attention_run(expected.p, "reference", SAC_F64, &options, &expected.exact) != SACCADE_OK)
        fail_msg("%s: the reference refuses: %s", c->name, saccade_last_error());
    plain_formula(expected.p, forward_only, &expected.plain);
    expected.forward_only = forward_only;
    expected.declared = c; /* last: what failed on the way is not there */
}

void attention_verify(const attention_case *c, sac_dtype dtype, const char *backend,
                      const run_options *options) {
    results got;
    const bool judged = test_device_computes(test_device_of(backend));
    expect(c, dtype, options->forward_only, judged);
    attention_results(expected.p, backend, options, &got);
    if (judged)
        results_check(expected.p, backend, &got, &expected.exact, &expected.plain, options->forward_only);
    results_free(&got);
}

static void run_entry(void **state) {
    const suite_entry *entry = *state;
    skip_unless_usable(entry->backend);
    const bool forward_only = entry->forward_only || !backend_takes(entry->backend, entry->dtype, true);
    attention_verify(entry->c, entry->dtype, entry->backend,
                     &(run_options){.forward_only = forward_only, .layout = entry->c->layout});
}

/* Not even one backend: then that is what the program says. */
static void a_backend_to_test_exists(void **state) {
    (void)state;
    skip_because("no backend but the reference");
}

int attention_suite(const char *name, const attention_case *cases, size_t num_cases,
                    const suite_extra *extras, size_t num_extras, bool forward_only) {
    const char *const *backends = test_backends();
    size_t num_backends = 0, count = 0;
    while (backends[num_backends]) num_backends++;
    size_t most = (num_cases * COUNT_OF(dtypes) + num_extras) * num_backends + 1;
    struct CMUnitTest *tests = calloc(most, sizeof *tests);
    suite_entry *entries = calloc(most, sizeof *entries);
    if (!tests || !entries) return 1;
    for (size_t i = 0; i < num_cases * COUNT_OF(dtypes) * num_backends; i++) {
        const attention_case *c = &cases[i / num_backends / COUNT_OF(dtypes)];
        suite_entry *entry = &entries[count];
        *entry = (suite_entry){.c = c,
                               .dtype = dtypes[i / num_backends % COUNT_OF(dtypes)],
                               .backend = backends[i % num_backends],
                               .forward_only = forward_only};
        snprintf(entry->name, sizeof entry->name, "%s [%s, %s]", c->name, entry->backend,
                 dtype_names[entry->dtype]);
        tests[count++] =
            (struct CMUnitTest){.name = entry->name, .test_func = run_entry, .initial_state = entry};
    }
    for (size_t i = 0; i < num_extras * num_backends; i++) {
        suite_entry *entry = &entries[count];
        entry->backend = backends[i % num_backends];
        const suite_extra *extra = &extras[i / num_backends];
        snprintf(entry->name, sizeof entry->name, "%s [%s]", extra->name, entry->backend);
        tests[count++] = (struct CMUnitTest){
            .name = entry->name, .test_func = extra->test, .initial_state = (void *)&entry->backend};
    }
    if (num_backends == 0) tests[count++] = (struct CMUnitTest)cmocka_unit_test(a_backend_to_test_exists);
    count = test_take_shard(tests, count);
    cmocka_set_test_filter(getenv("SACCADE_TEST_FILTER")); /* NULL: all of them */
    int failed = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
    forget();
    free(tests);
    free(entries);
    return failed;
}
