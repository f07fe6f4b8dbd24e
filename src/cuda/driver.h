/* driver.h - libcuda, opened when first needed: a machine without it loses the GPU backends and nothing else.
 *
 * The few entry points that saccade uses are declared here, so that no toolkit is needed to build.
 */
#ifndef SAC_CUDA_DRIVER_H
#define SAC_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef int CUresult; /* 0: success */
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;

enum { /* values of the driver's interface, as far as they are used */
       SAC_CU_ATTRIBUTE_NUM_SMS = 16,
       SAC_CU_ATTRIBUTE_L2_BYTES = 38,
       SAC_CU_ATTRIBUTE_CAPABILITY_MAJOR = 75,
       SAC_CU_ATTRIBUTE_CAPABILITY_MINOR = 76,
       SAC_CU_ATTRIBUTE_SMEM_PER_CTA = 97,
       SAC_CU_FUNCTION_DYNAMIC_SMEM = 8,
       SAC_CU_CAPTURE_RELAXED = 2,
};

/* One row per entry point: our name, the driver's symbol, its arguments. */
#define SAC_DRIVER_TABLE(ROW)                                                                                \
    ROW(init, "cuInit", (unsigned))                                                                          \
    ROW(driver_version, "cuDriverGetVersion", (int *))                                                       \
    ROW(error_name, "cuGetErrorName", (CUresult, const char **))                                             \
    ROW(error_text, "cuGetErrorString", (CUresult, const char **))                                           \
    ROW(device_count, "cuDeviceGetCount", (int *))                                                           \
    ROW(device_name, "cuDeviceGetName", (char *, int, CUdevice))                                             \
    ROW(device_attribute, "cuDeviceGetAttribute", (int *, int, CUdevice))                                    \
    ROW(primary_retain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                 \
    ROW(primary_release, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                         \
    ROW(context_push, "cuCtxPushCurrent_v2", (CUcontext))                                                    \
    ROW(context_pop, "cuCtxPopCurrent_v2", (CUcontext *))                                                    \
    ROW(context_sync, "cuCtxSynchronize", (void))                                                            \
    ROW(exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", (int *))                                 \
    ROW(module_load, "cuModuleLoadData", (CUmodule *, const void *))                                         \
    ROW(module_unload, "cuModuleUnload", (CUmodule))                                                         \
    ROW(module_function, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))                      \
    ROW(function_set, "cuFuncSetAttribute", (CUfunction, int, int))                                          \
    ROW(launch, "cuLaunchKernel",                                                                            \
        (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,         \
         void **, void **))                                                                                  \
    ROW(alloc_async, "cuMemAllocAsync", (CUdeviceptr *, size_t, CUstream))                                   \
    ROW(free_async, "cuMemFreeAsync", (CUdeviceptr, CUstream))                                               \
    ROW(alloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                                     \
    ROW(free, "cuMemFree_v2", (CUdeviceptr))                                                                 \
    ROW(copy, "cuMemcpy", (CUdeviceptr, CUdeviceptr, size_t))                                                \
    ROW(set8_async, "cuMemsetD8Async", (CUdeviceptr, unsigned char, size_t, CUstream))                       \
    ROW(stream_is_capturing, "cuStreamIsCapturing", (CUstream, int *))                                       \
    ROW(stream_sync, "cuStreamSynchronize", (CUstream))

typedef struct sac_driver {
#define SAC_DRIVER_MEMBER(name, symbol, arguments) CUresult(*name) arguments;
    SAC_DRIVER_TABLE(SAC_DRIVER_MEMBER)
#undef SAC_DRIVER_MEMBER
    /* sm_90 and newer; NULL in a driver too old for it. */
    CUresult (*encode_tiled)(void *map, int dtype, uint32_t rank, void *address, const uint64_t *extents,
                             const uint64_t *strides, const uint32_t *box, const uint32_t *element_strides,
                             int interleave, int swizzle, int l2_promotion, int out_of_bounds_fill);
    int num_devices;
} sac_driver;

/* The initialised driver of this process; NULL, and *reason (a constant text), where there is none. */
const sac_driver *sac_driver_get(const char **reason);

/* OK, or DEVICE_ERROR with the driver's words after `what` was tried. */
saccade_status sac_driver_check(CUresult result, const char *what);

#endif
