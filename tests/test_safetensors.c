/* test_safetensors.c - hostile and damaged safetensors files are refused with words; good ones come back bit by bit;
 * a file that is written appears whole or not at all. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "safetensors.h"
#include "support/cmocka_all.h"

static char folder[] = "/tmp/saccade-safetensors-XXXXXX";
static char path[64], messages[64];

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(messages, sizeof messages, "%s/messages", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    unlink(messages);
    return rmdir(folder);
}

static void write_bytes(const void *bytes, size_t size) {
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    fclose(stream);
}

/* Opens `path` with stderr in a file; what was complained about lands in `text`. */
static safetensors_file *open_quietly(char *text, size_t size) {
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    assert_non_null(freopen(messages, "w+", stderr));
    safetensors_file *file = safetensors_open(path);
    fflush(stderr);
    rewind(stderr);
    size_t length = fread(text, 1, size - 1, stderr);
    text[length] = 0;
    dup2(kept, STDERR_FILENO);
    close(kept);
    return file;
}

/* A file of this header and so many bytes of data. */
static void write_file(const char *header, size_t data_bytes) {
    uint64_t length = strlen(header);
    char *bytes = calloc(1, 8 + length + data_bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    write_bytes(bytes, 8 + length + data_bytes);
    free(bytes);
}

static void expect_refusal(const char *what, const char *words) {
    char text[2048];
    safetensors_file *file = open_quietly(text, sizeof text);
    if (file) fail_msg("%.60s was accepted", what);
    if (!strstr(text, words)) fail_msg("%.60s: \"%s\" was expected in\n%s", what, words, text);
    if (!strstr(text, path)) fail_msg("the file's name was expected in\n%s", text);
}

static void refuses_header(const char *header, size_t data_bytes, const char *words) {
    write_file(header, data_bytes);
    expect_refusal(header, words);
}

#define ENTRY(dtype, shape, begin, end)                                                                      \
    "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"

static void files_too_short_for_a_header_are_refused(void **state) {
    (void)state;
    for (size_t size = 0; size < 8; size++) {
        write_bytes("\0\0\0\0\0\0\0\0", size);
        expect_refusal("a stub", "too short");
    }
}

static void header_length_beyond_the_file_is_refused(void **state) {
    (void)state;
    uint64_t lengths[] = {3, 1u << 20, (uint64_t)1 << 40, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char bytes[10] = "\0\0\0\0\0\0\0\0{}";
        memcpy(bytes, &lengths[i], 8);
        write_bytes(bytes, sizeof bytes);
        expect_refusal("a long header", "the file is shorter");
    }
}

static void headers_that_are_no_object_of_tensors_are_refused(void **state) {
    (void)state;
    refuses_header("", 0, "header");
    refuses_header("{", 0, "header");
    refuses_header("[]", 0, "is no JSON object");
    refuses_header("{\"a\":3}", 0, "\"a\": its description is no object");
    refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}} x", 4, "header");
    refuses_header("{\"\xff\":1}", 0, "header");
}

static void deep_json_is_refused_without_a_crash(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *header = malloc(DEPTH + 8);
    strcpy(header, "{\"a\":");
    memset(header + 5, '[', DEPTH);
    header[DEPTH + 5] = 0;
    refuses_header(header, 0, "depth");
    free(header);
}

static void duplicate_names_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F32", "1", 0, 4) ",\"a\":" ENTRY("F32", "1", 4, 8) "}", 8, "duplicate");
}

static void unknown_dtypes_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F8_E4M3", "4", 0, 4) "}", 4, "\"a\": dtype is none of");
    refuses_header("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is no string");
    refuses_header("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is no string");
}

static void wrong_shapes_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F32", "-1", 0, 4) "}", 4, "shape");
    refuses_header("{\"a\":" ENTRY("F32", "1.0", 0, 4) "}", 4, "shape");
    refuses_header("{\"a\":" ENTRY("F32", "\"1\"", 0, 4) "}", 4, "shape");
    refuses_header("{\"a\":" ENTRY("F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4, "shape");
    refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "shape");
}

static void overflowing_products_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F32", "4611686018427387905", 0, 4) "}", 4, "overflows");
    refuses_header("{\"a\":" ENTRY("F32", "4294967296,4294967297", 0, 4) "}", 4, "overflows");
    refuses_header("{\"a\":" ENTRY("U8", "9223372036854775807,3", 0, 4) "}", 4, "overflows");
    refuses_header("{\"a\":" ENTRY("F32", "0,4294967296,4294967296", 0, 0) "}", 0, "overflows");
    refuses_header("{\"a\":" ENTRY("F32", "99999999999999999999", 0, 4) "}", 4, "integer");
}

static void wrong_offsets_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F32", "1", -4, 0) "}", 4, "data_offsets");
    refuses_header("{\"a\":" ENTRY("F32", "1", 4, 0) "}", 4, "ends before it begins");
    refuses_header("{\"a\":" ENTRY("F32", "2", 0, 8) "}", 4, "beyond the end");
    refuses_header("{\"a\":" ENTRY("F32", "1", 9223372036854775803, 9223372036854775807) "}", 4,
                   "beyond the end");
    refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4, "no pair");
    refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, "no pair");
    refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no pair");
}

