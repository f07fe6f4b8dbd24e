/* test_large_sizes.c - where 32 bits end: offsets and extents beyond 2^31 elements, through views that need no such
 * memory, and more batches, sequences or heads than a launch grid has rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "reference/number.h"
#include "support/attention_suite.h"
#include "support/random.h"

#define MANY 65537

static const attention_case cases[] = {
    {.name = "more_than_65535_batches", .batch = MANY, .seqlen_q = 1, .seqlen_k = 2, .head_dim = 8},
    {.name = "more_than_65535_sequences",
     .batch = MANY,
     .lengths = LENGTHS_PACKED,
     .lens_q = {1, 0, 2, 1, 1, 0, 1, 1},
     .lens_k = {1, 1, 0, 2, 1, 1, 1, 1},
     .head_dim = 8,
     .causal = SACCADE_CAUSAL_BOTTOM_RIGHT},
    {.name = "more_than_65535_heads",
     .seqlen_q = 1,
     .seqlen_k = 2,
     .num_heads = MANY,
     .num_kv_heads = 1,
     .head_dim = 8},
    {.name = "more_than_65535_key_heads",
     .seqlen_q = 2,
     .seqlen_k = 1,
     .num_heads = MANY,
     .head_dim = 8,
     .sink = true},
};

static saccade_context *context(void) {
    saccade_context *ctx;
    assert_int_equal(saccade_context_create(&ctx, NULL), SACCADE_OK);
    return ctx;
}

/* ---- views whose elements lie more than 2^31 apart ---- */

enum {
    BATCH = 2,
    ROWS = 3,
    HEADS = 2,
    DIM = 8,
    ELEMENTS = BATCH * ROWS * HEADS * DIM,
    LSES = BATCH * HEADS * ROWS
};
static const int64_t far_apart = ((int64_t)1 << 31) + 8;

typedef enum far_operand { F_Q, F_K, F_V, F_OUT, F_DOUT, F_DQ, F_DK, F_DV, NUM_FAR } far_operand;

/* All operands as views of one region, side by side. */
typedef struct far_set {
    DLTensor tensors[NUM_FAR];
    int64_t shape[4], strides[4];
    float *region;
    size_t bytes;
} far_set;

