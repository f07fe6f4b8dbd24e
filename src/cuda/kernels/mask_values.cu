/* mask_values.cu - what the mask_mod of a mask reads, from the arguments or a tensor. One thread, one value or token.
 * Values that make no sense are reported, and the mask will list nothing. */
#include "cuda/kernels/mask_args.h"

static __device__ void report(const sac_mask_args *args, sac_mask_problem problem, int32_t where) {
    atomicMax((unsigned long long *)&args->state->problem, SAC_MASK_PROBLEM(problem, where));
}

/* The last document that starts at or before the token. */
static __device__ int32_t document_of(const sac_mask_args *args, int32_t token) {
    int32_t low = 0, high = args->tensor_size;
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (args->tensor[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static __device__ void document_values(const sac_mask_args *args, int64_t i) {
    const int32_t *cu_seqlens = args->tensor, num_documents = args->tensor_size;
    if (i == 0 && cu_seqlens[0] != 0) report(args, SAC_MASK_BAD_DOCUMENT, 0);
    if (i == 0 && cu_seqlens[num_documents] != args->q_len)
        report(args, SAC_MASK_BAD_DOCUMENT, num_documents);
    if (i < num_documents && cu_seqlens[i + 1] < cu_seqlens[i])
        report(args, SAC_MASK_BAD_DOCUMENT, (int32_t)i + 1);
    if (i >= args->q_len) return;
    int32_t document = document_of(args, (int32_t)i);
    args->values[2 * i] = num_documents > 0 ? cu_seqlens[document] : 0;
    args->values[2 * i + 1] = num_documents > 0 ? cu_seqlens[document + 1] : 0;
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    mask_values(const __grid_constant__ sac_mask_args args) {
    const int64_t i = (int64_t)blockIdx.x * NUM_THREADS + threadIdx.x;
    if (args.source == SAC_MASK_INTERVALS) {
        document_values(&args, i);
    } else if (args.source == SAC_MASK_BAND) {
        if (i == 0) args.values[0] = args.band.lo_off;
        if (i == 1) args.values[1] = args.band.hi_off;
    } else if (i < 1 + args.batch) {
        const int32_t value = i == 0 || !args.tensor ? args.q_len : args.tensor[i - 1];
        if (value < 0) report(&args, SAC_MASK_BAD_LENGTH, (int32_t)i - 1);
        args.values[i] = value;
    }
}
