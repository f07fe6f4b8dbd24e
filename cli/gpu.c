/* gpu.c - libcuda is opened when it is needed, with the few entry points that copying takes. */
#include "gpu.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "dtype.h"

/* cuda.h's names and types. */
static struct {
    int (*init)(unsigned flags);
    int (*retain)(void **context, int device);
    int (*release)(int device);
    int (*push)(void *context);
    int (*pop)(void **context);
    int (*synchronize)(void);
    int (*alloc)(uint64_t *pointer, size_t bytes);
    int (*free)(uint64_t pointer);
    int (*upload)(uint64_t to, const void *from, size_t bytes);
    int (*download)(void *to, uint64_t from, size_t bytes);
    int (*error_text)(int result, const char **text);
} cu;

static const struct {
    void *to;
    const char *symbol;
} symbols[] = {
    {&cu.init, "cuInit"},
    {&cu.retain, "cuDevicePrimaryCtxRetain"},
    {&cu.release, "cuDevicePrimaryCtxRelease_v2"},
    {&cu.push, "cuCtxPushCurrent_v2"},
    {&cu.pop, "cuCtxPopCurrent_v2"},
    {&cu.synchronize, "cuCtxSynchronize"},
    {&cu.alloc, "cuMemAlloc_v2"},
    {&cu.free, "cuMemFree_v2"},
    {&cu.upload, "cuMemcpyHtoD_v2"},
    {&cu.download, "cuMemcpyDtoH_v2"},
    {&cu.error_text, "cuGetErrorString"},
};

typedef struct copy {
    const DLTensor *of;
    DLTensor tensor; /* shape and strides are those of the original */
    struct copy *next;
} copy;

struct gpu_copies {
    void *context;
    copy *first;
};

static bool good(const char *what, int result) {
    const char *text = "unknown error";
    if (result == 0) return true;
    cu.error_text(result, &text);
    complain("%s the GPU: %s", what, text);
    return false;
}

static bool open_library(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        complain("there is no GPU here: no NVIDIA driver: %s", dlerror());
        return false;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (!(*(void **)symbols[i].to = dlsym(library, symbols[i].symbol))) {
            complain("the NVIDIA driver is too old: it has no %s", symbols[i].symbol);
            return false;
        }
    return true;
}

bool gpu_enter(const char **backend, gpu_copies **copies) {
    *copies = NULL;
    if (!*backend || strncmp(*backend, "cuda", strlen("cuda")) != 0) return true;
    void *context;
    if (!open_library() || !good("opening", cu.init(0)) || !good("opening", cu.retain(&context, 0)) ||
        !good("opening", cu.push(context)))
        return false;
    *copies = allocate(sizeof **copies);
    (*copies)->context = context;
    if (strcmp(*backend, "cuda") == 0) *backend = NULL;
    return true;
}

static void free_copy(copy *c) {
    cu.free((uint64_t)(uintptr_t)c->tensor.data);
    free(c);
}

void gpu_copies_free(gpu_copies *copies) {
    if (!copies) return;
    for (copy *c = copies->first, *next; c; c = next) {
        next = c->next;
        free_copy(c);
    }
    cu.pop(&copies->context);
    cu.release(0);
    free(copies);
}

void gpu_forget(gpu_copies *copies, const DLTensor *tensor) {
    if (!copies) return;
    for (copy **link = &copies->first; *link; link = &(*link)->next) {
        if ((*link)->of != tensor) continue;
        copy *found = *link;
        *link = found->next;
        free_copy(found);
        return;
    }
}

static size_t bytes_of(const DLTensor *tensor) {
    return tensor_elements(tensor) * dtype_bytes(tensor->dtype);
}

DLTensor *gpu_copy_of(gpu_copies *copies, const DLTensor *tensor) {
    uint64_t pointer = 0;
    if (!copies || !tensor) return (DLTensor *)tensor;
    for (copy *c = copies->first; c; c = c->next)
        if (c->of == tensor) return &c->tensor;
    copy *c = allocate(sizeof *c);
    *c = (copy){.of = tensor, .tensor = *tensor, .next = copies->first};
    copies->first = c;
    if (good("allocating on", cu.alloc(&pointer, bytes_of(tensor) + 1)))
        good("copying to",
             cu.upload(pointer, (const char *)tensor->data + tensor->byte_offset, bytes_of(tensor)));
    c->tensor.data = (void *)(uintptr_t)pointer;
    c->tensor.byte_offset = 0;
    c->tensor.device = (DLDevice){kDLCUDA, 0};
    return &c->tensor;
}

bool gpu_wait(const gpu_copies *copies) { return !copies || good("computing on", cu.synchronize()); }

bool gpu_copy_back(const gpu_copies *copies, DLTensor *tensor) {
    for (const copy *c = copies ? copies->first : NULL; c; c = c->next)
        if (c->of == tensor)
            return good("copying from",
                        cu.download(tensor->data, (uint64_t)(uintptr_t)c->tensor.data, bytes_of(tensor)));
    return true;
}
