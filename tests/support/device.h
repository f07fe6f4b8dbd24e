/* device.h - where the tensors of a backend live, so that one suite serves host and device.
 * A new kind of device is one line in the table of device.c. */
#ifndef TEST_DEVICE_H
#define TEST_DEVICE_H

#include <saccade/tensor.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct test_device {
    const char *backends; /* it holds the tensors of every backend whose name begins so; "" : of all others */
    DLDevice device;
    void *(*alloc)(size_t bytes); /* aligned to 256 bytes; NULL: this machine has no such device */
    void (*free)(void *pointer);
    void (*upload)(void *to, const void *from, size_t bytes);
    void (*download)(void *to, const void *from, size_t bytes); /* after everything queued has finished */
} test_device;

const test_device *test_device_of(const char *backend);

/* New memory there that holds these bytes. */
void *test_device_copy(const test_device *device, const void *data, size_t bytes);

/* False: the GPU is the stub of tools/stub_cuda.c, which is there to have kernels compiled; nothing is to be judged. */
bool test_device_computes(const test_device *device);

extern const test_device test_host;

/* The GPU; without one the test is skipped. */
const test_device *test_gpu(void);

/* Skips the test where there is no NVRTC to compile kernels with. */
void skip_without_compiler(void);

#endif
