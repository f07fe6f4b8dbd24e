/* test_context.c - the shared context. */
#include "support/test_context.h"

#include "support/cmocka_all.h"

saccade_context *ctx;

int make_context(void **state) {
    (void)state;
    return saccade_context_create(&ctx, &(saccade_context_params){.num_threads = 3}) != SACCADE_OK;
}

int make_context_without_cache(void **state) {
    (void)state;
    return saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = ""}) != SACCADE_OK;
}

int end_context(void **state) {
    (void)state;
    saccade_context_destroy(ctx);
    return 0;
}

void must(saccade_status status) {
    if (status != SACCADE_OK) fail_msg("%s: %s", saccade_status_text(status), saccade_last_error());
}

saccade_modifier *made(const saccade_modifier_params *params) {
    saccade_modifier *modifier = NULL;
    must(saccade_modifier_create(ctx, &modifier, params));
    return modifier;
}
