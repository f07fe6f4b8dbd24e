/* cuda_graph.c - the driver's entry points for graphs, which the library itself has no use for. */
#include "support/cuda_graph.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "cuda/driver.h"
#include "support/cmocka_all.h"

static struct {
    CUresult (*stream_create)(CUstream *, unsigned);
    CUresult (*stream_destroy)(CUstream);
    CUresult (*begin_capture)(CUstream, int);
    CUresult (*end_capture)(CUstream, void **graph);
    CUresult (*instantiate)(void **exec, void *graph, unsigned long long);
    CUresult (*graph_launch)(void *exec, CUstream);
    CUresult (*exec_destroy)(void *exec);
    CUresult (*graph_destroy)(void *graph);
} cu;

static const struct {
    void *to;
    const char *symbol;
} symbols[] = {{&cu.stream_create, "cuStreamCreate"},
               {&cu.stream_destroy, "cuStreamDestroy_v2"},
               {&cu.begin_capture, "cuStreamBeginCapture_v2"},
               {&cu.end_capture, "cuStreamEndCapture"},
               {&cu.instantiate, "cuGraphInstantiateWithFlags"},
               {&cu.graph_launch, "cuGraphLaunch"},
               {&cu.exec_destroy, "cuGraphExecDestroy"},
               {&cu.graph_destroy, "cuGraphDestroy"}};

#define CU(call) assert_int_equal(call, 0)

enum { NON_BLOCKING = 1, CAPTURE_GLOBAL = 0 };

struct test_graph {
    const sac_driver *driver;
    CUcontext primary;
    CUstream stream;
    void *graph, *exec;
};

test_graph *test_graph_capture(saccade_context *ctx, void (*work)(void *data), void *data) {
    test_graph *g = calloc(1, sizeof *g);
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    CUcontext popped;
    assert_non_null(g);
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        assert_non_null(*(void **)symbols[i].to = dlsym(library, symbols[i].symbol));
    g->driver = sac_driver_get(NULL);
    CU(g->driver->primary_retain(&g->primary, 0));
    CU(g->driver->context_push(g->primary));
    CU(cu.stream_create(&g->stream, NON_BLOCKING));
    assert_int_equal(saccade_context_set_stream(ctx, g->stream), SACCADE_OK);
    CU(cu.begin_capture(g->stream, CAPTURE_GLOBAL));
    work(data);
    CU(cu.end_capture(g->stream, &g->graph));
    assert_int_equal(saccade_context_set_stream(ctx, NULL), SACCADE_OK);
    CU(cu.instantiate(&g->exec, g->graph, 0));
    CU(g->driver->context_pop(&popped));
    return g;
}

void test_graph_replay(test_graph *g) {
    CUcontext popped;
    CU(g->driver->context_push(g->primary));
    CU(cu.graph_launch(g->exec, g->stream));
    CU(g->driver->stream_sync(g->stream));
    CU(g->driver->context_pop(&popped));
}

void test_graph_free(test_graph *g) {
    CUcontext popped;
    CU(g->driver->context_push(g->primary));
    CU(cu.exec_destroy(g->exec));
    CU(cu.graph_destroy(g->graph));
    CU(cu.stream_destroy(g->stream));
    CU(g->driver->context_pop(&popped));
    CU(g->driver->primary_release(0));
    free(g);
}
