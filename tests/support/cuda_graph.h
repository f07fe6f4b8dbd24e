/* cuda_graph.h - work captured in a graph and replayed, on GPU 0. */
#ifndef TEST_CUDA_GRAPH_H
#define TEST_CUDA_GRAPH_H

#include <saccade/context.h>

typedef struct test_graph test_graph;

/* Captures what work(data) queues through ctx, in a stream of its own; nothing runs yet. ctx is back on the default
 * stream afterwards. */
test_graph *test_graph_capture(saccade_context *ctx, void (*work)(void *data), void *data);

/* Runs it once, to its end. */
void test_graph_replay(test_graph *graph);

void test_graph_free(test_graph *graph);

#endif
