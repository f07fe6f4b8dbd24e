/* buffer.h - memory that several masks may share: reference counted, 64-byte aligned.
 *
 * A mask's lists and the values that its mask_mod reads live in buffers, so that and / or / not share them with
 * their operands instead of copying.
 */
#ifndef SAC_MASK_BUFFER_H
#define SAC_MASK_BUFFER_H

#include <stddef.h>

/* NULL when memory is short; 0 bytes give a buffer, not NULL. */
void *sac_buffer_new(size_t bytes);
void *sac_buffer_retain(const void *data);
void sac_buffer_release(void *data); /* NULL is fine */
size_t sac_buffer_bytes(const void *data);

#endif
