/* workload.h - one attention computation: its inputs, what is done to the scores, and room for its results. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <saccade/attention.h>
#include <saccade/backend.h>

#include "gpu.h"
#include "options.h"
#include "safetensors.h"

/* Results by place in a list; gradients of aux tensors follow, in the order of the score_mod's slots. */
enum { OUT, LSE, DQ, DK, DV, DSINK, DAUX, MAX_RESULTS = DAUX + SACCADE_MAX_AUX };

typedef struct results {
    DLTensor *tensor[MAX_RESULTS]; /* NULL: not wanted */
    char *name[MAX_RESULTS];       /* "out", "lse", ... "d<aux>" */
    gpu_copies *gpu;               /* of the workload */
} results;

typedef struct workload {
    saccade_context *ctx;
    safetensors_file *file; /* NULL: made from a shape */
    DLTensor *q, *k, *v, *dout;
    DLTensor *owned[4]; /* those that were made here */
    int num_owned;
    bool dout_is_ones;
    bool shapes_only;                /* tensors that are made here have no data */
    saccade_attention_params params; /* with tensors, modifiers and block mask */
    saccade_block_mask *block_mask;
    bound_text mask_mod, score_mod;
    bool backward;
    gpu_copies *gpu; /* NULL: computed on the host */
} workload;

/* Row-major, zeroed; freed as one piece. */
DLTensor *tensor_new(DLDataType dtype, int ndim, const int64_t *shape);
void tensor_free(DLTensor *tensor);

/* Opens IN, or with shape not NULL makes random tensors, and everything that the options name. Returns the exit
 * code, after a message unless EXIT_OK; workload_close in any case. */
int workload_open(workload *work, attention_options *options, const input_shape *shape);

/* The same for workload_report alone: no tensor that is made has data, so any size will do. */
int workload_open_shapes(workload *work, attention_options *options, const input_shape *shape);
void workload_close(workload *work);

/* Has an open workload computed on the first NVIDIA GPU, if its backend is one of those. Returns as workload_open. */
int workload_enter_gpu(workload *work);

/* B, Nq, ... of the workload; lengths are the longest of a pack. */
input_shape workload_shape(const workload *work);
bool workload_is_packed(const workload *work);

/* Room for out and lse, and for the gradients if they are wanted; of the inputs' dtype, lse and the gradients of
 * fp32 inputs fp32. */
results results_new(const workload *work);
void results_free(results *r);

/* The library's calls, to their end. On a GPU results stay there until they are fetched. */
saccade_status workload_forward(const workload *work, results *r);
saccade_status workload_backward(const workload *work, results *r);
saccade_status workload_fetch(results *r);

/* The same inputs in another dtype (k, v and dout too), on the host, sharing everything else; and its end. */
workload workload_converted(const workload *work, DLDataType dtype);
void workload_converted_free(workload *converted);

/* Every backend, with reasons, for the workload's forward or backward pass, were its tensors in this kind of memory.
 * NULL after a message. */
saccade_backend_report *workload_report(const workload *work, bool backward, DLDeviceType memory);

/* The name of the backend that serves the pass; the caller frees. NULL after a message with the reasons. */
char *workload_backend(const workload *work, bool backward);

#endif
