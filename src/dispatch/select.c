/* select.c - which backend serves a request, and the reasons of all the others. */
#include "dispatch/dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { REASON_SIZE = 256, MAX_REASONS = 32 };

static const void *facts_of(saccade_context *ctx, const sac_backend *backend,
                            const saccade_request *request) {
    return backend->facts ? backend->facts(ctx, request) : NULL;
}

static bool usable(saccade_context *ctx, const sac_backend *backend, const saccade_request *request) {
    const void *facts = facts_of(ctx, backend, request);
    char reason[REASON_SIZE];
    for (const sac_rule_fn *rule = backend->rules; *rule; rule++)
        if ((*rule)(request, facts, reason, sizeof reason)) return false;
    return true;
}

static const sac_backend *best_usable(saccade_context *ctx, const saccade_request *request) {
    const sac_backend *best = NULL;
    for (const sac_backend *const *b = sac_backends; *b; b++)
        if (usable(ctx, *b, request) && (!best || (*b)->rank(request) < best->rank(request))) best = *b;
    return best;
}

/* Appends a line "name: reason; reason" for one backend. */
static void append_reasons(saccade_context *ctx, const sac_backend *backend, const saccade_request *request,
                           char *text, size_t size) {
    const void *facts = facts_of(ctx, backend, request);
    char reason[REASON_SIZE];
    bool first = true;
    size_t used = strlen(text);
    for (const sac_rule_fn *rule = backend->rules; *rule && used < size; rule++) {
        if (!(*rule)(request, facts, reason, sizeof reason)) continue;
        if (first)
            used += (size_t)snprintf(text + used, size - used, "\n  %s: %s", backend->name, reason);
        else
            used += (size_t)snprintf(text + used, size - used, "; %s", reason);
        first = false;
    }
}

static const sac_backend *pinned_backend(const char *name, saccade_status *status) {
    char names[512] = "";
    for (const sac_backend *const *b = sac_backends; *b; b++) {
        if (strcmp((*b)->name, name) == 0) return *b;
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", (*b)->name);
    }
    *status = sac_fail(SACCADE_INVALID_ARGUMENT, "backend: \"%s\" is none of %s", name, names);
    return NULL;
}

const sac_backend *sac_choose_backend(saccade_context *ctx, const saccade_request *request,
                                      saccade_status *status) {
    char text[6000] = "";
    *status = SACCADE_OK;
    if (request->backend) {
        const sac_backend *pinned = pinned_backend(request->backend, status);
        if (!pinned || usable(ctx, pinned, request)) return pinned;
        append_reasons(ctx, pinned, request, text, sizeof text);
        *status = sac_fail(SACCADE_UNSUPPORTED, "the pinned backend cannot serve this request:%s", text);
        return NULL;
    }
    const sac_backend *best = best_usable(ctx, request);
    if (best) return best;
    for (const sac_backend *const *b = sac_backends; *b; b++)
        append_reasons(ctx, *b, request, text, sizeof text);
    *status = sac_fail(SACCADE_UNSUPPORTED, "no backend serves this request:%s", text);
    return NULL;
}
