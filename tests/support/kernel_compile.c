/* kernel_compile.c - see kernel_compile.h. */
#include "support/kernel_compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/nvrtc.h"
#include "support/cmocka_all.h"

void assert_compiles_clean(const sac_kernel_spec *spec, const char *what) {
    const char *reason;
    if (!sac_nvrtc_get(&reason)) {
        printf("skipped: %s\n", reason);
        skip();
    }
    char *log = NULL;
    void *cubin = NULL;
    size_t size;
    if (sac_kernel_compile(spec, "sm_90a", &cubin, &size, &log) != SACCADE_OK)
        fail_msg("%s: %s", what, saccade_last_error());
    const char *warning = strstr(log, "(C75"), *spills = strstr(log, " bytes spill stores");
    assert_non_null(spills);
    while (spills > log && spills[-1] >= '0' && spills[-1] <= '9') spills--;
    if (warning || atoi(spills) > 0) fail_msg("%s: %s", what, log);
    free(cubin);
    free(log);
}
