/* stub_cuda.c - a libcuda.so.1 for machines without a GPU: it says it is an H200, keeps "device" memory on the host,
 * and launches nothing. Programs that find it go through every call up to the launch, so that all kernels they would
 * run are compiled and reach the disk cache (scripts/warm-kernels); their results are of course wrong. What a driver
 * would refuse, it refuses too: launches and tensor maps. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/driver.h"

/* Any addresses will do for what is only handed back. */
static char things[8];
enum { CONTEXT, MODULE, FUNCTION, STREAM, GRAPH, EXEC };
#define THING(i) ((void *)&things[i])

enum { SMEM_BYTES = 227 << 10 };
enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

/* Declared, defined, visible. */
#define STUB(name, ...)                                                                                      \
    __attribute__((visibility("default"))) CUresult name(__VA_ARGS__);                                       \
    CUresult name(__VA_ARGS__)
#define UNUSED __attribute__((unused))

/* ---- the device ---- */

STUB(cuInit, unsigned flags UNUSED) { return 0; }

STUB(cuDriverGetVersion, int *version) {
    *version = 13000;
    return 0;
}

/* The compiler looks for private tables of the driver and does without. */
STUB(cuGetExportTable, const void **table, const void *id UNUSED) {
    *table = NULL;
    return NOT_FOUND;
}

STUB(cuGetErrorName, CUresult result UNUSED, const char **text) {
    *text = "STUB";
    return 0;
}

STUB(cuGetErrorString, CUresult result UNUSED, const char **text) {
    *text = "an error of the stub";
    return 0;
}

STUB(cuDeviceGetCount, int *count) {
    *count = 1;
    return 0;
}

STUB(cuDeviceGetName, char *name, int size, CUdevice device UNUSED) {
    strncpy(name, "stub of an H200", (size_t)size);
    return 0;
}

STUB(cuDeviceGetAttribute, int *value, int which, CUdevice device UNUSED) {
    *value = which == SAC_CU_ATTRIBUTE_NUM_SMS            ? 132
             : which == SAC_CU_ATTRIBUTE_L2_BYTES         ? 60 << 20
             : which == SAC_CU_ATTRIBUTE_CAPABILITY_MAJOR ? 9
             : which == SAC_CU_ATTRIBUTE_SMEM_PER_CTA     ? SMEM_BYTES
                                                          : 0;
    return 0;
}

/* ---- contexts ---- */

enum { MOST_CONTEXTS = 64 };
static _Thread_local CUcontext stack[MOST_CONTEXTS];
static _Thread_local int depth;

STUB(cuDevicePrimaryCtxRetain, CUcontext *context, CUdevice device UNUSED) {
    *context = THING(CONTEXT);
    return 0;
}

STUB(cuDevicePrimaryCtxRelease_v2, CUdevice device UNUSED) { return 0; }

STUB(cuCtxPushCurrent_v2, CUcontext context) {
    if (depth == MOST_CONTEXTS) return OUT_OF_MEMORY;
    stack[depth++] = context;
    return 0;
}

STUB(cuCtxGetCurrent, CUcontext *context) {
    *context = depth ? stack[depth - 1] : NULL;
    return 0;
}

STUB(cuCtxPopCurrent_v2, CUcontext *context) {
    *context = depth ? stack[--depth] : NULL;
    return 0;
}

STUB(cuCtxSetCurrent, CUcontext context) {
    stack[0] = context;
    depth = 1;
    return 0;
}

STUB(cuCtxSynchronize, void) { return 0; }

/* ---- kernels ---- */

STUB(cuModuleLoadData, CUmodule *module, const void *image UNUSED) {
    *module = THING(MODULE);
    return 0;
}

STUB(cuModuleUnload, CUmodule module UNUSED) { return 0; }

STUB(cuModuleGetFunction, CUfunction *function, CUmodule module UNUSED, const char *name UNUSED) {
    *function = THING(FUNCTION);
    return 0;
}

STUB(cuFuncSetAttribute, CUfunction function UNUSED, int which UNUSED, int value UNUSED) { return 0; }

static bool is_within(uint64_t value, uint64_t most) { return value >= 1 && value <= most; }

