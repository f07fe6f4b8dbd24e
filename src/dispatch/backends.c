/* backends.c - every backend, in the order of preference when ranks are equal. A new backend is one line here. */
#include "dispatch/dispatch.h"

#include "cpu/cpu.h"
#include "cuda/attn_portable.h"
#include "cuda/sm90.h"
#include "reference/reference.h"

const sac_backend *const sac_backends[] = {
    &sac_cuda_sm90_backend, &sac_cuda_portable_backend, &sac_cpu_backend, &sac_reference_backend, NULL,
};
