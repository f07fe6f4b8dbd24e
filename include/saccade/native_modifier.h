/* saccade/native_modifier.h - modifiers compiled by your own compiler, which keep their text for the device.
 *
 *     enum { prefix };
 *     SACCADE_MASK_MOD(prefix_lm, { return kv_idx < aux_i32(prefix, b) || q_idx >= kv_idx; })
 *
 *     SACCADE_SCORE_MOD(relative, { return score + scalar(0) * (kv_idx - q_idx); })
 *     SACCADE_SCORE_GRAD(relative, { return grad; })
 *
 *     saccade_modifier_create(ctx, &mask, &(saccade_modifier_params){.native = &prefix_lm,
 *         .num_aux = 1, .aux = (saccade_aux_decl[]){{.name = "prefix", .dtype = SACCADE_I32}}});
 *     saccade_modifier_create(ctx, &bias, &(saccade_modifier_params){.native = &relative,
 *         .native_grad = &relative_grad, .num_scalars = 1, .scalars = (const char *[]){"slope"}});
 *
 * The body is what a text is (modifier.h, modifier_text.h), with slots as numbers; where slots are named, as
 * `prefix` above, the names must be those declared. It is kept as written: your own macros, functions and
 * preprocessor lines do not reach the device. Each macro defines static objects in C (not C++); use it at file
 * scope, and where a modifier uses tanhf and its kind include math.h yourself.
 */
#ifndef SACCADE_NATIVE_MODIFIER_H
#define SACCADE_NATIVE_MODIFIER_H

#include <saccade/modifier.h>
#include <saccade/modifier_text.h>

/* clang-format off */

/* Defines `const saccade_native_modifier name_`. */
#define SACCADE_SCORE_MOD(name_, ...)                                                                        \
    static inline float name_##_point(float score, int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,      \
                                      const saccade_aux *aux) {                                              \
        (void)b, (void)h, (void)q_idx, (void)kv_idx, (void)aux;                                              \
        __VA_ARGS__                                                                                          \
    }                                                                                                        \
    static SACCADE_SCORE_ROW(name_##_row, name_##_point)                                                     \
    static const saccade_native_modifier name_ = {                                                           \
        .kind = SACCADE_SCORE_KIND, .name = #name_, .text = #__VA_ARGS__, .score_row = name_##_row};

/* Defines `const saccade_native_grad name_##_grad`, the gradient of score_mod name_. */
#define SACCADE_SCORE_GRAD(name_, ...)                                                                       \
    static inline float name_##_grad_point(float grad, float score, int32_t b, int32_t h, int32_t q_idx,     \
                                           int32_t kv_idx, const saccade_aux *aux SACCADE_GRAD_SUMS) {       \
        (void)score, (void)b, (void)h, (void)q_idx, (void)kv_idx, (void)aux, (void)saccade_sums;             \
        __VA_ARGS__                                                                                          \
    }                                                                                                        \
    static SACCADE_SCORE_GRAD_ROW(name_##_grad_row, name_##_grad_point)                                      \
    static const saccade_native_grad name_##_grad = {.text = #__VA_ARGS__, .row = name_##_grad_row};

/* Defines `const saccade_native_modifier name_`. */
#define SACCADE_MASK_MOD(name_, ...)                                                                         \
    static inline _Bool name_##_point(int32_t b, int32_t h, int32_t q_idx, int32_t kv_idx,                   \
                                      const saccade_aux *aux) {                                              \
        (void)b, (void)h, (void)q_idx, (void)kv_idx, (void)aux;                                              \
        __VA_ARGS__                                                                                          \
    }                                                                                                        \
    static SACCADE_MASK_ROW(name_##_row, name_##_point)                                                      \
    static const saccade_native_modifier name_ = {                                                           \
        .kind = SACCADE_MASK_KIND, .name = #name_, .text = #__VA_ARGS__, .mask_row = name_##_row};

/* clang-format on */

#endif
