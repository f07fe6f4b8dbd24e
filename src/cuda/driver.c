/* driver.c - opens libcuda once a process. */
#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static sac_driver driver;
static char missing[256]; /* why there is no driver; empty: there is one */

/* Of CUDA 11 and earlier: they load no code of the compilers that are served (nvrtc.c). */
static void say_too_old(const char *symbol) {
    int version = 0;
    if (driver.driver_version) driver.driver_version(&version);
    snprintf(missing, sizeof missing, "the NVIDIA driver is of CUDA %d.%d; needed: 12.0 (it lacks %s)",
             version / 1000, version % 1000 / 10, symbol);
}

static void open_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(missing, sizeof missing, "no NVIDIA driver: %s", dlerror());
        return;
    }
#define FIND(name, symbol, arguments)                                                                        \
    if (!(driver.name = (CUresult(*) arguments)dlsym(library, symbol))) {                                    \
        say_too_old(symbol);                                                                                 \
        return;                                                                                              \
    }
    SAC_DRIVER_TABLE(FIND)
#undef FIND
    *(void **)&driver.encode_tiled = dlsym(library, "cuTensorMapEncodeTiled");
    CUresult result = driver.init(0);
    if (result == 0) result = driver.device_count(&driver.num_devices);
    const char *text = "unknown error";
    if (result != 0) {
        driver.error_text(result, &text);
        snprintf(missing, sizeof missing, "the NVIDIA driver does not start: %s", text);
    } else if (driver.num_devices == 0) {
        snprintf(missing, sizeof missing, "the NVIDIA driver sees no GPU");
    }
}

const sac_driver *sac_driver_get(const char **reason) {
    pthread_once(&once, open_driver);
    if (reason) *reason = missing;
    return *missing ? NULL : &driver;
}

saccade_status sac_driver_check(CUresult result, const char *what) {
    if (result == 0) return SACCADE_OK;
    const char *name = "unknown", *text = "unknown error";
    driver.error_name(result, &name);
    driver.error_text(result, &text);
    return sac_fail(SACCADE_DEVICE_ERROR, "%s: %s (%s)", what, text, name);
}