STUB(cuLaunchKernel, CUfunction function UNUSED, unsigned x, unsigned y, unsigned z, unsigned threads_x,
     unsigned threads_y, unsigned threads_z, unsigned smem, CUstream stream UNUSED, void **params UNUSED,
     void **extra UNUSED) {
    const bool grid = is_within(x, INT32_MAX) && is_within(y, UINT16_MAX) && is_within(z, UINT16_MAX);
    const bool threads = is_within((uint64_t)threads_x * threads_y * threads_z, 1024);
    return grid && threads && smem <= SMEM_BYTES ? 0 : INVALID_VALUE;
}

/* As the driver's manual has it, of 16-bit elements that are swizzled by 128 bytes. */
STUB(cuTensorMapEncodeTiled, void *map UNUSED, int dtype UNUSED, uint32_t rank, void *address,
     const uint64_t *extents, const uint64_t *strides, const uint32_t *box, const uint32_t *element_strides,
     int interleave UNUSED, int swizzle UNUSED, int promotion UNUSED, int fill UNUSED) {
    bool valid =
        is_within(rank, 5) && (uintptr_t)address % 16 == 0 && is_within(box[0], 64) && box[0] % 8 == 0;
    for (uint32_t i = 0; i < rank; i++)
        valid = valid && is_within(extents[i], (uint64_t)1 << 32) && is_within(box[i], 256) &&
                is_within(element_strides[i], 8);
    for (uint32_t i = 0; i + 1 < rank; i++)
        valid = valid && strides[i] % 16 == 0 && strides[i] < (uint64_t)1 << 40;
    return valid ? 0 : INVALID_VALUE;
}

/* ---- memory ---- */

static void *address_of(CUdeviceptr pointer) { return (void *)(uintptr_t)pointer; }

STUB(cuMemAlloc_v2, CUdeviceptr *pointer, size_t bytes) {
    *pointer = (CUdeviceptr)(uintptr_t)aligned_alloc(512, (bytes + 511) / 512 * 512);
    return *pointer ? 0 : OUT_OF_MEMORY;
}

STUB(cuMemFree_v2, CUdeviceptr pointer) {
    free(address_of(pointer));
    return 0;
}

STUB(cuMemAllocAsync, CUdeviceptr *pointer, size_t bytes, CUstream stream UNUSED) {
    return cuMemAlloc_v2(pointer, bytes);
}

STUB(cuMemFreeAsync, CUdeviceptr pointer, CUstream stream UNUSED) { return cuMemFree_v2(pointer); }

STUB(cuMemcpy, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    memcpy(address_of(to), address_of(from), bytes);
    return 0;
}

STUB(cuMemcpyAsync, CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream UNUSED) {
    return cuMemcpy(to, from, bytes);
}

STUB(cuMemcpyHtoD_v2, CUdeviceptr to, const void *from, size_t bytes) {
    memcpy(address_of(to), from, bytes);
    return 0;
}

STUB(cuMemcpyDtoH_v2, void *to, CUdeviceptr from, size_t bytes) {
    memcpy(to, address_of(from), bytes);
    return 0;
}

STUB(cuMemsetD8Async, CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream UNUSED) {
    memset(address_of(to), value, bytes);
    return 0;
}

STUB(cuMemGetInfo_v2, size_t *available, size_t *total) {
    *total = (size_t)141 << 30;
    *available = *total / 2;
    return 0;
}

/* ---- streams and graphs ---- */

STUB(cuStreamCreate, CUstream *stream, unsigned flags UNUSED) {
    *stream = THING(STREAM);
    return 0;
}

STUB(cuStreamDestroy_v2, CUstream stream UNUSED) { return 0; }

STUB(cuStreamSynchronize, CUstream stream UNUSED) { return 0; }

STUB(cuStreamIsCapturing, CUstream stream UNUSED, int *state) {
    *state = 0;
    return 0;
}

STUB(cuThreadExchangeStreamCaptureMode, int *mode UNUSED) { return 0; }

STUB(cuStreamBeginCapture_v2, CUstream stream UNUSED, int mode UNUSED) { return 0; }

STUB(cuStreamEndCapture, CUstream stream UNUSED, void **graph) {
    *graph = THING(GRAPH);
    return 0;
}

STUB(cuGraphInstantiateWithFlags, void **exec, void *graph UNUSED, unsigned long long flags UNUSED) {
    *exec = THING(EXEC);
    return 0;
}

STUB(cuGraphLaunch, void *exec UNUSED, CUstream stream UNUSED) { return 0; }

STUB(cuGraphExecDestroy, void *exec UNUSED) { return 0; }

STUB(cuGraphDestroy, void *graph UNUSED) { return 0; }
