/* safetensors.c - reading safetensors files as hostile input, and writing them whole or not at all. */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "dtype.h"
#include "output.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are used as they lie in the file");

enum { PREFIX_BYTES = 8, MAX_HEADER_BYTES = 100 << 20 }; /* the format's own bound of the header */

/* ---- reading ---- */

/* Why the header's entry for a tensor is wrong; every check of one returns such a text, or NULL. */
typedef const char *fault;

/* A list of non-negative integers; `count` gets its length. */
static fault read_integers(const json_t *list, size_t max_count, int64_t *values, size_t *count,
                           const char *problem) {
    *count = json_array_size(list);
    if (!json_is_array(list) || *count > max_count) return problem;
    for (size_t i = 0; i < *count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0) return problem;
        values[i] = json_integer_value(item);
    }
    return NULL;
}

static fault read_dtype(const json_t *entry, DLDataType *dtype) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name) return "dtype is no string";
    if (!dtype_from_file_name(name, dtype)) return "dtype is none of F64 F32 F16 BF16 I64 I32 U8 BOOL";
    return NULL;
}

static fault read_shape(const json_t *entry, safetensors_tensor *t) {
    size_t ndim;
    fault wrong = read_integers(json_object_get(entry, "shape"), SAFETENSORS_MAX_DIMS, t->shape, &ndim,
                                "shape is no list of at most 8 non-negative integers");
    if (wrong) return wrong;
    t->tensor.ndim = (int)ndim;
    t->bytes = dtype_bytes(t->tensor.dtype);
    /* An extent of 0 does not excuse the others: their product is still what strides are made of. */
    size_t product = t->bytes;
    for (size_t d = 0; d < ndim; d++) {
        size_t extent = (size_t)t->shape[d];
        if (extent && (__builtin_mul_overflow(product, extent, &product) || product > INT64_MAX))
            return "the product of its shape overflows";
        t->bytes = extent && t->bytes ? product : 0;
    }
    return NULL;
}

static fault read_offsets(const json_t *entry, uint64_t data_bytes, safetensors_tensor *t) {
    int64_t offsets[2];
    size_t count;
    const char *problem = "data_offsets is no pair of non-negative integers";
    fault wrong = read_integers(json_object_get(entry, "data_offsets"), 2, offsets, &count, problem);
    if (wrong || count != 2) return problem;
    if (offsets[0] > offsets[1]) return "data_offsets ends before it begins";
    if ((uint64_t)offsets[1] > data_bytes) return "data_offsets reaches beyond the end of the file";
    if ((uint64_t)(offsets[1] - offsets[0]) != t->bytes) return "data_offsets disagrees with dtype and shape";
    t->begin = (uint64_t)offsets[0];
    return NULL;
}

static fault read_entry(const json_t *entry, uint64_t data_bytes, safetensors_tensor *t) {
    if (!json_is_object(entry)) return "its description is no object";
    t->tensor.device = (DLDevice){kDLCPU, 0};
    fault wrong = read_dtype(entry, &t->tensor.dtype);
    if (!wrong) wrong = read_shape(entry, t);
    if (!wrong) wrong = read_offsets(entry, data_bytes, t);
    return wrong;
}

static int compare_offsets(const void *left, const void *right) {
    const safetensors_tensor *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* The format allows neither overlaps nor holes: each byte of the data belongs to one tensor. */
static bool check_layout(safetensors_file *file, uint64_t data_bytes) {
    uint64_t end = 0;
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_offsets);
    for (size_t i = 0; i < file->count; i++) {
        const safetensors_tensor *t = &file->tensors[i];
        if (t->begin != end) {
            complain("%s: tensor \"%s\" begins at byte %" PRIu64 " of the data, %s", file->path, t->name,
                     t->begin, t->begin < end ? "inside the one before it" : "after a hole");
            return false;
        }
        end += t->bytes;
    }
    if (end != data_bytes)
        complain("%s: %" PRIu64 " bytes of data belong to no tensor", file->path, data_bytes - end);
    return end == data_bytes;
}

/* Points the tensor at its data, which is copied where the mapping is not aligned for the dtype. */
static void attach_data(safetensors_tensor *t, const char *data) {
    t->tensor.shape = t->shape;
    t->tensor.data = (void *)(data + t->begin);
    if (t->bytes && (uintptr_t)t->tensor.data % dtype_bytes(t->tensor.dtype)) {
        t->copy = allocate(t->bytes);
        t->tensor.data = memcpy(t->copy, t->tensor.data, t->bytes);
    }
}

static bool read_tensors(safetensors_file *file, json_t *header, const char *data, uint64_t data_bytes) {
    const char *name;
    json_t *entry;
    file->tensors = allocate((json_object_size(header) + 1) * sizeof *file->tensors);
    json_object_foreach(header, name, entry) {
        if (!strcmp(name, "__metadata__")) continue;
        safetensors_tensor *t = &file->tensors[file->count];
        fault wrong = read_entry(entry, data_bytes, t);
        if (wrong) {
            complain("%s: tensor \"%s\": %s", file->path, name, wrong);
            return false;
        }
        t->name = copy_string(name);
        file->count++;
    }
    if (!check_layout(file, data_bytes)) return false;
    for (size_t i = 0; i < file->count; i++) attach_data(&file->tensors[i], data);
    return true;
}

