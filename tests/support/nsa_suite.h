/* nsa_suite.h - the tests of native sparse attention on the host and on a GPU: the same ones, with tensors there. */
#ifndef TEST_NSA_SUITE_H
#define TEST_NSA_SUITE_H

#include <stddef.h>

#include "support/cmocka_all.h"
#include "support/device.h"
#include "support/shard.h"

/* Where sessions (nsa_run.h) put their tensors, and whose branches they ask for. */
typedef struct nsa_place {
    const char *name;    /* of test_backends() */
    const char *backend; /* as in saccade_nsa_params; NULL: the library's choice */
    const test_device *device;
} nsa_place;
const nsa_place *nsa_here(void);

/* Skips a test that is about host memory alone. */
void nsa_host_only(void);

/* Runs every test on every backend of test_backends(): on a GPU "cuda-portable" is pinned, any other means the
 * library's choice, since one backend need not serve every case. SACCADE_TEST_SHARD as in shard.h. */
int nsa_suite(const struct CMUnitTest *tests, size_t count);

#endif