static void dtype_and_shape_that_disagree_with_offsets_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F32", "3", 0, 8) "}", 8, "disagrees");
    refuses_header("{\"a\":" ENTRY("BF16", "4", 0, 16) "}", 16, "disagrees");
    refuses_header("{\"a\":" ENTRY("F32", "0", 0, 4) "}", 4, "disagrees");
}

static void overlaps_holes_and_strays_are_refused(void **state) {
    (void)state;
    refuses_header("{\"a\":" ENTRY("F32", "2", 0, 8) ",\"b\":" ENTRY("F32", "2", 4, 12) "}", 12, "inside");
    refuses_header("{\"a\":" ENTRY("F32", "2", 0, 8) ",\"b\":" ENTRY("F32", "2", 0, 8) "}", 8, "inside");
    refuses_header("{\"a\":" ENTRY("F32", "1", 0, 4) ",\"b\":" ENTRY("F32", "1", 8, 12) "}", 12, "hole");
    refuses_header("{\"a\":" ENTRY("F32", "1", 0, 4) "}", 5, "belong to no tensor");
}

static void control_characters_of_a_file_do_not_reach_the_terminal(void **state) {
    (void)state;
    char text[2048];
    write_file("{\"\\u001b[2J\":3}", 0);
    assert_null(open_quietly(text, sizeof text));
    assert_null(strchr(text, 27));
}

static void folders_and_absent_files_are_refused(void **state) {
    (void)state;
    unlink(path);
    expect_refusal("no file", "No such file");
    mkdir(path, 0700);
    expect_refusal("a folder", "no regular file");
    rmdir(path);
}

static void misaligned_and_empty_tensors_are_read(void **state) {
    (void)state;
    char text[2048];
    const char *header =
        "{\"b\":" ENTRY("U8", "1", 0, 1) ",\"none\":" ENTRY("F64", "3,0", 1, 1) ",\"f\":" ENTRY(
            "F64", "2", 1, 17) ",\"point\":" ENTRY("F32", "", 17,
                                                   21) ",\"__metadata__\":{\"format\":\"pt\"}}   ";
    uint64_t length = strlen(header);
    double values[2] = {1.5, -2.5};
    float point = 7;
    char *bytes = calloc(1, 8 + length + 21);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    bytes[8 + length] = 9;
    memcpy(bytes + 8 + length + 1, values, sizeof values);
    memcpy(bytes + 8 + length + 17, &point, sizeof point);
    write_bytes(bytes, 8 + length + 21);
    free(bytes);

    safetensors_file *file = open_quietly(text, sizeof text);
    if (!file) fail_msg("%s", text);
    assert_int_equal(file->count, 4);
    assert_memory_equal(safetensors_find(file, "f")->data, values, sizeof values);
    assert_int_equal((uintptr_t)safetensors_find(file, "f")->data % sizeof(double), 0);
    assert_int_equal(*(uint8_t *)safetensors_find(file, "b")->data, 9);
    assert_int_equal(safetensors_find(file, "none")->shape[1], 0);
    assert_int_equal(safetensors_find(file, "point")->ndim, 0);
    assert_true(*(float *)safetensors_find(file, "point")->data == 7);
    assert_null(safetensors_find(file, "__metadata__"));
    safetensors_close(file);
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    char text[2048];
    float f[6] = {0, -0.0f, 1e-40f, 3, 4, 5};
    uint16_t h[3] = {1, 2, 0x7fc0};
    int64_t i[1] = {INT64_MIN};
    safetensors_entry entries[] = {{"h", SACCADE_TENSOR(h, SACCADE_BF16, 3)},
                                   {"quote\"\\ \xc3\xa9", SACCADE_TENSOR(f, SACCADE_F32, 2, 3)},
                                   {"nothing", SACCADE_TENSOR(NULL, SACCADE_F32, 0, 5)},
                                   {"i", SACCADE_TENSOR(i, SACCADE_I64, 1, 1, 1)}};
    assert_true(safetensors_write(path, entries, 4));
    safetensors_file *file = open_quietly(text, sizeof text);
    if (!file) fail_msg("%s", text);
    for (int e = 0; e < 4; e++) {
        DLTensor *t = safetensors_find(file, entries[e].name);
        assert_non_null(t);
        assert_int_equal(t->ndim, entries[e].tensor->ndim);
        assert_int_equal(t->dtype.code, entries[e].tensor->dtype.code);
        assert_memory_equal(t->shape, entries[e].tensor->shape, sizeof *t->shape * (size_t)t->ndim);
    }
    assert_memory_equal(safetensors_find(file, "h")->data, h, sizeof h);
    assert_memory_equal(safetensors_find(file, entries[1].name)->data, f, sizeof f);
    assert_memory_equal(safetensors_find(file, "i")->data, i, sizeof i);
    for (size_t t = 0; t < file->count; t++) assert_null(file->tensors[t].copy);
    safetensors_close(file);
}