static bool read_header(safetensors_file *file) {
    const char *bytes = file->mapping;
    uint64_t header_bytes;
    memcpy(&header_bytes, bytes, PREFIX_BYTES);
    uint64_t rest = file->mapping_bytes - PREFIX_BYTES;
    if (header_bytes > rest || header_bytes > MAX_HEADER_BYTES) {
        complain("%s: no safetensors file: it would have a header of %" PRIu64 " bytes, but %s", file->path,
                 header_bytes, header_bytes > rest ? "the file is shorter" : "at most 100 MiB are allowed");
        return false;
    }
    json_error_t error;
    json_t *header = json_loadb(bytes + PREFIX_BYTES, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &error);
    bool good = json_is_object(header);
    if (!good)
        complain("%s: header: %s", file->path, header ? "is no JSON object" : error.text);
    else
        good = read_tensors(file, header, bytes + PREFIX_BYTES + header_bytes, rest - header_bytes);
    json_decref(header);
    return good;
}

static bool map_file(safetensors_file *file) {
    struct stat status;
    int descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */
    const char *reason = NULL;
    if (descriptor < 0 || fstat(descriptor, &status))
        reason = strerror(errno);
    else if (!S_ISREG(status.st_mode))
        reason = "is no regular file";
    else if (status.st_size < PREFIX_BYTES)
        reason = "is too short for a safetensors file";
    if (!reason) {
        file->mapping_bytes = (size_t)status.st_size;
        file->mapping = mmap(NULL, file->mapping_bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (file->mapping == MAP_FAILED) {
            file->mapping = NULL;
            reason = strerror(errno);
        }
    }
    if (descriptor >= 0) close(descriptor);
    if (reason) complain("%s: %s", file->path, reason);
    return !reason;
}

safetensors_file *safetensors_open(const char *path) {
    safetensors_file *file = allocate(sizeof *file);
    file->path = copy_string(path);
    if (map_file(file) && read_header(file)) return file;
    safetensors_close(file);
    return NULL;
}

void safetensors_close(safetensors_file *file) {
    if (!file) return;
    for (size_t i = 0; i < file->count; i++) {
        free(file->tensors[i].name);
        free(file->tensors[i].copy);
    }
    if (file->mapping) munmap(file->mapping, file->mapping_bytes);
    free(file->tensors);
    free(file->path);
    free(file);
}

DLTensor *safetensors_find(const safetensors_file *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i].tensor;
    return NULL;
}

/* ---- writing ---- */

static size_t entry_bytes(const safetensors_entry *entry) {
    return tensor_elements(entry->tensor) * dtype_bytes(entry->tensor->dtype);
}

/* Widest elements first, so that every tensor lies aligned; by name among equals, so that equal tensors make
 * equal files. */
static int compare_entries(const void *left, const void *right) {
    const safetensors_entry *a = left, *b = right;
    size_t a_bytes = dtype_bytes(a->tensor->dtype), b_bytes = dtype_bytes(b->tensor->dtype);
    if (a_bytes != b_bytes) return a_bytes > b_bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

static json_t *describe(const DLTensor *t, uint64_t begin, uint64_t end) {
    json_t *shape = json_array();
    for (int d = 0; d < t->ndim; d++) json_array_append_new(shape, json_integer(t->shape[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_file_name(t->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The header's text, padded with spaces so that the data begins at a multiple of 64. NULL after a message. */
static char *make_header(const safetensors_entry *entries, size_t count, size_t *header_bytes) {
    json_t *header = json_object();
    uint64_t offset = 0;
    char *text = NULL, *padded = NULL;
    for (size_t i = 0; i < count; i++) {
        uint64_t end = offset + entry_bytes(&entries[i]);
        if (json_object_set_new(header, entries[i].name, describe(entries[i].tensor, offset, end))) {
            complain("tensor \"%s\": its name is no UTF-8", entries[i].name);
            goto done;
        }
        offset = end;
    }
    text = json_dumps(header, JSON_COMPACT);
    if (!text) {
        complain("header: out of memory");
        goto done;
    }
    size_t length = strlen(text);
    *header_bytes = (PREFIX_BYTES + length + 63) / 64 * 64 - PREFIX_BYTES;
    padded = allocate(*header_bytes + 1);
    memset(padded, ' ', *header_bytes);
    memcpy(padded, text, length);
done:
    free(text);
    json_decref(header);
    return padded;
}

static bool write_contents(FILE *stream, const char *header, uint64_t header_bytes,
                           const safetensors_entry *entries, size_t count) {
    bool good = fwrite(&header_bytes, PREFIX_BYTES, 1, stream) == 1 &&
                fwrite(header, 1, header_bytes, stream) == header_bytes;
    for (size_t i = 0; i < count && good; i++) {
        size_t bytes = entry_bytes(&entries[i]);
        good = !bytes || fwrite(entries[i].tensor->data, 1, bytes, stream) == bytes;
    }
    return good;
}

bool safetensors_write(const char *path, const safetensors_entry *entries, size_t count) {
    output_file file;
    size_t header_bytes = 0;
    bool good = false;
    safetensors_entry *sorted = allocate(count * sizeof *sorted);
    for (size_t i = 0; i < count; i++) sorted[i] = entries[i];
    qsort(sorted, count, sizeof *sorted, compare_entries);
    char *header = make_header(sorted, count, &header_bytes);
    if (header && output_begin(&file, path)) {
        good = write_contents(file.stream, header, header_bytes, sorted, count);
        good = output_end(&file, good);
    }
    free(header);
    free(sorted);
    return good;
}

void safetensors_list(const char *path, const safetensors_entry *entries, size_t count) {
    printf("%s:\n", path);
    for (size_t i = 0; i < count; i++) {
        const DLTensor *tensor = entries[i].tensor;
        printf("  %-8s (", entries[i].name);
        for (int d = 0; d < tensor->ndim; d++) printf("%s%lld", d ? ", " : "", (long long)tensor->shape[d]);
        printf(") %s\n", dtype_name(tensor->dtype));
    }
}
