/* safetensors.h - reading and writing safetensors files: 8 bytes with the header's length, a JSON header, data.
 *
 * A file is untrusted: everything its header says is checked against its size before any tensor is handed out.
 * Tensors of an open file point into its mapping (or into a copy where an offset is not aligned for the dtype).
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <saccade/tensor.h>
#include <stdbool.h>
#include <stddef.h>

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct safetensors_tensor {
    char *name;
    DLTensor tensor; /* on the CPU, row-major */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    size_t bytes;
    uint64_t begin; /* of the data section */
    void *copy;     /* NULL: inside the mapping */
} safetensors_tensor;

typedef struct safetensors_file {
    char *path;
    void *mapping;
    size_t mapping_bytes;
    size_t count;
    safetensors_tensor *tensors; /* by offset */
} safetensors_file;

/* NULL, after a message on stderr that names the file and what is wrong with it. */
safetensors_file *safetensors_open(const char *path);
void safetensors_close(safetensors_file *file);

/* NULL when there is none of that name. The tensor lives as long as the file. */
DLTensor *safetensors_find(const safetensors_file *file, const char *name);

/* One tensor to be written; data row-major. */
typedef struct safetensors_entry {
    const char *name;
    const DLTensor *tensor;
} safetensors_entry;

/* Writes the file whole or not at all: it is made under another name beside `path`, then renamed. False after a
 * message on stderr. */
bool safetensors_write(const char *path, const safetensors_entry *entries, size_t count);

/* Prints what was written: names, shapes and dtypes. */
void safetensors_list(const char *path, const safetensors_entry *entries, size_t count);

#endif