static int count_files(void) {
    int count = 0;
    DIR *entries = opendir(folder);
    while (readdir(entries)) count++;
    closedir(entries);
    return count;
}

static void a_file_that_cannot_be_written_is_not_there(void **state) {
    (void)state;
    char nowhere[96];
    float x = 1;
    safetensors_entry entry = {"x", SACCADE_TENSOR(&x, SACCADE_F32, 1)};
    snprintf(nowhere, sizeof nowhere, "%s/absent/file", folder);
    assert_false(safetensors_write(nowhere, &entry, 1));
    assert_false(safetensors_write(folder, &entry, 1)); /* a folder is not replaced */
    assert_false(safetensors_write("/dev/null", &entry, 1));
    struct stat status;
    assert_int_equal(stat("/dev/null", &status), 0);
    assert_true(S_ISCHR(status.st_mode));
    /* A name that is no UTF-8 cannot stand in a header: found late, and the old file stays. */
    write_bytes("old", 3);
    int before = count_files();
    safetensors_entry bad = {"\xff", SACCADE_TENSOR(&x, SACCADE_F32, 1)};
    assert_false(safetensors_write(path, &bad, 1));
    assert_int_equal(count_files(), before);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 3);
}

/* Touches every byte that a tensor promises, for the sanitizers. */
static unsigned sum_of(const safetensors_file *file) {
    unsigned sum = 0;
    for (size_t i = 0; i < file->count; i++)
        for (size_t b = 0; b < file->tensors[i].bytes; b++)
            sum += ((const uint8_t *)file->tensors[i].tensor.data)[b];
    return sum;
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* A few bytes changed, removed or doubled: in the header's text mostly, where they matter. */
static size_t mutate(char *bytes, size_t size, size_t room, uint32_t *random) {
    static const char likely[] = "0123456789-[]{},:\"eE. \\uF\0\xff";
    for (uint32_t changes = 1 + next_random(random) % 4; changes--;) {
        size_t at = next_random(random) % size;
        switch (next_random(random) % 4) {
        case 0:
            bytes[at] = (char)next_random(random);
            break;
        case 1:
            bytes[at] = likely[next_random(random) % (sizeof likely - 1)];
            break;
        case 2:
            memmove(bytes + at, bytes + at + 1, size - at - 1);
            if (size > 9) size--;
            break;
        default:
            if (size == room) break;
            memmove(bytes + at + 1, bytes + at, size - at);
            size++;
        }
    }
    return size;
}

static void mutated_files_are_refused_or_read_within_bounds(void **state) {
    (void)state;
    enum { ROUNDS = 20000, ROOM = 1024 };
    const char *header = "{\"q\":" ENTRY("BF16", "2,3", 0, 12) ",\"k\":" ENTRY(
        "F32", "1,2,2", 12, 28) ",\"b\":" ENTRY("BOOL", "5", 28, 33) ",\"__metadata__\":{\"a\":\"b\"}}";
    uint64_t length = strlen(header);
    size_t size = 8 + length + 33;
    char valid[ROOM] = {0}, bytes[ROOM], text[2048];
    memcpy(valid, &length, 8);
    memcpy(valid + 8, header, length);
    uint32_t random = 20261121;
    int accepted = 0;
    unsigned sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        memcpy(bytes, valid, ROOM);
        write_bytes(bytes, mutate(bytes, size, ROOM, &random));
        safetensors_file *file = open_quietly(text, sizeof text);
        if (!file && !strstr(text, path)) fail_msg("round %d: refused without a message", round);
        if (file) sum += sum_of(file);
        accepted += file != NULL;
        safetensors_close(file);
    }
    /* Changes of data and of names leave a file good; most others do not. */
    if (accepted < ROUNDS / 50 || accepted > ROUNDS / 2)
        fail_msg("%d of %d mutated files were accepted (sum %u)", accepted, ROUNDS, sum);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_too_short_for_a_header_are_refused),
        cmocka_unit_test(header_length_beyond_the_file_is_refused),
        cmocka_unit_test(headers_that_are_no_object_of_tensors_are_refused),
        cmocka_unit_test(deep_json_is_refused_without_a_crash),
        cmocka_unit_test(duplicate_names_are_refused),
        cmocka_unit_test(unknown_dtypes_are_refused),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(overflowing_products_are_refused),
        cmocka_unit_test(wrong_offsets_are_refused),
        cmocka_unit_test(dtype_and_shape_that_disagree_with_offsets_are_refused),
        cmocka_unit_test(overlaps_holes_and_strays_are_refused),
        cmocka_unit_test(control_characters_of_a_file_do_not_reach_the_terminal),
        cmocka_unit_test(folders_and_absent_files_are_refused),
        cmocka_unit_test(misaligned_and_empty_tensors_are_read),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_file_that_cannot_be_written_is_not_there),
        cmocka_unit_test(mutated_files_are_refused_or_read_within_bounds),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
