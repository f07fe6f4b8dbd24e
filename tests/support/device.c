/* device.c - the host's memory, the first GPU's, and the table of devices. */
#include "support/device.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/driver.h"
#include "cuda/nvrtc.h"
#include "support/cmocka_all.h"

static void *host_alloc(size_t bytes) { return aligned_alloc(256, (bytes + 256) / 256 * 256); }

static void host_copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

const test_device test_host = {.backends = "",
                               .device = {kDLCPU, 0},
                               .alloc = host_alloc,
                               .free = free,
                               .upload = host_copy,
                               .download = host_copy};

/* ---- GPU 0, through the driver ---- */

/* Makes its primary context current until cuda_end; NULL where there is no GPU. */
static const sac_driver *cuda_begin(void) {
    static CUcontext context;
    const sac_driver *driver = sac_driver_get(NULL);
    if (!driver) return NULL;
    if (!context && driver->primary_retain(&context, 0) != 0) return NULL;
    return driver->context_push(context) == 0 ? driver : NULL;
}

static void cuda_end(const sac_driver *driver) {
    CUcontext popped;
    driver->context_pop(&popped);
}

/* Freed memory is kept for the next that needs about as much: the driver's allocator waits for the GPU, and for every
 * other process that has a share of its time. */
enum { MOST_KEPT = 256, MOST_BYTES_KEPT = 64 << 20 };
static struct {
    CUdeviceptr pointer;
    size_t bytes;
    bool used;
} kept[MOST_KEPT];
static int num_kept;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER; /* tests have threads */

static CUdeviceptr take_kept(size_t bytes) {
    for (int i = 0; i < num_kept; i++)
        if (!kept[i].used && kept[i].bytes >= bytes && kept[i].bytes / 2 <= bytes) {
            kept[i].used = true;
            return kept[i].pointer;
        }
    return 0;
}

static void *cuda_alloc(size_t bytes) {
    const sac_driver *driver = cuda_begin();
    if (!driver) return NULL;
    pthread_mutex_lock(&kept_lock);
    CUdeviceptr pointer = take_kept(bytes + 1);
    if (!pointer && driver->alloc(&pointer, bytes + 1) == 0 && num_kept < MOST_KEPT &&
        bytes < MOST_BYTES_KEPT) {
        kept[num_kept].pointer = pointer;
        kept[num_kept].bytes = bytes + 1;
        kept[num_kept++].used = true;
    }
    pthread_mutex_unlock(&kept_lock);
    cuda_end(driver);
    return (void *)(uintptr_t)pointer;
}

static void cuda_free(void *pointer) {
    const sac_driver *driver = cuda_begin();
    if (!driver) return;
    pthread_mutex_lock(&kept_lock);
    for (int i = 0; i < num_kept; i++)
        if (kept[i].pointer == (CUdeviceptr)(uintptr_t)pointer) {
            kept[i].used = false;
            pointer = NULL;
        }
    pthread_mutex_unlock(&kept_lock);
    if (pointer) driver->free((CUdeviceptr)(uintptr_t)pointer);
    cuda_end(driver);
}

/* Copies are ordered after everything on the legacy default stream, and a failed kernel shows here at the latest. They
 * are waited for: the driver returns while its own copy of the host's bytes is on its way, and a stream that does not
 * wait for the default one would meet it. */
static void cuda_copy(void *to, const void *from, size_t bytes) {
    const sac_driver *driver = cuda_begin();
    if (!driver) abort();
    CUresult result =
        bytes ? driver->copy((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from, bytes) : 0;
    if (bytes && result == 0) result = driver->stream_sync(NULL);
    if (sac_driver_check(result, "copying test data") != SACCADE_OK) {
        fprintf(stderr, "%s\n", saccade_last_error());
        abort();
    }
    cuda_end(driver);
}

static const test_device test_cuda = {.backends = "cuda",
                                      .device = {kDLCUDA, 0},
                                      .alloc = cuda_alloc,
                                      .free = cuda_free,
                                      .upload = cuda_copy,
                                      .download = cuda_copy};

/* The host last: it serves every name. */
static const test_device *const devices[] = {&test_cuda, &test_host};

const test_device *test_device_of(const char *backend) {
    size_t i = 0;
    while (strncmp(backend, devices[i]->backends, strlen(devices[i]->backends)) != 0) i++;
    return devices[i];
}

void *test_device_copy(const test_device *device, const void *data, size_t bytes) {
    void *copy = device->alloc(bytes);
    assert_non_null(copy);
    device->upload(copy, data, bytes);
    return copy;
}

bool test_device_computes(const test_device *device) {
    char name[64] = "";
    const sac_driver *driver = device == &test_cuda ? sac_driver_get(NULL) : NULL;
    if (driver) driver->device_name(name, sizeof name, 0);
    return strncmp(name, "stub", 4) != 0;
}

const test_device *test_gpu(void) {
    const char *reason;
    if (!sac_driver_get(&reason)) {
        skip_because("%s", reason);
    }
    return &test_cuda;
}

void skip_without_compiler(void) {
    const char *reason;
    if (sac_nvrtc_get(&reason)) return;
    skip_because("%s", reason);
}
