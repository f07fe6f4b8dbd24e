/* saccade/backend.h - which backend serves a request, and for each other, every reason why not, in words.
 *
 * Calls choose by themselves, with the same table and the same rules; this header is for asking beforehand.
 * A pinned backend that cannot serve is an error that carries its reasons: there is no silent fallback.
 *
 *     saccade_request request;
 *     saccade_backend_report *report;
 *     saccade_request_from_call(&request, q, k, v, NULL, &params);
 *     saccade_select_backend(ctx, &request, &report);
 *     for (int32_t i = 0; i < report->num_backends; i++)
 *         printf("%s: %s\n", report->backends[i].name,
 *                report->backends[i].usable ? "usable" : report->backends[i].reasons[0]);
 *     saccade_backend_report_destroy(report);
 */
#ifndef SACCADE_BACKEND_H
#define SACCADE_BACKEND_H

#include <saccade/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum saccade_layout {
    SACCADE_LAYOUT_BSHD = 0,   /* (B, N, H, D) with strides */
    SACCADE_LAYOUT_PACKED = 1, /* (T, H, D) with cu_seqlens */
} saccade_layout;

/* What a call asks for, as far as any rule looks at it. */
typedef struct saccade_request {
    DLDevice device;
    int32_t compute_capability; /* 90 for sm_90; 0: ask the device */
    DLDataType dtype;
    saccade_layout layout;
    int64_t batch, num_heads, num_kv_heads;
    int64_t seqlen_q, seqlen_k; /* the longest, when packed */
    int32_t head_dim, head_dim_v;
    saccade_causal causal;
    saccade_window window;
    bool padding_between_sequences; /* seqused given */
    bool unaligned; /* some row of q, k, v, out or a gradient starts at no multiple of 16 bytes */
    bool score_mod, score_mod_grad; /* a score_mod; one that has its backward text */
    bool mask_mod, block_mask;
    bool shared_lists; /* of the block mask: unions of what parts of their queries visit (saccade/nsa.h) */
    bool aux_grad;     /* gradients of aux tensors wanted */
    bool softcap, sink, alibi, dropout, deterministic;
    bool training;      /* backward too */
    bool lse_grad;      /* dlse given */
    bool graph_capture; /* must be capturable in a CUDA graph */
    bool paged_kv, context_parallel, fp8;
    const char *backend; /* pinned, or NULL */
} saccade_request;

/* The answer, as text owned by the caller and released with saccade_backend_report_destroy. */
typedef struct saccade_backend_entry {
    const char *name;  /* "cpu" */
    const char *title; /* "CPU: AVX-512, 8 threads" */
    bool usable;
    int32_t num_reasons; /* 0 when usable */
    const char *const *reasons;
} saccade_backend_entry;

typedef struct saccade_backend_report {
    int32_t num_backends;
    const saccade_backend_entry *backends; /* usable ones first, best first */
} saccade_backend_report;

/* Returns OK when at least one backend (the pinned one, if pinned) serves the request, else UNSUPPORTED; the
 * report is given either way unless NULL. Errors besides: INVALID_ARGUMENT (counts that are negative or overflow; no
 * such backend to pin), OUT_OF_MEMORY. */
SACCADE_API saccade_status saccade_select_backend(saccade_context *ctx, const saccade_request *request,
                                                  saccade_backend_report **report);
SACCADE_API void saccade_backend_report_destroy(saccade_backend_report *report);

/* The request that saccade_attention_forward (grads NULL) or _backward would make of these arguments. Data pointers of
 * tensors are not looked at. Errors: INVALID_ARGUMENT, in the words of the call. */
SACCADE_API saccade_status saccade_request_from_call(saccade_request *request, const DLTensor *q,
                                                     const DLTensor *k, const DLTensor *v,
                                                     const saccade_attention_grads *grads,
                                                     const saccade_attention_params *params);

#ifdef __cplusplus
}
#endif
#endif
