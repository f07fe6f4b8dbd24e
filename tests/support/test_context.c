/* test_context.c - the shared context. */
#include "support/test_context.h"

#include <string.h>

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

void assert_refused(saccade_status found, saccade_status wanted, const char *words) {
    if (found != wanted || !strstr(saccade_last_error(), words))
        fail_msg("status %d (wanted %d), message \"%s\" (wanted \"...%s...\")", (int)found, (int)wanted,
                 saccade_last_error(), words);
}

void assert_invalid(saccade_status found, const char *words) {
    assert_refused(found, SACCADE_INVALID_ARGUMENT, words);
}

saccade_modifier *made(const saccade_modifier_params *params) {
    saccade_modifier *modifier = NULL;
    must(saccade_modifier_create(ctx, &modifier, params));
    return modifier;
}
