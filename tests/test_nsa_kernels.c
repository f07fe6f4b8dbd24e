/* test_nsa_kernels.c - the device stages of native sparse attention compile for every architecture and keep to
 * registers. Needs NVRTC and no GPU; says so and skips where there is none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/nsa.h"
#include "support/cmocka_all.h"
#include "support/device.h"

static const struct {
    const char *source, *entry;
    int32_t threads;
    bool gated;         /* it differs by where gates come from */
    const char *define; /* NULL; or what is 1 in a variant of it */
} kernels[] = {
    {"cuda/kernels/nsa_offsets.cu", "nsa_offsets", 256, false, NULL},
    {"cuda/kernels/nsa_compress.cu", "nsa_compress", 256, false, NULL},
    {"cuda/kernels/nsa_weights.cu", "nsa_weights", 128, false, NULL},
    {"cuda/kernels/nsa_gate.cu", "nsa_gate", 256, true, NULL},
    {"cuda/kernels/nsa_gate_bwd.cu", "nsa_gate_bwd", 256, true, NULL},
    {"cuda/kernels/nsa_gate_bwd.cu", "nsa_gate_bwd", 256, true, "FOLDED"},
    {"cuda/kernels/nsa_query_grads.cu", "nsa_query_grads", 256, true, NULL},
    {"cuda/kernels/nsa_key_grads.cu", "nsa_key_grads", 256, false, NULL},
    {"cuda/kernels/nsa_join.cu", "nsa_join", 256, false, NULL},
    {"cuda/kernels/nsa_outer.cu", "nsa_outer", 256, false, NULL},
    {"cuda/kernels/nsa_sum_parts.cu", "nsa_sum_parts", 256, false, NULL},
};

/* Bytes a lane may spill: the assembler trades a few for another CTA on the SM. */
enum { MOST_SPILLED = 64 };

static void compile(const sac_kernel_spec *spec, const char *architecture, const sac_nsa_args *args) {
    void *cubin = NULL;
    size_t size = 0;
    char *log = NULL;
    if (sac_kernel_compile(spec, architecture, &cubin, &size, &log) != SACCADE_OK)
        fail_msg("%s, %s: %s", spec->entry, architecture, saccade_last_error());
    const char *at = strstr(log, "bytes stack frame, ");
    const int spilled = at ? atoi(at + strlen("bytes stack frame, ")) : -1;
    if (spilled < 0 || spilled > MOST_SPILLED)
        fail_msg("%s, %s, dtype %d, head_dim %d, %d: %d bytes spilled, at most %d are allowed\n%s",
                 spec->entry, architecture, args->dtype, args->head_dim, args->head_dim_v, spilled,
                 MOST_SPILLED, log);
    free(log);
    free(cubin);
}

/* Three ways to gate, each with another alignment of rows. */
static void compile_variants(const char *architecture, sac_dtype dtype, int32_t head_dim,
                             int32_t head_dim_v) {
    static char memory[64];
    for (int gate = 0; gate < 3; gate++) {
        sac_view view = {.data = (char *)64 + (gate == 2 ? 2 : 0)};
        const sac_nsa_args args = {.dtype = dtype,
                                   .head_dim = head_dim,
                                   .head_dim_v = head_dim_v,
                                   .w_gate = gate == 1 ? (char *)64 : NULL,
                                   .gates = {.data = gate == 2 ? memory : NULL}};
        for (size_t i = 0; i < COUNT_OF(kernels); i++) {
            if (gate == 1 && !kernels[i].gated) continue;
            sac_kernel_spec spec = sac_nsa_cuda_spec(&args, kernels[i].source, kernels[i].entry,
                                                     kernels[i].threads, SAC_NSA_VIEWS(&view));
            if (kernels[i].define) sac_kernel_define(&spec, kernels[i].define, 1);
            compile(&spec, architecture, &args);
        }
    }
}

static void every_stage_compiles_and_keeps_to_registers(void **state) {
    (void)state;
    skip_without_compiler();
    compile_variants("sm_80", SAC_BF16, 128, 128);
    compile_variants("sm_90", SAC_F16, 24, 40);
    compile_variants("sm_100", SAC_F32, 256, 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_stage_compiles_and_keeps_to_registers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
