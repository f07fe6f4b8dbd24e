/* cubin_pack.h - machine code made at build time: the standard variants of all kernels, in one file beside the
 * library.
 *
 * A cubin is found by all that its code depends on: texts, options, architecture. Who compiled it and when is no part
 * of that, so a pack needs no compiler where it is used, and a pack left behind by another version of the texts
 * simply holds nothing that is asked for. The index is checked when the pack is opened, a cubin when it is found;
 * what is not whole is not there.
 */
#ifndef SAC_CUDA_CUBIN_PACK_H
#define SAC_CUDA_CUBIN_PACK_H

#include <stddef.h>

#include "base/error.h"

#define SAC_CUBIN_PACK_NAME "libsaccade.cubins"

typedef struct sac_cubin_pack sac_cubin_pack;

/* NULL where there is no usable pack at `path`. `words`, of `size` bytes, says what was found, for people. */
sac_cubin_pack *sac_cubin_pack_open(const char *path, char *words, size_t size);
void sac_cubin_pack_close(sac_cubin_pack *pack);

/* The pack beside the library that this code is in, opened once a process; NULL as above. */
const sac_cubin_pack *sac_cubin_pack_of_library(void);
const char *sac_cubin_pack_words(void);

/* Inside the pack, or NULL. pack may be NULL. */
const void *sac_cubin_pack_find(const sac_cubin_pack *pack, const char *key, size_t *size);

typedef struct sac_packed_cubin {
    char key[33]; /* as text, 32 digits */
    const void *cubin;
    size_t size;
} sac_packed_cubin;

/* Sorts the cubins and writes them, whole or not at all. Equal keys may come several times. */
saccade_status sac_cubin_pack_write(const char *path, sac_packed_cubin *cubins, size_t count);

#endif
