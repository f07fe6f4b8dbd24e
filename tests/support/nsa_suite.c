/* nsa_suite.c - tests x backends. */
#include "support/nsa_suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/attention_suite.h"

typedef struct nsa_entry {
    nsa_place place;
    CMUnitTestFunction run;
    char name[160];
} nsa_entry;

static nsa_place here = {.name = "cpu", .device = &test_host};

const nsa_place *nsa_here(void) { return &here; }

void nsa_host_only(void) {
    if (here.device == &test_host) return;
    skip_because("about host memory");
}

static void run_there(void **state) {
    const nsa_entry *test = *state;
    skip_unless_usable(test->place.name);
    here = test->place;
    test->run(state);
}

static nsa_place place_of(const char *backend) {
    nsa_place place = {.name = backend, .device = test_device_of(backend)};
    if (strcmp(backend, "cuda-portable") == 0) place.backend = backend;
    return place;
}

int nsa_suite(const struct CMUnitTest *tests, size_t count) {
    const char *const *backends = test_backends();
    size_t num_backends = 0, num_tests = 0;
    while (backends[num_backends]) num_backends++;
    struct CMUnitTest *mine = calloc(count + 1, sizeof *mine);
    struct CMUnitTest *all = calloc(count * num_backends + 1, sizeof *all);
    nsa_entry *entries = calloc(count * num_backends + 1, sizeof *entries);
    if (!mine || !all || !entries) return 1;
    memcpy(mine, tests, count * sizeof *tests);
    count = test_take_shard(mine, count);
    for (size_t b = 0; b < num_backends; b++)
        for (size_t i = 0; i < count; i++) {
            nsa_entry *entry = &entries[num_tests];
            *entry = (nsa_entry){.place = place_of(backends[b]), .run = mine[i].test_func};
            snprintf(entry->name, sizeof entry->name, "%s: %s", backends[b], mine[i].name);
            all[num_tests++] =
                (struct CMUnitTest){.name = entry->name, .test_func = run_there, .initial_state = entry};
        }
    int failures = _cmocka_run_group_tests("nsa", all, num_tests, NULL, NULL);
    free(mine);
    free(all);
    free(entries);
    return failures;
}
