/* buffer.c - the count stands in front of the data, in a cache line of its own. */
#include "mask/buffer.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum { LINE = 64 };

typedef struct buffer_head {
    atomic_int references;
    size_t bytes;
} buffer_head;

_Static_assert(sizeof(buffer_head) <= LINE, "the head must fit in front of the data");

static buffer_head *head_of(const void *data) { return (buffer_head *)((uintptr_t)data - LINE); }

void *sac_buffer_new(size_t bytes) {
    if (bytes > SIZE_MAX - 2 * LINE) return NULL;
    buffer_head *head = aligned_alloc(LINE, LINE + (bytes + LINE - 1) / LINE * LINE);
    if (!head) return NULL;
    atomic_init(&head->references, 1);
    head->bytes = bytes;
    return (char *)head + LINE;
}

void *sac_buffer_retain(const void *data) {
    atomic_fetch_add_explicit(&head_of(data)->references, 1, memory_order_relaxed);
    return (void *)(uintptr_t)data;
}

void sac_buffer_release(void *data) {
    if (data && atomic_fetch_sub_explicit(&head_of(data)->references, 1, memory_order_acq_rel) == 1)
        free(head_of(data));
}

size_t sac_buffer_bytes(const void *data) { return head_of(data)->bytes; }
