/* table.c - this instruction set's row of kernels. */
#include "cpu/kernels/backward.h"
#include "cpu/kernels/forward.h"

static size_t scratch_bytes(const sac_attention_args *args, bool backward, int num_tiles) {
    tile_scratch measured[SAC_CPU_MAX_TOGETHER];
    return sac_tile_scratch(args, backward, num_tiles, NULL, measured);
}

static void multiply(const gemm *g) {
    sac_gemm_begin();
    sac_gemm(g);
    sac_gemm_end();
}

#define sac_cpu_kernels_ SAC_FOR_ISA(sac_cpu_kernels)
extern const sac_cpu_kernels sac_cpu_kernels_;
const sac_cpu_kernels sac_cpu_kernels_ = {
    .kv_tile = sac_kv_tile,
    .scratch_bytes = scratch_bytes,
    .forward = sac_forward,
    .forward_part = sac_forward_part,
    .combine = sac_forward_combine,
    .backward = sac_backward,
    .reduce = sac_reduce,
    .narrow = sac_narrow,
    .multiply = multiply,
    .lanes = LANES,
    .has_pairs = HAVE_PAIRS,
};
