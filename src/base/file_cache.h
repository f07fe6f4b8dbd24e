/* file_cache.h - compiled code kept on disk, shared by processes that know nothing of each other.
 *
 * A file is its payload followed by a seal (length and hash of the payload), so that a shared object or a cubin
 * can be used right where it lies. What is not sealed by this version is not there: truncated, zeroed and foreign
 * files are simply made again. Writing is best effort: a read-only or full disk costs time, never an error.
 */
#ifndef SAC_BASE_FILE_CACHE_H
#define SAC_BASE_FILE_CACHE_H

#include <stdbool.h>
#include <stddef.h>

/* Files of one folder are kept within this; the longest unused go first. */
#define SAC_FILE_CACHE_BYTES ((size_t)256 << 20)

/* Room for a key as text. */
enum { SAC_FILE_KEY_SIZE = 33 };

/* A key under construction: append everything the payload depends on, then read its text. */
typedef struct sac_file_key sac_file_key;
sac_file_key *sac_file_key_new(void); /* NULL: out of memory; the others then do nothing */
void sac_file_key_add(sac_file_key *key, const char *text); /* the length counts: "a" "b" differs from "ab" */
/* Writes the 32 digits of the xxHash128 and frees the key; false (and an empty text) when the key is NULL. */
bool sac_file_key_finish(sac_file_key *key, char text[SAC_FILE_KEY_SIZE]);

/* The payload, to be freed, or NULL: not there, or not whole. dir NULL: nothing is ever there. */
void *sac_file_cache_read(const char *dir, const char *name, size_t *size);

/* Is there a file of this name, whole or not? */
bool sac_file_cache_holds(const char *dir, const char *name);

/* Appears under its name whole or not at all, whoever else writes it. dir NULL: does nothing. */
void sac_file_cache_write(const char *dir, const char *name, const void *data, size_t size);

/* The path of a file (for dlopen); to be freed. NULL when dir is. */
char *sac_file_cache_path(const char *dir, const char *name);

/* Removes the longest unused files until the folder holds at most `bytes`. */
void sac_file_cache_trim(const char *dir, size_t bytes);

#endif
