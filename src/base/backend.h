/* backend.h - what a backend is: a row in the table, its rules, and its entry points.
 *
 * A rule says once, in one place, what the backend does not serve; choosing, validating and explaining all read
 * the same rule. Backends never check again what a rule has checked.
 */
#ifndef SAC_BASE_BACKEND_H
#define SAC_BASE_BACKEND_H

#include <saccade/backend.h>

#include "base/attention_call.h"

/* Writes the reason into text and returns true when the backend cannot serve the request. `facts` are the
 * backend's own (CPU features, device properties), as its probe found them. */
typedef bool (*sac_rule_fn)(const saccade_request *request, const void *facts, char *text, size_t size);

typedef struct sac_backend {
    const char *name;
    /* One line for people: what it is on this machine ("CPU, AVX-512, 8 threads"). */
    void (*title)(saccade_context *ctx, char *text, size_t size);
    /* Facts for the rules, owned by the context; NULL is allowed when the rules need none. */
    const void *(*facts)(saccade_context *ctx, const saccade_request *request);
    const sac_rule_fn *rules; /* NULL-terminated */
    /* Lower is better among usable backends; may depend on the request (cuDNN where it is faster). */
    int (*rank)(const saccade_request *request);
    /* Scratch memory when the caller has neither workspace nor allocator; NULL: the host's. */
    void *(*alloc)(saccade_context *ctx, DLDevice device, size_t bytes);
    void (*free)(saccade_context *ctx, DLDevice device, void *pointer);
    size_t (*workspace)(saccade_context *ctx, const sac_attention_call *call, bool backward);
    /* How many parts of dk and dv would keep the machine busy, where few keys are seen by many queries; NULL: it knows
     * no parts. */
    int32_t (*grad_parts)(saccade_context *ctx, const sac_attention_call *call);
    /* Would the call's backward take a delta? NULL: of no call. */
    bool (*takes_delta)(const sac_attention_call *call);
    saccade_status (*forward)(saccade_context *ctx, const sac_attention_call *call);
    saccade_status (*backward)(saccade_context *ctx, const sac_attention_call *call);
    /* Several forward calls at once; NULL: not offered, or, where `sums` is given, only such as it agrees to. With
     * sums_stored all calls but the last have an out, which takes what they give; else none needs one. */
    bool (*sums)(const sac_attention_sum *sum);
    bool sums_stored;
    size_t (*sum_workspace)(saccade_context *ctx, const sac_attention_sum *sum);
    saccade_status (*forward_sum)(saccade_context *ctx, const sac_attention_sum *sum);
} sac_backend;

/* Fills a rule's reason; always true, so that a rule ends with `return sac_reason(...)`. */
bool sac_reason(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
