/* modifiers.h - the score_mods and mask_mods of the tests: native, with the same text for devices. */
#ifndef TEST_MODIFIERS_H
#define TEST_MODIFIERS_H

#include <saccade/native_modifier.h>

#include "support/attention_case.h"

enum { TEST_MAX_SLOTS = 2 };

/* An aux tensor: its extents and its contents follow from the case. */
typedef struct test_aux {
    saccade_aux_decl decl;
    test_shape (*shape)(const attention_case *c);
    double (*value)(const attention_case *c, int64_t index);
} test_aux;

typedef struct test_modifier {
    const saccade_native_modifier *native;
    const saccade_native_grad *grad; /* score_mods */
    int32_t num_aux, num_scalars;
    test_aux aux[TEST_MAX_SLOTS];
    const char *scalar_names[TEST_MAX_SLOTS];
    float scalars[TEST_MAX_SLOTS];
} test_modifier;

/* score_mods */
extern const test_modifier test_smooth_cap;    /* a softcap written as text */
extern const test_modifier test_relative_bias; /* learned bias of (H, distance); gradient wanted */
extern const test_modifier test_temperature;   /* a factor by scalar and by (B,) tensor; gradient wanted */
extern const test_modifier test_head_slope;    /* reads h, q_idx and kv_idx, nothing else */

/* mask_mods */
extern const test_modifier test_prefix_lm;   /* kv_idx < prefix[b] || q_idx >= kv_idx */
extern const test_modifier test_documents;   /* same document of (max length,) ids */
extern const test_modifier test_dilated;     /* (q_idx - kv_idx) % 3 == 0 */
extern const test_modifier test_blind_rows;  /* every fifth query sees nothing */
extern const test_modifier test_late_keys;   /* kv_idx >= 200 */
extern const test_modifier test_head_parity; /* (q_idx + kv_idx + h + b) even */

/* as_text: from its text alone, compiled at run time. */
saccade_modifier *test_modifier_create(saccade_context *ctx, const test_modifier *modifier, bool as_text);

/* The modifier's values as its row functions read them: owned, on the host. */
void test_modifier_values(const test_modifier *modifier, const attention_case *c, saccade_aux *aux);
void test_modifier_values_free(saccade_aux *aux);

#endif