/* Dimension `far` of (B, N, H, D) has a stride beyond 2^31; none when it is -1. False without address space. */
static bool far_set_make(far_set *set, int far) {
    const int64_t shape[4] = {BATCH, ROWS, HEADS, DIM},
                  strides[4] = {ROWS * HEADS * DIM, HEADS * DIM, DIM, 1};
    memcpy(set->shape, shape, sizeof shape);
    memcpy(set->strides, strides, sizeof strides);
    int64_t elements = NUM_FAR * ELEMENTS;
    if (far >= 0) {
        set->strides[far] = far_apart;
        elements += (shape[far] - 1) * far_apart;
    }
    set->bytes = (size_t)elements * sizeof(float);
    set->region =
        mmap(NULL, set->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (set->region == MAP_FAILED) return false;
    for (int i = 0; i < NUM_FAR; i++)
        set->tensors[i] = (DLTensor){.data = set->region + i * ELEMENTS,
                                     .device = {kDLCPU, 0},
                                     .ndim = 4,
                                     .dtype = SACCADE_F32,
                                     .shape = set->shape,
                                     .strides = set->strides};
    return true;
}

static float *far_element(const far_set *set, far_operand operand, int64_t index) {
    int64_t offset = 0;
    for (int d = 3; d >= 0; d--) {
        offset += index % set->shape[d] * set->strides[d];
        index /= set->shape[d];
    }
    return (float *)set->tensors[operand].data + offset;
}

static void far_run(far_set *set, const char *backend) {
    float lse[LSES];
    saccade_context *ctx = context();
    saccade_attention_params params = {
        .causal = SACCADE_CAUSAL_TOP_LEFT, .deterministic = true, .backend = backend};
    DLTensor *t = set->tensors, *row_sums = SACCADE_TENSOR(lse, SACCADE_F32, BATCH, HEADS, ROWS);
    for (int operand = 0; operand < NUM_FAR; operand++) {
        test_random random = {(uint64_t)operand};
        for (int64_t e = 0; e < ELEMENTS; e++) *far_element(set, operand, e) = (float)random_normal(&random);
    }
    assert_int_equal(saccade_attention_forward(ctx, &t[F_Q], &t[F_K], &t[F_V], &t[F_OUT], row_sums, &params),
                     SACCADE_OK);
    saccade_attention_grads grads = {.dout = &t[F_DOUT], .dq = &t[F_DQ], .dk = &t[F_DK], .dv = &t[F_DV]};
    assert_int_equal(
        saccade_attention_backward(ctx, &t[F_Q], &t[F_K], &t[F_V], &t[F_OUT], row_sums, &grads, &params),
        SACCADE_OK);
    saccade_context_destroy(ctx);
}

static void strides_beyond_2_31_give_the_bits_of_the_row_major_tensor(void **state) {
    const char *backend = usable_host_backend(state);
    far_set near_set, far_sets;
    assert_true(far_set_make(&near_set, -1));
    far_run(&near_set, backend);
    for (int far = 0; far < 3; far++) {
        if (!far_set_make(&far_sets, far)) {
            skip_because("no address space for %zu bytes", far_sets.bytes);
        }
        far_run(&far_sets, backend);
        for (int operand = 0; operand < NUM_FAR; operand++)
            for (int64_t e = 0; e < ELEMENTS; e++) {
                float got = *far_element(&far_sets, operand, e),
                      expected = *far_element(&near_set, operand, e);
                if (memcmp(&got, &expected, sizeof got) != 0)
                    fail_msg("dimension %d far apart: operand %d, element %d is %.9g, not %.9g", far, operand,
                             (int)e, (double)got, (double)expected);
            }
        munmap(far_sets.region, far_sets.bytes);
    }
    munmap(near_set.region, near_set.bytes);
}

/* ---- keys that are all one row: stride 0, and a closed form at any length ---- */

typedef struct one_row {
    int64_t keys;
    int32_t num_heads, head_dim;
    saccade_causal causal;
} one_row;

/* Every key has the score s, so out = v and lse = s + log(keys), for the last of two queries at any rate. */
static void check_one_row(const char *backend, const one_row *w) {
    int64_t kv_shape[4] = {1, w->keys, w->num_heads, w->head_dim}, kv_strides[4] = {0, 0, 0, 1};
    size_t q_size = (size_t)(2 * w->num_heads * w->head_dim);
    uint16_t *q = malloc(q_size * 2), *out = malloc(q_size * 2), key[256], value[256];
    float *lse = malloc((size_t)(2 * w->num_heads) * sizeof(float));
    double score = 0;
    assert_true(q && out && lse);
    for (int32_t d = 0; d < w->head_dim; d++) {
        double k = 0.125 * (d % 5 - 2), v = ldexp(d % 2 ? -1 : 1, d % 4); /* sums of these are exact */
        sac_number_write(key, SAC_BF16, d, &k, 1);
        sac_number_write(value, SAC_BF16, d, &v, 1);
        score += k / sqrt(w->head_dim);
    }
    for (size_t e = 0; e < q_size; e++) sac_number_write(q, SAC_BF16, (int64_t)e, &(double){1}, 1);
    DLTensor k = {.data = key,
                  .device = {kDLCPU, 0},
                  .ndim = 4,
                  .dtype = SACCADE_BF16,
                  .shape = kv_shape,
                  .strides = kv_strides};
    DLTensor v = k;
    v.data = value;
    saccade_context *ctx = context();
    saccade_attention_params params = {.causal = w->causal, .backend = backend};
    saccade_status status =
        saccade_attention_forward(ctx, SACCADE_TENSOR(q, SACCADE_BF16, 1, 2, w->num_heads, w->head_dim), &k,
                                  &v, SACCADE_TENSOR(out, SACCADE_BF16, 1, 2, w->num_heads, w->head_dim),
                                  SACCADE_TENSOR(lse, SACCADE_F32, 1, w->num_heads, 2), &params);
    if (status != SACCADE_OK) fail_msg("%lld keys: %s", (long long)w->keys, saccade_last_error());
    for (int32_t h = 0; h < w->num_heads; h++) {
        double expected = score + log((double)w->keys), got = (double)lse[2 * h + 1];
        if (!(fabs(got - expected) <= 1e-4))
            fail_msg("%lld keys: lse of head %d is %.9g, not %.9g", (long long)w->keys, h, got, expected);
        if (memcmp(out + (size_t)(w->num_heads + h) * (size_t)w->head_dim, value, (size_t)w->head_dim * 2) !=
            0)
            fail_msg("%lld keys: out of head %d is not the one value", (long long)w->keys, h);
    }
    saccade_context_destroy(ctx);
    free(q);
    free(out);
    free(lse);
}

static void four_million_keys_are_summed(void **state) {
    const char *backend = usable_host_backend(state);
    check_one_row(backend, &(one_row){1 << 22, 2, 8, SACCADE_CAUSAL_NONE});
    check_one_row(backend, &(one_row){(1 << 22) + 1, 1, 16, SACCADE_CAUSAL_BOTTOM_RIGHT});
}

static void keys_of_2_31_elements_and_their_neighbours_are_summed(void **state) {
    const char *backend = usable_host_backend(state);
    for (int beyond = -1; beyond <= 1; beyond++) /* 8 heads x 2^20 keys x 256 */
        check_one_row(backend, &(one_row){(1 << 20) + beyond, 8, 256, SACCADE_CAUSAL_NONE});
}

int main(void) {
    static const suite_extra extras[] = {
        {"strides_beyond_2_31_give_the_bits_of_the_row_major_tensor",
         strides_beyond_2_31_give_the_bits_of_the_row_major_tensor},
        {"four_million_keys_are_summed", four_million_keys_are_summed},
        {"keys_of_2_31_elements_and_their_neighbours_are_summed",
         keys_of_2_31_elements_and_their_neighbours_are_summed},
    };
    return attention_suite("large_sizes", cases, COUNT_OF(cases), extras, COUNT_OF(extras), false);
}
