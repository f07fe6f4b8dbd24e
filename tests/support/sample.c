/* sample.c - reads the sample as it is written, no other file. SACCADE_TEST_DATA names its folder where the tests run
 * far from where they were built. */
#include "support/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference/number.h"
#include "support/cmocka_all.h"

enum { ROWS = 2048, HEADS_Q = 8, HEADS_K = 2, DIM = 64 };

static char *read_sample(void) {
    const char *folder = getenv("SACCADE_TEST_DATA");
    char path[1024];
    snprintf(path, sizeof path, "%s/sample.safetensors", folder ? folder : SACCADE_TEST_DATA);
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(8 << 20);
    assert_true(file && bytes);
    assert_true(fread(bytes, 1, 8 << 20, file) > 0);
    fclose(file);
    return bytes;
}

/* A safetensors file: the header's length in 8 bytes, the header, the tensors. */
static const char *tensor_at(const char *bytes, const char *name) {
    uint64_t header;
    char key[16];
    long begin;
    memcpy(&header, bytes, sizeof header);
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *entry = strstr(bytes + 8, key);
    assert_non_null(entry);
    const char *offsets = strstr(entry, "\"data_offsets\":");
    assert_non_null(offsets);
    assert_int_equal(sscanf(strchr(offsets, '['), "[%ld", &begin), 1);
    return bytes + 8 + header + begin;
}

static void fill(problem *p, test_operand operand, const char *data, int32_t sample_heads, int32_t heads,
                 const int64_t *first, const int32_t *len) {
    double row[DIM];
    for (int32_t b = 0; b < p->c.batch; b++)
        for (int32_t i = 0; i < len[b]; i++)
            for (int32_t h = 0; h < heads; h++) {
                int64_t from = ((int64_t)i * sample_heads + h) * DIM, to = ((first[b] + i) * heads + h) * DIM;
                sac_number_read(row, data, SAC_BF16, from, DIM);
                for (int d = 0; d < DIM; d++) p->values[operand][to + d] = sac_number_round(row[d], p->dtype);
            }
}

void sample_fill(problem *p) {
    const attention_case *c = &p->c;
    assert_true(c->head_dim == DIM && c->head_dim_v == DIM && c->num_heads <= HEADS_Q);
    assert_true(c->num_kv_heads <= HEADS_K && c->seqlen_q <= ROWS && c->seqlen_k <= ROWS);
    char *bytes = read_sample();
    fill(p, Q, tensor_at(bytes, "q"), HEADS_Q, c->num_heads, p->first_q, p->len_q);
    fill(p, K, tensor_at(bytes, "k"), HEADS_K, c->num_kv_heads, p->first_k, p->len_k);
    fill(p, V, tensor_at(bytes, "v"), HEADS_K, c->num_kv_heads, p->first_k, p->len_k);
    free(bytes);
}

void sample_rows(const char *name, double *to, int64_t rows, int32_t heads, sac_dtype dtype) {
    const int32_t sample_heads = *name == 'q' ? HEADS_Q : HEADS_K;
    double row[DIM];
    assert_true(rows <= ROWS && heads <= sample_heads);
    char *bytes = read_sample();
    const char *data = tensor_at(bytes, name);
    for (int64_t i = 0; i < rows; i++)
        for (int32_t h = 0; h < heads; h++) {
            sac_number_read(row, data, SAC_BF16, (i * sample_heads + h) * DIM, DIM);
            for (int d = 0; d < DIM; d++) to[(i * heads + h) * DIM + d] = sac_number_round(row[d], dtype);
        }
    free(bytes);
}
