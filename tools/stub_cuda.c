/* stub_cuda.c - a libcuda.so.1 for machines without a GPU: it says it is an H200, keeps "device" memory on the host,
 * and launches nothing. Programs that find it go through every call up to the launch, so that all kernels they would
 * run are compiled and reach the disk cache (scripts/warm-kernels); their results are of course wrong. */
#include <stdlib.h>
#include <string.h>

#include "cuda/driver.h"

/* Any addresses will do for what is only handed back. */
static char things[8];
enum { CONTEXT, MODULE, FUNCTION, STREAM, GRAPH, EXEC };
#define THING(i) ((void *)&things[i])

enum { OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

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
             : which == SAC_CU_ATTRIBUTE_SMEM_PER_CTA     ? 227 << 10
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

STUB(cuLaunchKernel, CUfunction function UNUSED, unsigned x UNUSED, unsigned y UNUSED, unsigned z UNUSED,
     unsigned threads_x UNUSED, unsigned threads_y UNUSED, unsigned threads_z UNUSED, unsigned smem UNUSED,
     CUstream stream UNUSED, void **params UNUSED, void **extra UNUSED) {
    return 0;
}

STUB(cuTensorMapEncodeTiled, void *map UNUSED, int dtype UNUSED, uint32_t rank UNUSED, void *address UNUSED,
     const uint64_t *extents UNUSED, const uint64_t *strides UNUSED, const uint32_t *box UNUSED,
     const uint32_t *element_strides UNUSED, int interleave UNUSED, int swizzle UNUSED, int promotion UNUSED,
     int fill UNUSED) {
    return 0;
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
