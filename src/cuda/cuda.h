/* cuda.h - what a kernel's launcher stands on: the device, and launching a kernel by what it is told.
 *
 *     const sac_cuda_device *device;
 *     saccade_status status = sac_cuda_enter(ctx, call->device.device_id, &device);
 *     if (status != SACCADE_OK) return status;
 *     sac_kernel_spec spec = {.source = "cuda/kernels/merge.cu", .entry = "merge", .threads = 256};
 *     sac_kernel_define(&spec, "HEAD_DIM", 128);
 *     status = sac_kernel_launch(ctx, device, &spec, num_ctas, (void *[]){&args});
 *     sac_cuda_leave();
 *
 * A kernel comes from the pack of standard variants or the disk cache, or is compiled, when a context first launches it
 * on a device, and is kept with the context. Nothing that is data may be in a spec.
 */
#ifndef SAC_CUDA_CUDA_H
#define SAC_CUDA_CUDA_H

#include <saccade/context.h>
#include <saccade/tensor.h>
#include <stdbool.h>

#include "cuda/driver.h"

typedef struct sac_cuda_device {
    int32_t id;
    int32_t compute_capability; /* 90 for sm_90 */
    int32_t num_sms;
    int32_t smem_bytes; /* that one CTA may have */
    int64_t l2_bytes;
    char name[96];
    CUcontext context; /* its primary context */
} sac_cuda_device;

/* What backends' rules look at. Owned by the context. */
typedef struct sac_cuda_facts {
    const sac_cuda_device *device; /* NULL: `no_device` says why */
    const char *no_device;
    const char *no_compiler; /* NULL: there is one */
    const char *pack;        /* what is known of the pack of compiled kernels, in words */
} sac_cuda_facts;

const sac_cuda_facts *sac_cuda_facts_of(saccade_context *ctx, DLDevice device);

/* Makes the device's primary context the thread's current one; leave makes the caller's current again. Every
 * successful enter is followed by one leave. */
saccade_status sac_cuda_enter(saccade_context *ctx, int32_t device_id, const sac_cuda_device **device);
void sac_cuda_leave(void);

enum { SAC_MAX_DEFINES = 32 };

typedef struct sac_kernel_spec {
    const char *source;    /* path of an embedded text: "cuda/kernels/merge.cu" */
    const char *entry;     /* the kernel's extern "C" name */
    const char *modifiers; /* text that the source includes as <modifiers.h>; NULL: none */
    bool arch_specific;    /* for this architecture only: sm_90a */
    int32_t threads;
    int32_t smem_bytes; /* dynamic */
    int32_t num_defines;
    struct sac_define {
        const char *name; /* a literal */
        int32_t value;
    } defines[SAC_MAX_DEFINES];
} sac_kernel_spec;

void sac_kernel_define(sac_kernel_spec *spec, const char *name, int32_t value);

/* Shared memory that one CTA may have on the smallest kind of GPU of a compute capability. */
int32_t sac_cuda_smem_of(int32_t compute_capability);

/* On the context's stream; the device must have been entered. A grid has one dimension, so that no size can
 * pass 65,535 in another. num_ctas 0: does nothing.
 * Errors: COMPILE_FAILED with the compiler's log, DEVICE_ERROR, UNSUPPORTED (a grid above 2^31 - 1). */
saccade_status sac_kernel_launch(saccade_context *ctx, const sac_cuda_device *device,
                                 const sac_kernel_spec *spec, int64_t num_ctas, void **params);

/* In the place of a launch: starts to compile, in a thread, what is neither loaded nor under way nor in the pack or on
 * the disk. Always OK; num_ctas and params do not matter. */
saccade_status sac_kernel_prefetch(saccade_context *ctx, const sac_cuda_device *device,
                                   const sac_kernel_spec *spec, int64_t num_ctas, void **params);

/* Compiles and does not load: for any architecture, with no GPU. "sm_90a". log (registers, spills) may be NULL. */
saccade_status sac_kernel_compile(const sac_kernel_spec *spec, const char *architecture, void **cubin,
                                  size_t *size, char **log);

/* A backend's alloc and free: the driver's stream-ordered allocator. */
void *sac_cuda_alloc(saccade_context *ctx, DLDevice device, size_t bytes);
void sac_cuda_free(saccade_context *ctx, DLDevice device, void *pointer);

/* Zeroes, on the context's stream; the device must have been entered. */
saccade_status sac_cuda_clear(saccade_context *ctx, void *pointer, size_t bytes);

#endif
