/* report.c - the whole answer of the backend table, for people and for tests. */
#include "dispatch/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { TEXT_SIZE = 256 };

typedef struct ranked_entry {
    saccade_backend_entry entry;
    int rank, order;
} ranked_entry;

/* Usable first, better rank first, then the table's order. */
static int compare(const void *left, const void *right) {
    const ranked_entry *a = left, *b = right;
    if (a->entry.usable != b->entry.usable) return a->entry.usable ? -1 : 1;
    if (a->entry.usable && a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    return a->order - b->order;
}

static void free_entry(const saccade_backend_entry *entry) {
    for (int32_t i = 0; i < entry->num_reasons; i++) free((void *)entry->reasons[i]);
    free((void *)entry->reasons);
    free((void *)entry->title);
}

static saccade_status explain(saccade_context *ctx, const sac_backend *backend,
                              const saccade_request *request, saccade_backend_entry *entry) {
    const void *facts = backend->facts ? backend->facts(ctx, request) : NULL;
    char text[TEXT_SIZE] = "";
    size_t num_rules = 0;
    while (backend->rules[num_rules]) num_rules++;
    backend->title(ctx, text, sizeof text);
    char **reasons = calloc(num_rules + 1, sizeof *reasons);
    *entry = (saccade_backend_entry){
        .name = backend->name, .title = strdup(text), .reasons = (const char **)reasons};
    if (!reasons || !entry->title) return sac_fail(SACCADE_OUT_OF_MEMORY, "backend report");
    for (size_t i = 0; i < num_rules; i++) {
        if (!backend->rules[i](request, facts, text, sizeof text)) continue;
        reasons[entry->num_reasons] = strdup(text);
        if (!reasons[entry->num_reasons++]) return sac_fail(SACCADE_OUT_OF_MEMORY, "backend report");
    }
    entry->usable = entry->num_reasons == 0;
    return SACCADE_OK;
}

static saccade_status make_report(saccade_context *ctx, const saccade_request *request,
                                  saccade_backend_report **result) {
    int32_t count = 0;
    while (sac_backends[count]) count++;
    ranked_entry *ranked = calloc((size_t)count + 1, sizeof *ranked);
    saccade_backend_entry *entries = calloc((size_t)count + 1, sizeof *entries);
    saccade_backend_report *report = calloc(1, sizeof *report);
    saccade_status status = SACCADE_OK;
    if (!ranked || !entries || !report) {
        status = sac_fail(SACCADE_OUT_OF_MEMORY, "backend report");
        goto fail;
    }
    for (int32_t i = 0; i < count; i++) {
        status = explain(ctx, sac_backends[i], request, &ranked[i].entry);
        if (status != SACCADE_OK) goto fail;
        ranked[i].rank = sac_backends[i]->rank(request);
        ranked[i].order = i;
    }
    qsort(ranked, (size_t)count, sizeof *ranked, compare);
    for (int32_t i = 0; i < count; i++) entries[i] = ranked[i].entry;
    free(ranked);
    *report = (saccade_backend_report){.num_backends = count, .backends = entries};
    *result = report;
    return SACCADE_OK;
fail:
    for (int32_t i = 0; ranked && i < count; i++) free_entry(&ranked[i].entry);
    free(ranked);
    free(entries);
    free(report);
    return status;
}

static saccade_status check_count(const char *name, int64_t value, int64_t most) {
    if (value >= 0 && value <= most) return SACCADE_OK;
    return sac_fail(SACCADE_INVALID_ARGUMENT, "request.%s: %lld, must lie in 0..%lld", name, (long long)value,
                    (long long)most);
}

/* As far as rules multiply: what comes from a call is smaller by far. */
static saccade_status check_request(const saccade_request *r) {
    const int64_t most = INT32_MAX, rows = INT64_C(1) << 56;
    SAC_TRY(check_count("batch", r->batch, most));
    SAC_TRY(check_count("num_heads", r->num_heads, most));
    SAC_TRY(check_count("num_kv_heads", r->num_kv_heads, most));
    const int64_t heads = r->num_heads > r->num_kv_heads ? r->num_heads : r->num_kv_heads;
    const int64_t lists = (r->batch + 1) * (heads + 1);
    SAC_TRY(check_count("seqlen_q", r->seqlen_q, rows / lists));
    SAC_TRY(check_count("seqlen_k", r->seqlen_k, rows / lists));
    SAC_TRY(check_count("head_dim", r->head_dim, most));
    return check_count("head_dim_v", r->head_dim_v, most);
}

saccade_status saccade_select_backend(saccade_context *ctx, const saccade_request *request,
                                      saccade_backend_report **report) {
    if (!ctx || !request) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", ctx ? "request" : "ctx");
    SAC_TRY(check_request(request));
    if (report) {
        saccade_status status = make_report(ctx, request, report);
        if (status != SACCADE_OK) return status;
    }
    saccade_status status;
    sac_choose_backend(ctx, request, &status);
    return status;
}

void saccade_backend_report_destroy(saccade_backend_report *report) {
    if (!report) return;
    for (int32_t i = 0; i < report->num_backends; i++) free_entry(&report->backends[i]);
    free((void *)report->backends);
    free(report);
}
